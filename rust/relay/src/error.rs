//! Why a relay connection ended.

use crate::frame::FrameError;
use crate::http::NotUpgraded;
use crate::websocket::Broken;

/// The connection is over; nothing that comes later is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    Tls(rustls::Error),
    /// What came is no HTTP, or its head is too long.
    Http,
    NotUpgraded(NotUpgraded),
    WebSocket(Broken),
    Frame(FrameError),
    /// A message that does not belong to this part of the handshake.
    Handshake,
    /// The relay does not take this client, and why.
    Denied(String),
    /// The client has not shown that the key is its own.
    Signature,
    /// The peer closed the WebSocket, with a code if it gave one.
    Closed(Option<u16>),
    /// Bytes before they were due.
    TooEarly,
    /// What was due has not come.
    TooLate,
    /// Newer connections of the same endpoint have replaced it.
    Replaced,
}

impl Error {
    /// A word for it, the same whatever the details.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Http => "http",
            Self::NotUpgraded(_) => "not_upgraded",
            Self::WebSocket(_) => "websocket",
            Self::Frame(_) => "frame",
            Self::Handshake => "handshake",
            Self::Denied(_) => "denied",
            Self::Signature => "signature",
            Self::Closed(_) => "closed",
            Self::TooEarly => "too_early",
            Self::TooLate => "timeout",
            Self::Replaced => "replaced",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Http => write!(f, "the answer is no HTTP"),
            Self::NotUpgraded(NotUpgraded::Status(status)) => {
                write!(f, "the relay answered with HTTP status {status} in place of an upgrade")
            }
            Self::NotUpgraded(NotUpgraded::Protocol(None)) => write!(f, "the relay chose no protocol"),
            Self::NotUpgraded(NotUpgraded::Protocol(Some(name))) => {
                write!(f, "the relay chose the protocol {name:?}, which was not offered")
            }
            Self::NotUpgraded(NotUpgraded::Accept) => {
                write!(f, "the relay's upgrade does not belong to the request")
            }
            Self::WebSocket(broken) => write!(f, "{broken}"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Handshake => write!(f, "a message that does not belong to the handshake"),
            Self::Denied(reason) => write!(f, "the relay refuses: {reason}"),
            Self::Signature => write!(f, "the client does not prove its key"),
            Self::Closed(None) => write!(f, "closed by the peer"),
            Self::Closed(Some(code)) => write!(f, "closed by the peer with code {code}"),
            Self::TooEarly => write!(f, "the client sent before the upgrade was answered"),
            Self::TooLate => write!(f, "the client has fallen silent"),
            Self::Replaced => write!(f, "too many newer connections have the same key"),
        }
    }
}

impl std::error::Error for Error {}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        Self::WebSocket(broken)
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
