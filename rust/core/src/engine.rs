//! The endpoint and its connections, stepped from outside.

mod calls;
mod input;
mod pump;

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use noq_proto::{ConnectError, Endpoint, EndpointConfig, ServerConfig, TokenMemoryCache, TransportConfig};
use rustc_hash::FxHashMap;

pub use input::Received;
use pump::MAX_BATCH_BYTES;

use crate::{
    Instant,
    config::{InvalidSetting, Settings, Transport},
    connection::Slot,
    event::{ConnId, Event},
    reset::ResetKey,
    route::Router,
    tls::Tls,
    wall::SimulatedWall,
};

/// How much later than necessary a closed connection may be forgotten.
const FORGOTTEN_WITHIN: Duration = Duration::from_millis(20);

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
    /// Of these, from IPv4 and from IPv6 addresses.
    pub received_ipv4_bytes: u64,
    pub received_ipv6_bytes: u64,
    /// Batches of datagrams that the system had joined.
    pub received_joined: u64,
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
    /// Drained connections that somebody may still read from.
    finished: FxHashMap<ConnId, Box<Slot>>,
    /// Connections with something to tell, and those that have told it and wait for their turn.
    fresh: VecDeque<usize>,
    dirty: VecDeque<usize>,
    /// Connections whose turn waits for room in a socket.
    parked: Vec<usize>,
    /// At most one entry for each connection: the instant it is armed for.
    timers: BTreeSet<(Instant, usize)>,
    pending: FxHashMap<u64, Pending>,
    pending_order: VecDeque<u64>,
    next_incoming: u64,
    max_incoming: usize,
    retry_above: Option<usize>,
    accepting: bool,
    /// The protocols that are served. Without any, peers are refused, which tells them more than silence.
    alpns: Vec<Vec<u8>>,
    pub router: Router,
    events: Vec<Event>,
    buffer: Vec<u8>,
    batch: usize,
    wakes: Arc<Wakes>,
    wall: Option<Arc<SimulatedWall>>,
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
        let wall = settings.seed.map(|_| Arc::new(SimulatedWall::default()));
        if let Some(wall) = &wall {
            server.time_source(wall.clone());
        }
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server.clone())), true);
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
            finished: FxHashMap::default(),
            fresh: VecDeque::new(),
            dirty: VecDeque::new(),
            parked: Vec::new(),
            timers: BTreeSet::new(),
            pending: FxHashMap::default(),
            pending_order: VecDeque::new(),
            next_incoming: 1,
            max_incoming: settings.max_incoming,
            retry_above: settings.retry_above,
            accepting: true,
            alpns: settings.alpns,
            router: Router::default(),
            events: Vec::new(),
            buffer: Vec::with_capacity(MAX_BATCH_BYTES + 2048),
            batch: 20,
            wakes: Arc::new(Wakes { list: Mutex::new(Vec::new()), signal }),
            wall,
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

    fn date_tokens(&self, now: Instant) {
        if let Some(wall) = &self.wall {
            wall.advance(now);
        }
    }

    /// Fires the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.timers.first() {
            if deadline > now {
                break;
            }
            self.timers.pop_first();
            let Some(slot) = self.conns.get_mut(index).and_then(Option::as_mut) else { continue };
            slot.armed = None;
            if slot.watch.due.is_some_and(|due| due <= now) {
                let Slot { conn, watch, id, .. } = &mut **slot;
                let events = &mut self.events;
                match catch_unwind(AssertUnwindSafe(|| watch.look(conn, *id, now, events))) {
                    Ok(asked) => {
                        if asked && slot.mark_dirty() {
                            self.fresh.push_back(index);
                        }
                    }
                    Err(panic) => {
                        self.kill(index, panic_text(&*panic));
                        continue;
                    }
                }
            }
            match slot.conn.poll_timeout() {
                Some(due) if due <= now => {
                    match catch_unwind(AssertUnwindSafe(|| slot.conn.handle_timeout(now))) {
                        Ok(()) => {
                            if slot.mark_dirty() {
                                self.fresh.push_back(index);
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
        let Some(mut due) = slot.conn.poll_timeout().into_iter().chain(slot.watch.due).min() else { return };
        if slot.closed {
            // It waits for nothing but to be forgotten: the next timer of another one will do.
            let latest = due + FORGOTTEN_WITHIN;
            due = self.timers.range((due, 0)..).next().map_or(latest, |&(other, _)| other.min(latest));
        }
        // A later deadline waits until the earlier one fires: most move on with every packet.
        if slot.armed.is_none_or(|armed| due < armed || slot.closed) {
            if let Some(armed) = slot.armed.replace(due) {
                self.timers.remove(&(armed, index));
            }
            self.timers.insert((due, index));
        }
    }

    /// When the next timer is due; never later, sometimes too early.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(deadline, _)| deadline)
    }

    /// True while connections wait for their turn.
    pub fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.dirty.is_empty()
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

    /// Everything that happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn slot(&mut self, id: ConnId) -> Option<&mut Box<Slot>> {
        match self.conns.get_mut(index_of(id)) {
            Some(Some(slot)) if slot.id == id => Some(slot),
            _ => self.finished.get_mut(&id),
        }
    }

    /// Keeps a connection readable after it is drained, until `release`.
    pub fn hold(&mut self, id: ConnId) {
        if let Some(slot) = self.slot(id) {
            slot.held = true;
        }
    }

    /// Nobody reads from the connection any more.
    pub fn release(&mut self, id: ConnId) {
        match self.finished.remove(&id) {
            // Whatever it holds, dropping it must not end the process.
            Some(slot) => {
                let _ = catch_unwind(AssertUnwindSafe(move || drop(slot)));
            }
            None => {
                if let Some(slot) = self.slot(id) {
                    slot.held = false;
                }
            }
        }
    }

    fn touch(&mut self, id: ConnId) {
        let index = index_of(id);
        if let Some(slot) = self.conns.get_mut(index).and_then(Option::as_mut)
            && slot.mark_dirty()
        {
            self.fresh.push_back(index);
        }
    }

    /// Looks at a connection, closed ones too, without giving it a turn.
    pub fn inspect<T>(&mut self, id: ConnId, f: impl FnOnce(&mut Slot) -> T) -> Result<T, CallError> {
        self.alive()?;
        let slot = self.slot(id).ok_or(CallError::Gone)?;
        match catch_unwind(AssertUnwindSafe(|| f(slot))) {
            Ok(value) => Ok(value),
            Err(panic) => {
                if self.finished.contains_key(&id) {
                    self.stats.panics += 1;
                    self.release(id);
                } else {
                    self.kill(index_of(id), panic_text(&*panic));
                }
                Err(CallError::Gone)
            }
        }
    }

    /// The same, and gives a connection that is open a turn: what was read is credited to the peer.
    pub fn receive_from<T>(&mut self, id: ConnId, f: impl FnOnce(&mut Slot) -> T) -> Result<T, CallError> {
        let value = self.inspect(id, f)?;
        self.touch(id);
        Ok(value)
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

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "unknown panic".to_owned()
    }
}
