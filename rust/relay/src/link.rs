//! The bytes of a TCP connection, in clear or inside TLS.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData};

use crate::handshake::{EXPORTER_LABEL, KEYING_MATERIAL};

/// Plain bytes that may wait to be encrypted or sent; whoever has more is to wait.
pub const MAX_QUEUED: usize = 1 << 20;

/// One end of the connection.
pub enum Link {
    Plain { outgoing: Vec<u8> },
    Client(Box<Tls<ClientConnection>>),
    Server(Box<Tls<ServerConnection>>),
}

/// A TLS session and what waits for its handshake.
pub struct Tls<C> {
    session: C,
    /// Given before the handshake was done.
    early: Vec<u8>,
}

impl Link {
    pub fn plain() -> Self {
        Self::Plain { outgoing: Vec::new() }
    }

    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        let mut session = ClientConnection::new(config, name)?;
        session.set_buffer_limit(None);
        Ok(Self::Client(Box::new(Tls { session, early: Vec::new() })))
    }

    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(config)?;
        session.set_buffer_limit(None);
        Ok(Self::Server(Box::new(Tls { session, early: Vec::new() })))
    }

    /// Whether it is ready for application data.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Plain { .. } => true,
            Self::Client(tls) => !tls.session.is_handshaking(),
            Self::Server(tls) => !tls.session.is_handshaking(),
        }
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain { .. })
    }

    /// Takes bytes from the network; what they carry is appended to `clear`.
    pub fn feed(&mut self, data: &[u8], clear: &mut Vec<u8>) -> Result<(), rustls::Error> {
        match self {
            Self::Plain { .. } => {
                clear.extend_from_slice(data);
                Ok(())
            }
            Self::Client(tls) => feed(tls, data, clear),
            Self::Server(tls) => feed(tls, data, clear),
        }
    }

    /// Takes bytes for the peer. Before the handshake is done they wait.
    pub fn write(&mut self, data: &[u8]) {
        match self {
            Self::Plain { outgoing } => outgoing.extend_from_slice(data),
            Self::Client(tls) => write(tls, data),
            Self::Server(tls) => write(tls, data),
        }
    }

    /// The bytes for the network.
    pub fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing into memory does not fail.
        match self {
            Self::Plain { outgoing } => return std::mem::take(outgoing),
            Self::Client(tls) => {
                while tls.session.wants_write() && tls.session.write_tls(&mut out).is_ok() {}
            }
            Self::Server(tls) => {
                while tls.session.wants_write() && tls.session.write_tls(&mut out).is_ok() {}
            }
        }
        out
    }

    /// The bytes for the network, with these at the end.
    pub fn wrap(&mut self, data: Vec<u8>) -> Vec<u8> {
        match self {
            // As they are, if nothing is before them.
            Self::Plain { outgoing } if outgoing.is_empty() => data,
            _ => {
                if !data.is_empty() {
                    self.write(&data);
                }
                self.take()
            }
        }
    }

    /// Whether bytes for the network wait.
    pub fn has_output(&self) -> bool {
        match self {
            Self::Plain { outgoing } => !outgoing.is_empty(),
            Self::Client(tls) => tls.session.wants_write(),
            Self::Server(tls) => tls.session.wants_write(),
        }
    }

    /// Says goodbye inside TLS.
    pub fn close(&mut self) {
        match self {
            Self::Plain { .. } => {}
            Self::Client(tls) => tls.session.send_close_notify(),
            Self::Server(tls) => tls.session.send_close_notify(),
        }
    }

    /// Keying material of the session for that key; None without TLS or before it is open.
    pub fn keying_material(&self, key: &[u8; 32]) -> Option<[u8; KEYING_MATERIAL]> {
        let material = [0; KEYING_MATERIAL];
        match self {
            Self::Plain { .. } => None,
            Self::Client(tls) => tls.session.export_keying_material(material, EXPORTER_LABEL, Some(key)).ok(),
            Self::Server(tls) => tls.session.export_keying_material(material, EXPORTER_LABEL, Some(key)).ok(),
        }
    }
}

fn feed<C, S>(tls: &mut Tls<C>, mut data: &[u8], clear: &mut Vec<u8>) -> Result<(), rustls::Error>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    while !data.is_empty() {
        // Reading from memory does not fail, but takes only so much at once.
        if tls.session.read_tls(&mut data).unwrap_or(0) == 0 {
            break;
        }
        let state = tls.session.process_new_packets()?;
        let start = clear.len();
        clear.resize(start + state.plaintext_bytes_to_read(), 0);
        let read = tls.session.reader().read(&mut clear[start..]).unwrap_or(0);
        clear.truncate(start + read);
    }
    if !tls.session.is_handshaking() && !tls.early.is_empty() {
        let early = std::mem::take(&mut tls.early);
        write(tls, &early);
    }
    Ok(())
}

fn write<C, S>(tls: &mut Tls<C>, data: &[u8])
where
    C: std::ops::DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    if tls.session.is_handshaking() {
        tls.early.extend_from_slice(data);
    } else {
        let _ = tls.session.writer().write_all(data);
    }
}
