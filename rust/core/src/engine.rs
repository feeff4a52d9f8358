//! The endpoint and its connections, stepped from outside.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use noq_proto::{
    ClientConfig, ConnectError, Connection, ConnectionError, ConnectionHandle, DatagramEvent, EcnCodepoint,
    Endpoint, EndpointConfig, EndpointEvent, FourTuple, ServerConfig, Side, TokenMemoryCache,
    TransportConfig, VarInt,
    coding::{Decodable, Encodable},
    crypto::{CryptoError, HmacKey, rustls::HandshakeData},
};
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;

use crate::{
    Instant,
    config::{InvalidSetting, Settings, Transport},
    connection::Slot,
    event::{Close, ConnId, Event},
    route::{Outgoing, Output, Router, SlotId, Target, to_inner, to_outer},
    tls::{Tls, key_of_spki, server_name},
};

/// Datagrams that one connection may send before the next one has its turn.
const TRANSMIT_QUOTA: usize = 40;
/// A batch must stay below 64 KiB.
const MAX_BATCH_BYTES: usize = 65_000;
/// A connection attempt that nobody answered for so long is ignored.
const INCOMING_AGE: Duration = Duration::from_secs(20);

/// One datagram, or several of equal size (the last may be shorter) from one source.
#[derive(Debug)]
pub struct Received {
    pub source: SocketAddr,
    pub local_ip: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub segment_size: usize,
    pub data: BytesMut,
}

/// Why a call could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The endpoint failed; the text says how.
    Dead(String),
    /// No such connection, or it is closed.
    Gone,
    /// The arguments are not usable.
    Invalid(String),
}

impl From<InvalidSetting> for CallError {
    fn from(error: InvalidSetting) -> Self {
        Self::Invalid(error.0.into())
    }
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Stateless reset tokens by keyed BLAKE3, as upstream makes them.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        // Comparison of BLAKE3 hashes takes constant time.
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Native ends that called their waker since the last step.
pub(crate) struct Wakes {
    list: Mutex<Vec<(ConnId, noq_proto::StreamId)>>,
    signal: Box<dyn Fn() + Send + Sync>,
}

impl Wakes {
    pub(crate) fn wake(&self, conn: ConnId, stream: noq_proto::StreamId) {
        let first = {
            let mut list = self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            list.push((conn, stream));
            list.len() == 1
        };
        if first {
            (self.signal)();
        }
    }
}

struct Pending {
    incoming: noq_proto::Incoming,
    since: Instant,
}

/// Counters of the engine.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    pub received_datagrams: u64,
    pub received_bytes: u64,
    pub accepted: u64,
    pub refused: u64,
    pub retried: u64,
    pub panics: u64,
}

pub struct Engine {
    endpoint: Endpoint,
    tls: Tls,
    server: ServerConfig,
    transport: Arc<TransportConfig>,
    transport_settings: Transport,
    clients: FxHashMap<(Vec<Vec<u8>>, bool), Arc<noq_proto::crypto::rustls::QuicClientConfig>>,
    tokens: Arc<TokenMemoryCache>,
    conns: Vec<Option<Box<Slot>>>,
    generations: Vec<u32>,
    live: usize,
    dirty: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    pending: FxHashMap<u64, Pending>,
    pending_order: VecDeque<u64>,
    next_incoming: u64,
    max_incoming: usize,
    retry_above: Option<usize>,
    accepting: bool,
    pub router: Router,
    events: Vec<Event>,
    buffer: Vec<u8>,
    batch: usize,
    wakes: Arc<Wakes>,
    in_endpoint: bool,
    failed: Option<String>,
    panic_next: Option<&'static str>,
    pub stats: Stats,
}

fn index_of(conn: ConnId) -> usize {
    conn as u32 as usize
}

