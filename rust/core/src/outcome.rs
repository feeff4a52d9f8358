//! How handshakes and connections turn out.

use bytes::Bytes;
use noq_proto::{
    Connection, ConnectionError, Side, VarInt,
    coding::{Decodable, Encodable},
    crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;

use crate::{event::Close, tls::key_of_spki};

fn frame_number(frame: noq_proto::FrameType) -> u64 {
    let mut encoded = Vec::with_capacity(8);
    frame.encode(&mut encoded);
    VarInt::decode(&mut &encoded[..]).map_or(0, VarInt::into_inner)
}

pub(crate) fn close_of(error: ConnectionError) -> Close {
    let frame = |frame: noq_proto::MaybeFrame| match frame {
        noq_proto::MaybeFrame::Known(frame) => Some(frame_number(frame)),
        noq_proto::MaybeFrame::Unknown(frame) => Some(frame),
        noq_proto::MaybeFrame::None => None,
    };
    match error {
        ConnectionError::VersionMismatch => Close::Version,
        ConnectionError::TransportError(error) => {
            Close::Transport { code: error.code.into(), frame: frame(error.frame), reason: error.reason }
        }
        ConnectionError::ConnectionClosed(close) => Close::PeerTransport {
            code: close.error_code.into(),
            frame: frame(close.frame_type),
            reason: close.reason,
        },
        ConnectionError::ApplicationClosed(close) => {
            Close::Application { code: close.error_code.into_inner(), reason: close.reason }
        }
        ConnectionError::Reset => Close::Reset,
        ConnectionError::TimedOut => Close::Timeout,
        ConnectionError::LocallyClosed => Close::Local { code: 0, reason: Bytes::new() },
        ConnectionError::CidsExhausted => Close::Cids,
    }
}

/// The key that the peer has proved, once the handshake is complete.
pub(crate) fn peer_key(conn: &Connection) -> Option<[u8; 32]> {
    let chain = conn.crypto_session().peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_of_spki(chain.first()?)
}

/// The protocol that was agreed on.
pub(crate) fn protocol(conn: &Connection) -> Option<Bytes> {
    let data = conn.crypto_session().handshake_data()?.downcast::<HandshakeData>().ok()?;
    Some(Bytes::from(data.protocol?))
}

pub(crate) fn zero_rtt_rejected(conn: &Connection) -> bool {
    conn.side() == Side::Client && !conn.accepted_0rtt()
}
