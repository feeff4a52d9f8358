//! What the engine tells the application, in order and without loss.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use noq_proto::{Dir, PathStats, PathStatus, StreamId};

use crate::route::SlotId;

/// A connection, with a generation so that an id is never reused.
pub type ConnId = u64;

/// Bytes of a stream as they came: usually one piece, seldom more than a few.
#[derive(Debug, Default)]
pub struct Payload {
    pub first: Bytes,
    pub rest: Vec<Bytes>,
    pub len: usize,
}

impl Payload {
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies everything into `target`, whose length must be [`len`](Self::len).
    pub fn copy_to(&self, mut target: &mut [u8]) {
        for piece in std::iter::once(&self.first).chain(&self.rest) {
            let (head, tail) = target.split_at_mut(piece.len());
            head.copy_from_slice(piece);
            target = tail;
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// The peer's application closed it.
    Application { code: u64, reason: Bytes },
    /// The peer's QUIC stack closed it.
    PeerTransport { code: u64, frame: Option<u64>, reason: Bytes },
    /// Our QUIC stack closed it because of what the peer sent.
    Transport { code: u64, frame: Option<u64>, reason: String },
    /// Nothing was heard for too long.
    Timeout,
    /// A stateless reset: the peer does not know the connection any more.
    Reset,
    /// No common QUIC version.
    Version,
    /// No connection ids left.
    Cids,
    /// Our application closed it.
    Local { code: u64, reason: Bytes },
    /// The engine failed while working on it.
    Panic(String),
}

#[derive(Debug)]
pub enum Event {
    /// A peer wants to connect; answer with accept, refuse, retry or ignore.
    Incoming {
        id: u64,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        alpns: Vec<Bytes>,
        validated: bool,
        may_retry: bool,
    },
    /// The handshake is complete and the peer has proved its key, or that it may go by its name.
    Connected {
        conn: ConnId,
        zero_rtt: bool,
        peer: Option<[u8; 32]>,
        alpn: Bytes,
    },
    Confirmed {
        conn: ConnId,
    },
    /// Exactly once for each connection.
    Closed {
        conn: ConnId,
        close: Close,
    },
    /// The last event of a connection.
    Drained {
        conn: ConnId,
    },
    StreamsOpened {
        conn: ConnId,
        dir: Dir,
    },
    StreamsAvailable {
        conn: ConnId,
        dir: Dir,
    },
    /// Answers a read that found nothing; `fin` says that the stream ended with it.
    Data {
        conn: ConnId,
        stream: StreamId,
        data: Payload,
        fin: bool,
    },
    StreamReset {
        conn: ConnId,
        stream: StreamId,
        code: u64,
    },
    Writable {
        conn: ConnId,
        stream: StreamId,
    },
    Finished {
        conn: ConnId,
        stream: StreamId,
    },
    Stopped {
        conn: ConnId,
        stream: StreamId,
        code: u64,
    },
    /// An attached sink or source has something to report.
    Transfer {
        conn: ConnId,
        stream: StreamId,
    },
    Datagrams {
        conn: ConnId,
    },
    DatagramsUnblocked {
        conn: ConnId,
    },
    PathEstablished {
        conn: ConnId,
        path: u32,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
    },
    PathAbandoned {
        conn: ConnId,
        path: u32,
        reason: &'static str,
        code: Option<u64>,
    },
    PathDiscarded {
        conn: ConnId,
        path: u32,
        stats: Box<PathStats>,
    },
    PathRemoteStatus {
        conn: ConnId,
        path: u32,
        status: PathStatus,
    },
    /// What is sent on the path has not been answered for too long, or now is.
    PathSilent {
        conn: ConnId,
        path: u32,
        silent: bool,
    },
    PathObserved {
        conn: ConnId,
        path: u32,
        address: SocketAddr,
    },
    NatAddress {
        conn: ConnId,
        added: bool,
        address: SocketAddr,
    },
    /// A connection that we accepted sends to an address that the peer has named for hole punching.
    NatProbe {
        conn: ConnId,
        address: SocketAddr,
    },
    /// Something came to a slot that is set aside, from an address that is not pinned to it; if it was
    /// a probe, it had been sent to `port`.
    Knock {
        slot: SlotId,
        source: SocketAddr,
        port: Option<u16>,
    },
    /// The outbox of a virtual slot is no longer empty.
    Output {
        slot: SlotId,
    },
    /// A socket could not send there.
    SocketError {
        slot: SlotId,
        errno: i32,
        destination: SocketAddr,
    },
    /// The endpoint is dead; nothing follows.
    Failed {
        text: String,
    },
}
