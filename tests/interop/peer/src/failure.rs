//! What went wrong, as JSON: `kind`, for QUIC's errors `code`, `reason` and `frame`, and the whole chain in words.

use std::error::Error;

use iroh::endpoint::{
    ConnectionError, ReadError, ReadExactError, ReadToEndError, ResetError, SendDatagramError,
    StoppedError, WriteError,
};
use serde_json::{Value, json};

#[derive(Debug)]
pub struct Failure(pub Value);

impl Failure {
    pub fn text(kind: &str, text: impl Into<String>) -> Self {
        Self(json!({"kind": kind, "text": text.into()}))
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(describe(&error))
    }
}

pub fn describe(error: &(dyn Error + 'static)) -> Value {
    let mut words = Vec::new();
    let mut found: Option<Value> = None;
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        found = found.or_else(|| classify(error));
        // An I/O error's source() leaves out the error that it holds.
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    let mut value = found.unwrap_or_else(|| json!({"kind": "other"}));
    value["text"] = words.join(": ").into();
    value
}

fn classify(error: &(dyn Error + 'static)) -> Option<Value> {
    let kind = |kind: &str| Some(json!({"kind": kind}));
    let coded = |kind: &str, code: u64| Some(json!({"kind": kind, "code": code}));
    if let Some(error) = error.downcast_ref::<ConnectionError>() {
        return Some(connection(error));
    }
    if let Some(error) = error.downcast_ref::<ReadError>() {
        return match error {
            ReadError::Reset(code) => coded("stream_reset", (*code).into()),
            ReadError::ConnectionLost(error) => Some(connection(error)),
            ReadError::ClosedStream => kind("stream_closed"),
            ReadError::ZeroRttRejected => kind("zero_rtt_rejected"),
        };
    }
    if let Some(error) = error.downcast_ref::<WriteError>() {
        return match error {
            WriteError::Stopped(code) => coded("stream_stopped", (*code).into()),
            WriteError::ConnectionLost(error) => Some(connection(error)),
            WriteError::ClosedStream => kind("stream_closed"),
            WriteError::ZeroRttRejected => kind("zero_rtt_rejected"),
        };
    }
    if let Some(error) = error.downcast_ref::<ReadToEndError>() {
        return match error {
            ReadToEndError::Read(error) => classify(error),
            ReadToEndError::TooLong => kind("too_long"),
        };
    }
    if let Some(error) = error.downcast_ref::<ReadExactError>() {
        return match error {
            ReadExactError::ReadError(error) => classify(error),
            ReadExactError::FinishedEarly(_) => kind("finished_early"),
        };
    }
    if let Some(error) = error.downcast_ref::<ResetError>() {
        return match error {
            ResetError::ConnectionLost(error) => Some(connection(error)),
            ResetError::ZeroRttRejected => kind("zero_rtt_rejected"),
        };
    }
    if let Some(error) = error.downcast_ref::<StoppedError>() {
        return match error {
            StoppedError::ConnectionLost(error) => Some(connection(error)),
            StoppedError::ZeroRttRejected => kind("zero_rtt_rejected"),
        };
    }
    if let Some(error) = error.downcast_ref::<SendDatagramError>() {
        return match error {
            SendDatagramError::UnsupportedByPeer => kind("datagram_unsupported"),
            SendDatagramError::Disabled => kind("datagram_disabled"),
            SendDatagramError::TooLarge => kind("datagram_too_large"),
            SendDatagramError::ConnectionLost(error) => Some(connection(error)),
        };
    }
    None
}

pub fn connection(error: &ConnectionError) -> Value {
    match error {
        ConnectionError::VersionMismatch => json!({"kind": "version_mismatch"}),
        ConnectionError::TransportError(error) => json!({
            "kind": "transport_error",
            "code": u64::from(error.code),
            "reason": error.reason,
            "frame": error.frame.to_string(),
        }),
        ConnectionError::ConnectionClosed(close) => json!({
            "kind": "peer_transport_error",
            "code": u64::from(close.error_code),
            "reason": String::from_utf8_lossy(&close.reason),
            "frame": close.frame_type.to_string(),
        }),
        ConnectionError::ApplicationClosed(close) => json!({
            "kind": "application_closed",
            "code": close.error_code.into_inner(),
            "reason": String::from_utf8_lossy(&close.reason),
        }),
        ConnectionError::Reset => json!({"kind": "stateless_reset"}),
        ConnectionError::TimedOut => json!({"kind": "timed_out"}),
        ConnectionError::LocallyClosed => json!({"kind": "locally_closed"}),
        ConnectionError::CidsExhausted => json!({"kind": "cids_exhausted"}),
    }
}
