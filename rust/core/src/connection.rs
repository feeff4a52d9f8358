//! One connection: translation of its events and the calls of the application.

use noq_proto::{
    Connection, Dir, Event as Inner, PathAbandonReason, PathEvent, PathId, Side, StreamEvent, StreamId,
    VarInt,
    coding::{Decodable, Encodable},
    n0_nat_traversal,
};
use std::{collections::VecDeque, net::SocketAddr};

use crate::{
    Instant,
    event::{Close, ConnId, Event},
    outcome::{close_of, peer_key, protocol, zero_rtt_rejected},
    route::to_outer,
    silence::{Answers, PathWatch},
    streams::{Streams, Write},
};

/// The number of a path. The library keeps it to itself, but it encodes as a varint.
pub fn path_number(path: PathId) -> u32 {
    let mut encoded = Vec::with_capacity(8);
    path.encode(&mut encoded);
    VarInt::decode(&mut &encoded[..]).map_or(0, |number| number.into_inner() as u32)
}

/// Addresses that a peer may name in one round of hole punching (endpoint reference, section 3.6).
const MAX_PROBED: usize = 32;

pub struct Slot {
    pub id: ConnId,
    pub conn: Connection,
    pub(crate) streams: Streams,
    pub(crate) dirty: bool,
    pub(crate) closed: bool,
    /// The handshake is complete, and the application has been told.
    pub(crate) established: bool,
    pub(crate) held: bool,
    pub(crate) armed: Option<Instant>,
    early: bool,
    /// An ordinary TLS connection: where one side shows a certificate, none has a key.
    keyless: bool,
    /// Where the peer had us punch holes last, the latest at the end.
    probed: VecDeque<SocketAddr>,
    pub(crate) watch: PathWatch,
    /// Given up, and not yet forgotten by the library.
    abandoned: Vec<PathId>,
    opened: [VecDeque<StreamId>; 2],
    wants_opened: [bool; 2],
    wants_available: [bool; 2],
}

impl Slot {
    pub(crate) fn new(id: ConnId, conn: Connection, window: u64, keyless: bool) -> Self {
        let early = conn.side() == Side::Client && conn.has_0rtt();
        Self {
            id,
            conn,
            streams: Streams::new(window),
            dirty: false,
            closed: false,
            established: false,
            held: false,
            armed: None,
            early,
            keyless,
            probed: VecDeque::new(),
            watch: PathWatch::default(),
            abandoned: Vec::new(),
            opened: Default::default(),
            wants_opened: [false; 2],
            wants_available: [false; 2],
        }
    }

    pub(crate) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    pub(crate) fn closed(&mut self, close: Close, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.streams.lost(&mut self.conn, self.id, events);
        events.push(Event::Closed { conn: self.id, close });
    }

    /// Hands on what the library has to tell, and serves the reads and native ends that it concerns.
    pub(crate) fn tell(&mut self, now: Instant, events: &mut Vec<Event>) {
        while let Some(event) = self.conn.poll() {
            self.on_event(event, now, events);
        }
        if self.streams.pending() {
            self.streams.serve(&mut self.conn, self.id, events);
        }
    }

    pub(crate) fn on_event(&mut self, event: Inner, now: Instant, events: &mut Vec<Event>) {
        let conn = self.id;
        match event {
            Inner::HandshakeDataReady => {}
            Inner::Connected => {
                let rejected = self.early && zero_rtt_rejected(&self.conn);
                if rejected {
                    self.streams.forget_local(Side::Client);
                }
                let peer = if self.keyless { None } else { peer_key(&self.conn) };
                match protocol(&self.conn) {
                    Some(alpn) if self.keyless || peer.is_some() => {
                        self.established = true;
                        self.watch.opened(&self.conn, PathId::ZERO, now);
                        events.push(Event::Connected { conn, zero_rtt: self.early && !rejected, peer, alpn })
                    }
                    // TLS lets nobody through without a key and a protocol; if it did, we do not.
                    _ => {
                        self.conn.close(now, 0u32.into(), Default::default());
                        let reason = "the peer has no key or no protocol".to_owned();
                        self.closed(Close::Transport { code: 0x128, frame: None, reason }, events);
                    }
                }
            }
            Inner::HandshakeConfirmed => events.push(Event::Confirmed { conn }),
            Inner::ConnectionLost { reason } => self.closed(close_of(reason), events),
            Inner::DatagramReceived => events.push(Event::Datagrams { conn }),
            Inner::DatagramsUnblocked => events.push(Event::DatagramsUnblocked { conn }),
            Inner::Stream(event) => self.on_stream_event(event, events),
            Inner::Path(event) => self.on_path_event(event, now, events),
            Inner::NatTraversal(event) => {
                let (added, address) = match event {
                    n0_nat_traversal::Event::AddressAdded(address) => (true, address),
                    n0_nat_traversal::Event::AddressRemoved(address) => (false, address),
                };
                events.push(Event::NatAddress { conn, added, address: to_outer(address) });
            }
        }
    }

    /// We send to this address because the peer has named it; tells of addresses that are new.
    pub(crate) fn probes(&mut self, address: SocketAddr, events: &mut Vec<Event>) {
        if self.probed.contains(&address) {
            return;
        }
        if self.probed.len() == MAX_PROBED {
            self.probed.pop_front();
        }
        self.probed.push_back(address);
        events.push(Event::NatProbe { conn: self.id, address });
    }