impl Engine {
    /// `signal` is called, from any thread, when a native stream end needs a step.
    pub fn new(settings: Settings, signal: Box<dyn Fn() + Send + Sync>) -> Result<Self, CallError> {
        let tls = Tls::new(&settings.secret, settings.keylog.as_deref(), settings.max_tickets)
            .map_err(|error| CallError::Invalid(format!("the key log file cannot be opened: {error}")))?;
        let transport = settings.transport.build()?;
        let mut reset_key = [0; 32];
        match settings.seed {
            Some(seed) => reset_key = blake3::derive_key("aioiroh 2026 reset key of a simulation", &seed),
            None => getrandom::fill(&mut reset_key).expect("the system gives random bytes"),
        }
        let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
        // Upstream drops packets without the fixed bit; so a non-QUIC datagram can share the socket.
        config.grease_quic_bit(false).rng_seed(settings.seed);
        let mut server = ServerConfig::with_crypto(Arc::new(tls.server(settings.alpns.clone())));
        server.transport_config(transport.clone());
        let accepting = !settings.alpns.is_empty();
        let endpoint = Endpoint::new(Arc::new(config), accepting.then(|| Arc::new(server.clone())), true);
        Ok(Self {
            endpoint,
            tls,
            server,
            transport,
            transport_settings: settings.transport,
            clients: FxHashMap::default(),
            tokens: Arc::new(TokenMemoryCache::default()),
            conns: Vec::new(),
            generations: Vec::new(),
            live: 0,
            dirty: VecDeque::new(),
            timers: BinaryHeap::new(),
            pending: FxHashMap::default(),
            pending_order: VecDeque::new(),
            next_incoming: 1,
            max_incoming: settings.max_incoming,
            retry_above: settings.retry_above,
            accepting: true,
            router: Router::default(),
            events: Vec::new(),
            buffer: Vec::with_capacity(MAX_BATCH_BYTES + 2048),
            batch: 10,
            wakes: Arc::new(Wakes { list: Mutex::new(Vec::new()), signal }),
            in_endpoint: false,
            failed: None,
            panic_next: None,
            stats: Stats::default(),
        })
    }

    pub fn public_key(&self) -> [u8; 32] {
        self.tls.public()
    }

    /// Datagrams of one connection that may leave in one batch.
    pub fn set_batch(&mut self, datagrams: usize) {
        self.batch = datagrams.clamp(1, 64);
    }

    pub fn open_connections(&self) -> usize {
        self.live
    }

    pub fn is_idle(&self) -> bool {
        self.live == 0
    }

    fn alive(&self) -> Result<(), CallError> {
        match &self.failed {
            Some(text) => Err(CallError::Dead(text.clone())),
            None => Ok(()),
        }
    }

    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Test hook: the next turn of "connection" or "endpoint" panics.
    pub fn panic_next(&mut self, place: &'static str) {
        self.panic_next = Some(place);
    }