    fn on_stream_event(&mut self, event: StreamEvent, events: &mut Vec<Event>) {
        let conn = self.id;
        match event {
            StreamEvent::Opened { dir } => {
                let queue = &mut self.opened[dir as usize];
                let before = queue.len();
                while let Some(stream) = self.conn.streams().accept(dir) {
                    queue.push_back(stream);
                }
                if queue.len() > before && std::mem::take(&mut self.wants_opened[dir as usize]) {
                    events.push(Event::StreamsOpened { conn, dir });
                }
            }
            StreamEvent::Readable { id } => self.streams.on_readable(&mut self.conn, id),
            StreamEvent::Writable { id } => {
                if !self.streams.on_writable(id) {
                    events.push(Event::Writable { conn, stream: id });
                }
            }
            StreamEvent::Finished { id } => events.push(Event::Finished { conn, stream: id }),
            StreamEvent::Stopped { id, error_code } => {
                let code = error_code.into_inner();
                self.streams.on_stopped(id, code, conn, events);
                events.push(Event::Stopped { conn, stream: id, code });
            }
            StreamEvent::Available { dir } => {
                if std::mem::take(&mut self.wants_available[dir as usize]) {
                    events.push(Event::StreamsAvailable { conn, dir });
                }
            }
        }
    }

    fn on_path_event(&mut self, event: PathEvent, now: Instant, events: &mut Vec<Event>) {
        let conn = self.id;
        match event {
            PathEvent::Established { id, .. } => {
                if let Ok(network) = self.conn.network_path(id) {
                    self.watch.opened(&self.conn, id, now);
                    events.push(Event::PathEstablished {
                        conn,
                        path: path_number(id),
                        remote: to_outer(network.remote()),
                        local_ip: network.local_ip(),
                    });
                }
            }
            PathEvent::Abandoned { id, reason, .. } => {
                self.watch.abandoned(id);
                self.abandoned.push(id);
                let (reason, code) = match reason {
                    PathAbandonReason::ApplicationClosed { error_code } => {
                        ("closed", Some(error_code.into_inner()))
                    }
                    PathAbandonReason::TimedOut => ("timeout", None),
                    PathAbandonReason::UnusableAfterNetworkChange => ("network_change", None),
                    PathAbandonReason::RemoteAbandoned { error_code } => {
                        ("remote", Some(error_code.into_inner()))
                    }
                    _ => ("unknown", None),
                };
                events.push(Event::PathAbandoned { conn, path: path_number(id), reason, code });
            }
            PathEvent::Discarded { id, path_stats, .. } => {
                self.abandoned.retain(|path| *path != id);
                events.push(Event::PathDiscarded { conn, path: path_number(id), stats: path_stats });
            }
            PathEvent::RemoteStatus { id, status, .. } => {
                events.push(Event::PathRemoteStatus { conn, path: path_number(id), status });
            }
            PathEvent::ObservedAddr { id, addr, .. } => {
                events.push(Event::PathObserved { conn, path: path_number(id), address: to_outer(addr) });
            }
            _ => {}
        }
    }

    // ---- calls

    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let stream = self.conn.streams().open(dir);
        // Never withdrawn by a success: others may wait, and the credit they wait for may be here
        // while its event is not yet handed out.
        self.wants_available[dir as usize] |= stream.is_none();
        stream
    }

    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let stream = self.opened[dir as usize].pop_front();
        self.wants_opened[dir as usize] |= stream.is_none();
        stream
    }

    /// Whether bytes can be received on a stream; calls with other ids would panic below.
    pub fn receives(&self, stream: StreamId) -> bool {
        stream.dir() == Dir::Bi || stream.initiator() != self.conn.side()
    }

    pub fn sends(&self, stream: StreamId) -> bool {
        stream.dir() == Dir::Bi || stream.initiator() == self.conn.side()
    }

    pub fn read(&mut self, stream: StreamId, max: usize) -> crate::streams::Read {
        self.streams.read(&mut self.conn, stream, max)
    }

    pub fn cancel_read(&mut self, stream: StreamId) {
        self.streams.cancel_read(stream);
    }

    pub fn stop(&mut self, stream: StreamId, code: u64) -> bool {
        self.streams.stop(&mut self.conn, stream, code)
    }

    pub fn write(&mut self, stream: StreamId, data: &[u8]) -> Write {
        self.streams.write(&mut self.conn, stream, data)
    }

    pub fn streams(&mut self) -> &mut Streams {
        &mut self.streams
    }

    pub fn set_receive_window(&mut self, window: u64) {
        self.streams.set_window(&mut self.conn, window);
    }

    /// Paths that are open or being opened.
    pub fn paths(&self) -> impl Iterator<Item = PathId> + use<> {
        let mut paths = self.conn.paths();
        paths.retain(|path| !self.abandoned.contains(path));
        paths.into_iter()
    }

    /// How a path answers; none of one that has not been found to work.
    pub fn answers(&self, path: PathId, now: Instant) -> Option<Answers> {
        self.watch.answers(&self.conn, path, now)
    }

    /// Has a path that is dead ask by another one what has arrived, so that the rest is sent again.
    pub fn detour(&mut self, now: Instant, path: u32, by: u32) -> Result<(), String> {
        self.watch.detour(&mut self.conn, PathId::from(path), PathId::from(by), now)
    }

    pub fn close_path(&mut self, now: Instant, path: u32, code: u64) -> Result<(), String> {
        let code = VarInt::from_u64(code).map_err(|error| error.to_string())?;
        self.conn.close_path(now, PathId::from(path), code).map_err(|error| error.to_string())
    }

    /// Whether it was dialled with early data in mind.
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }
}