    /// Runs code of the shared endpoint; a panic there ends the endpoint.
    fn guarded<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Result<T, CallError> {
        self.alive()?;
        match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(value) => Ok(value),
            Err(panic) => {
                let text = format!("the endpoint failed: {}", panic_text(&*panic));
                self.fail(text.clone());
                Err(CallError::Dead(text))
            }
        }
    }

    fn fail(&mut self, text: String) {
        self.stats.panics += 1;
        if self.failed.is_none() {
            self.failed = Some(text.clone());
            self.events.push(Event::Failed { text });
        }
    }

    // ---- input

    /// Datagrams that arrived together.
    pub fn receive(&mut self, now: Instant, mut received: Received, output: &mut dyn Output) {
        self.stats.received_bytes += received.data.len() as u64;
        let path = FourTuple::new(to_inner(received.source), received.local_ip);
        while !received.data.is_empty() {
            let datagram = received.data.split_to(received.segment_size.clamp(1, received.data.len()));
            self.stats.received_datagrams += 1;
            let result = self.guarded(|engine| engine.receive_one(now, path, received.ecn, datagram, output));
            if result.is_err() {
                return;
            }
        }
    }

    fn receive_one(
        &mut self,
        now: Instant,
        path: FourTuple,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
        output: &mut dyn Output,
    ) {
        self.buffer.clear();
        match self.endpoint.handle(now, path, ecn, data, &mut self.buffer) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(slot) = self.conns.get_mut(handle.0).and_then(Option::as_mut) else { return };
                let result = catch_unwind(AssertUnwindSafe(|| slot.conn.handle_event(event)));
                match result {
                    Ok(()) => {
                        if slot.mark_dirty() {
                            self.dirty.push_back(handle.0);
                        }
                    }
                    Err(panic) => self.kill(handle.0, panic_text(&*panic)),
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit, output),
            Some(DatagramEvent::NewConnection(incoming)) => self.incoming(now, incoming, output),
        }
    }

    fn respond(&mut self, transmit: &noq_proto::Transmit, output: &mut dyn Output) {
        let buffer = std::mem::take(&mut self.buffer);
        self.router.send(&outgoing(transmit, &buffer), output);
        self.buffer = buffer;
    }

    fn incoming(&mut self, now: Instant, incoming: noq_proto::Incoming, output: &mut dyn Output) {
        while let Some(&oldest) = self.pending_order.front() {
            match self.pending.get(&oldest) {
                Some(pending) if pending.since + INCOMING_AGE > now => break,
                Some(_) => {
                    let pending = self.pending.remove(&oldest).expect("just seen");
                    self.endpoint.ignore(pending.incoming);
                }
                None => {}
            }
            self.pending_order.pop_front();
        }
        self.buffer.clear();
        if !self.accepting || self.pending.len() >= self.max_incoming {
            self.stats.refused += 1;
            let transmit = self.endpoint.refuse(incoming, &mut self.buffer);
            return self.respond(&transmit, output);
        }
        if self.retry_above.is_some_and(|limit| self.pending.len() >= limit)
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            self.stats.retried += 1;
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.buffer) {
                self.respond(&transmit, output);
            }
            return;
        }
        let id = self.next_incoming;
        self.next_incoming += 1;
        self.events.push(Event::Incoming {
            id,
            remote: to_outer(incoming.remote_address()),
            local_ip: incoming.local_ip(),
            alpns: incoming
                .decrypt()
                .and_then(|initial| initial.alpns())
                .map(|alpns| alpns.filter_map(Result::ok).collect())
                .unwrap_or_default(),
            validated: incoming.remote_address_validated(),
            may_retry: incoming.may_retry(),
        });
        self.pending.insert(id, Pending { incoming, since: now });
        self.pending_order.push_back(id);
    }

    /// Fires the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((deadline, index))) = self.timers.peek() {
            if deadline > now {
                break;
            }
            self.timers.pop();
            let Some(slot) = self.conns.get_mut(index).and_then(Option::as_mut) else { continue };
            if slot.armed != Some(deadline) {
                continue;
            }
            slot.armed = None;
            match slot.conn.poll_timeout() {
                Some(due) if due <= now => {
                    match catch_unwind(AssertUnwindSafe(|| slot.conn.handle_timeout(now))) {
                        Ok(()) => {
                            if slot.mark_dirty() {
                                self.dirty.push_back(index);
                            }
                        }
                        Err(panic) => self.kill(index, panic_text(&*panic)),
                    }
                }
                _ => self.arm(index),
            }
        }
    }

    fn arm(&mut self, index: usize) {
        let Some(slot) = self.conns.get_mut(index).and_then(Option::as_mut) else { return };
        if let Some(due) = slot.conn.poll_timeout()
            && slot.armed.is_none_or(|armed| due < armed)
        {
            slot.armed = Some(due);
            self.timers.push(Reverse((due, index)));
        }
    }

    /// When the next timer is due; never later, sometimes too early.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|&Reverse((deadline, _))| deadline)
    }

    /// True while connections wait for their turn.
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() && !self.router.blocked()
    }

    /// Takes note of native stream ends that have something to do.
    pub fn collect_wakes(&mut self) {
        let woken = {
            let mut list = self.wakes.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if list.is_empty() {
                return;
            }
            std::mem::take(&mut *list)
        };
        for (conn, stream) in woken {
            if let Some(slot) = self.slot(conn) {
                slot.streams.woken(stream);
                self.touch(conn);
            }
        }
    }

    // ---- the pump

    /// Gives each connection that has something to do its turn.
    pub fn pump(&mut self, now: Instant, output: &mut dyn Output) {
        if self.failed.is_some() {
            return;
        }
        if self.panic_next == Some("endpoint") {
            self.panic_next = None;
            let _ = self.guarded(|_| panic!("injected"));
            return;
        }
        while !self.router.blocked() {
            let Some(index) = self.dirty.pop_front() else { break };
            self.turn(index, now, output);
            if self.failed.is_some() || output.exhausted() {
                break;
            }
        }
        for slot in std::mem::take(&mut self.router.filled) {
            self.events.push(Event::Output { slot });
        }
        for (slot, errno) in std::mem::take(&mut self.router.errors) {
            self.events.push(Event::SocketError { slot, errno });
        }
    }

    fn turn(&mut self, index: usize, now: Instant, output: &mut dyn Output) {
        let Some(mut slot) = self.conns.get_mut(index).and_then(Option::take) else { return };
        slot.dirty = false;
        let result = catch_unwind(AssertUnwindSafe(|| self.pump_one(index, &mut slot, now, output)));
        match result {
            Ok(drained) => {
                let id = slot.id;
                self.conns[index] = Some(slot);
                if drained {
                    self.forget(index);
                    self.events.push(Event::Drained { conn: id });
                } else {
                    self.arm(index);
                }
            }
            Err(panic) => {
                let text = panic_text(&*panic);
                if std::mem::take(&mut self.in_endpoint) {
                    self.fail(format!("the endpoint failed: {text}"));
                } else {
                    self.conns[index] = Some(slot);
                    self.kill(index, text);
                }
            }
        }
    }

    fn pump_one(&mut self, index: usize, slot: &mut Slot, now: Instant, output: &mut dyn Output) -> bool {
        if self.panic_next == Some("connection") {
            self.panic_next = None;
            panic!("injected");
        }
        let mut quota = TRANSMIT_QUOTA;
        let mut drained = false;
        loop {
            while let Some(event) = slot.conn.poll() {
                slot.on_event(event, &mut self.events);
            }
            if slot.streams.pending() {
                slot.streams.serve(&mut slot.conn, slot.id, &mut self.events);
            }
            while quota > 0 {
                let mtu = usize::from(slot.conn.current_mtu()).max(1);
                let batch = self.batch.min(MAX_BATCH_BYTES / mtu).clamp(1, quota);
                self.buffer.clear();
                let Some(transmit) = slot.conn.poll_transmit(
                    now,
                    NonZeroUsize::new(batch).expect("at least one"),
                    &mut self.buffer,
                ) else {
                    break;
                };
                quota -= transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size)).min(quota);
                self.respond(&transmit, output);
                if self.router.blocked() {
                    quota = 0;
                }
            }
            let mut again = false;
            while let Some(event) = slot.conn.poll_endpoint_events() {
                drained |= event.is_drained();
                self.in_endpoint = true;
                let answer = self.endpoint.handle_event(ConnectionHandle(index), event);
                self.in_endpoint = false;
                if let Some(answer) = answer {
                    slot.conn.handle_event(answer);
                    again = true;
                }
            }
            if drained {
                return true;
            }
            while let Some(event) = slot.conn.poll() {
                slot.on_event(event, &mut self.events);
                again = true;
            }
            if quota == 0 {
                slot.dirty = true;
                self.dirty.push_back(index);
                return false;
            }
            if !again && !slot.streams.pending() {
                return false;
            }
        }
    }

    fn forget(&mut self, index: usize) {
        self.conns[index] = None;
        self.generations[index] = self.generations[index].wrapping_add(1);
        self.live -= 1;
    }

    /// Ends one connection whose state can no longer be trusted.
    fn kill(&mut self, index: usize, text: String) {
        self.stats.panics += 1;
        let Some(slot) = self.conns[index].take() else { return };
        let id = slot.id;
        if !slot.closed {
            self.events.push(Event::Closed { conn: id, close: Close::Panic(text) });
        }
        self.events.push(Event::Drained { conn: id });
        // Even dropping it may panic.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(slot)));
        self.forget(index);
        let _ = self.guarded(|engine| {
            engine.endpoint.handle_event(ConnectionHandle(index), EndpointEvent::drained());
        });
    }

    /// Everything that happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    // ---- calls

    fn insert(&mut self, handle: ConnectionHandle, conn: Connection, window: u64) -> ConnId {
        let index = handle.0;
        while self.conns.len() <= index {
            self.conns.push(None);
            self.generations.push(1);
        }
        let id = (u64::from(self.generations[index]) << 32) | index as u64;
        self.conns[index] = Some(Box::new(Slot::new(id, conn, window)));
        self.live += 1;
        self.touch(id);
        id
    }

    /// Dials a peer by key at an address, which may be a mapped one with a route.
    pub fn connect(
        &mut self,
        now: Instant,
        address: SocketAddr,
        peer: [u8; 32],
        alpns: Vec<Vec<u8>>,
        transport: Option<&Transport>,
        early_data: bool,
    ) -> Result<ConnId, CallError> {
        if alpns.is_empty() || alpns.iter().any(|alpn| alpn.is_empty() || alpn.len() > 255) {
            return Err(CallError::Invalid("an ALPN has 1 to 255 bytes, and at least one is needed".into()));
        }
        if !self.accepting {
            return Err(CallError::Invalid("the endpoint is closing".into()));
        }
        let (config, window) = match transport {
            Some(settings) => (settings.build()?, settings.receive_window),
            None => (self.transport.clone(), self.transport_settings.receive_window),
        };
        let key = (alpns, early_data);
        let crypto = match self.clients.get(&key) {
            Some(crypto) => crypto.clone(),
            None => {
                if self.clients.len() >= 64 {
                    self.clients.clear();
                }
                let crypto = Arc::new(self.tls.client(key.0.clone(), early_data));
                self.clients.insert(key, crypto.clone());
                crypto
            }
        };
        let mut client = ClientConfig::new(crypto);
        client.transport_config(config).token_store(self.tokens.clone());
        let name = server_name(&peer);
        let (handle, conn) =
            self.guarded(|engine| engine.endpoint.connect(now, client, to_inner(address), &name))??;
        Ok(self.insert(handle, conn, window))
    }

    fn take_pending(&mut self, id: u64) -> Result<noq_proto::Incoming, CallError> {
        self.alive()?;
        let pending = self.pending.remove(&id).ok_or(CallError::Gone)?;
        if self.pending.is_empty() {
            self.pending_order.clear();
        }
        Ok(pending.incoming)
    }

    /// Goes on with the handshake of a connection attempt.
    ///
    /// An error with a close says that the attempt failed at once.
    pub fn accept(
        &mut self,
        now: Instant,
        id: u64,
        transport: Option<&Transport>,
        alpns: Option<Vec<Vec<u8>>>,
        output: &mut dyn Output,
    ) -> Result<Result<ConnId, Close>, CallError> {
        let mut window = self.transport_settings.receive_window;
        let mut config = None;
        if transport.is_some() || alpns.is_some() {
            let mut server = self.server.clone();
            if let Some(settings) = transport {
                server.transport_config(settings.build()?);
                window = settings.receive_window;
            }
            if let Some(alpns) = alpns {
                server.crypto = Arc::new(self.tls.server(alpns));
            }
            config = Some(Arc::new(server));
        }
        let incoming = self.take_pending(id)?;
        self.buffer.clear();
        let result = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let result = engine.endpoint.accept(incoming, now, &mut buffer, config);
            engine.buffer = buffer;
            result
        })?;
        match result {
            Ok((handle, conn)) => {
                self.stats.accepted += 1;
                Ok(Ok(self.insert(handle, conn, window)))
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(&transmit, output);
                }
                Ok(Err(close_of(error.cause)))
            }
        }
    }

    pub fn refuse(&mut self, id: u64, output: &mut dyn Output) -> Result<(), CallError> {
        let incoming = self.take_pending(id)?;
        self.stats.refused += 1;
        self.buffer.clear();
        let transmit = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let transmit = engine.endpoint.refuse(incoming, &mut buffer);
            engine.buffer = buffer;
            transmit
        })?;
        self.respond(&transmit, output);
        Ok(())
    }

    /// False if a Retry is not possible; the attempt then still waits.
    pub fn retry(&mut self, now: Instant, id: u64, output: &mut dyn Output) -> Result<bool, CallError> {
        let incoming = self.take_pending(id)?;
        self.buffer.clear();
        let result = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let result = engine.endpoint.retry(incoming, &mut buffer);
            engine.buffer = buffer;
            result
        })?;
        match result {
            Ok(transmit) => {
                self.stats.retried += 1;
                self.respond(&transmit, output);
                Ok(true)
            }
            Err(error) => {
                self.pending.insert(id, Pending { incoming: error.into_incoming(), since: now });
                Ok(false)
            }
        }
    }

    pub fn ignore(&mut self, id: u64) -> Result<(), CallError> {
        let incoming = self.take_pending(id)?;
        self.guarded(|engine| engine.endpoint.ignore(incoming))
    }

    /// Protocols for connections accepted from now on; none accepts nothing.
    pub fn set_alpns(&mut self, alpns: Vec<Vec<u8>>) -> Result<(), CallError> {
        self.alive()?;
        let any = !alpns.is_empty();
        self.server.crypto = Arc::new(self.tls.server(alpns));
        self.endpoint.set_server_config(any.then(|| Arc::new(self.server.clone())));
        Ok(())
    }

    /// Closes every connection and takes no more.
    pub fn close(&mut self, now: Instant, code: u64, reason: Bytes, output: &mut dyn Output) {
        self.accepting = false;
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let _ = self.refuse(id, output);
        }
        if self.failed.is_some() {
            return;
        }
        for id in self.conns.iter().flatten().map(|slot| slot.id).collect::<Vec<_>>() {
            let _ = self.close_connection(now, id, code, reason.clone());
        }
    }

    pub fn close_connection(
        &mut self,
        now: Instant,
        id: ConnId,
        code: u64,
        reason: Bytes,
    ) -> Result<(), CallError> {
        let code =
            VarInt::from_u64(code).map_err(|_| CallError::Invalid("a close code is below 2^62".into()))?;
        self.call(id, |slot, events| {
            slot.conn.close(now, code, reason.clone());
            slot.closed(Close::Local { code: code.into_inner(), reason }, events);
        })
    }

    /// Local addresses have changed; `live` holds those that are left, none if unknown.
    pub fn network_changed(&mut self, now: Instant, live: Option<Vec<IpAddr>>) {
        let hint = live.map(LiveAddresses);
        for index in 0..self.conns.len() {
            let Some(slot) = self.conns[index].as_mut() else { continue };
            let hint = hint.as_ref().map(|hint| hint as &dyn noq_proto::NetworkChangeHint);
            slot.conn.handle_network_change(hint, now);
            if slot.mark_dirty() {
                self.dirty.push_back(index);
            }
        }
    }

    pub fn set_route(&mut self, ip: Ipv6Addr, targets: Vec<Target>) -> bool {
        self.router.set_route(ip, targets)
    }

    /// A socket has room again.
    pub fn writable(&mut self, slot: SlotId, output: &mut dyn Output) {
        self.router.writable(slot, output);
    }

    fn slot(&mut self, id: ConnId) -> Option<&mut Box<Slot>> {
        let slot = self.conns.get_mut(index_of(id))?.as_mut()?;
        (slot.id == id).then_some(slot)
    }

    fn touch(&mut self, id: ConnId) {
        let index = index_of(id);
        if let Some(slot) = self.conns.get_mut(index).and_then(Option::as_mut)
            && slot.mark_dirty()
        {
            self.dirty.push_back(index);
        }
    }

    /// Looks at a connection, closed ones too, without giving it a turn.
    pub fn inspect<T>(&mut self, id: ConnId, f: impl FnOnce(&mut Slot) -> T) -> Result<T, CallError> {
        self.alive()?;
        let slot = self.slot(id).ok_or(CallError::Gone)?;
        match catch_unwind(AssertUnwindSafe(|| f(slot))) {
            Ok(value) => Ok(value),
            Err(panic) => {
                self.kill(index_of(id), panic_text(&*panic));
                Err(CallError::Gone)
            }
        }
    }

    /// Changes an open connection and gives it a turn in the next pump.
    pub fn call<T>(
        &mut self,
        id: ConnId,
        f: impl FnOnce(&mut Slot, &mut Vec<Event>) -> T,
    ) -> Result<T, CallError> {
        self.alive()?;
        let mut events = std::mem::take(&mut self.events);
        let result = match self.slot(id) {
            Some(slot) if !slot.closed => catch_unwind(AssertUnwindSafe(|| f(slot, &mut events)))
                .map_err(|panic| Some(panic_text(&*panic))),
            _ => Err(None),
        };
        self.events = events;
        match result {
            Ok(value) => {
                self.touch(id);
                Ok(value)
            }
            Err(Some(text)) => {
                self.kill(index_of(id), text);
                Err(CallError::Gone)
            }
            Err(None) => Err(CallError::Gone),
        }
    }

    /// A waker for one stream of a connection.
    pub fn waker(&self, conn: ConnId, stream: noq_proto::StreamId) -> crate::stream::Waker {
        let wakes = self.wakes.clone();
        Arc::new(move || wakes.wake(conn, stream))
    }
}

#[derive(Debug)]
struct LiveAddresses(Vec<IpAddr>);

impl noq_proto::NetworkChangeHint for LiveAddresses {
    fn is_path_recoverable(&self, _path: noq_proto::PathId, network_path: FourTuple) -> bool {
        match network_path.remote().ip() {
            IpAddr::V6(ip) if crate::route::is_mapped(&ip) => true,
            _ => network_path.local_ip().is_some_and(|ip| self.0.contains(&ip)),
        }
    }
}

fn outgoing<'a>(transmit: &noq_proto::Transmit, buffer: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        destination: transmit.destination,
        source_ip: transmit.src_ip,
        ecn: transmit.ecn,
        segment_size: transmit.segment_size,
        contents: &buffer[..transmit.size],
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "unknown panic".to_owned()
    }
}

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

/// The peer's key and the protocol, once the handshake is complete.
pub(crate) fn identity(conn: &Connection) -> Option<([u8; 32], Bytes)> {
    let session = conn.crypto_session();
    let chain = session.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = key_of_spki(chain.first()?)?;
    let data = session.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Some((key, Bytes::from(data.protocol?)))
}

pub(crate) fn zero_rtt_rejected(conn: &Connection) -> bool {
    conn.side() == Side::Client && !conn.accepted_0rtt()
}
