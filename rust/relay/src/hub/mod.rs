//! A relay: who is connected, and what is forwarded between them.
//!
//! Bytes of a connection go in by [`Hub::feed`], bytes for each come out by [`Hub::take`]; [`Hub::take_ready`] says
//! for which ones. What has to be decided, requests and who is let in, is given out as [`News`]. There is no clock:
//! times are durations since some fixed moment.

mod exits;
mod liveness;
mod outbox;
mod pace;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::frame::{Frame, Key, Version};
use crate::http::{Request, accept_upgrade};
use crate::link::Link;
use crate::server::{Event, Server};
pub use exits::Counters;
use exits::{Bounds, Exits, LIMITED, Route};
use liveness::{Due, Liveness};
use outbox::CHUNK;
use pace::Pace;
pub use pace::Rate;

/// Silence after which a client is asked, to which some is added by chance.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_JITTER_MS: (u64, u64) = (1000, 5000);
/// What has no hurry is looked at in steps of this, many at a time.
const STEP: Duration = Duration::from_millis(250);

/// Bounds of a relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// TCP connections.
    pub connections: usize,
    /// Of these, how many may not have been let in.
    pub pending: usize,
    /// Bytes that wait for one client.
    pub queue_bytes: usize,
    /// Bytes that wait for all; when it is reached, each may have a little still.
    pub queue_total: usize,
    /// Until the upgrade.
    pub establish_timeout: Duration,
    /// From there to the proof of the key.
    pub handshake_timeout: Duration,
    /// For chance that nobody profits from foreseeing.
    pub seed: u64,
}

/// What is to be decided or known.
#[derive(Debug, PartialEq)]
pub enum News {
    /// To be answered by [`Hub::respond`] or [`Hub::upgrade`].
    Request(Request),
    /// To be answered by [`Hub::confirm`] or [`Hub::deny`].
    Proved(Version, Key),
    /// Nothing is to be read for so long.
    Limited(Duration),
    /// The connection is to be closed once what waits for it was taken.
    Over(Error),
}

struct Client {
    server: Server,
    /// Who it is, while it is let in.
    key: Option<Key>,
    route: Option<Route>,
    pace: Option<Pace>,
    /// It has been told that it is limited.
    limited: bool,
    stage: Stage,
    /// When it will be looked at.
    watched: Option<Duration>,
}

enum Stage {
    /// Something is due by then.
    Before(Duration),
    /// It waits to be let in.
    Waiting,
    Open(Liveness),
    Over,
}

pub struct Hub {
    config: Config,
    next: u64,
    clients: FxHashMap<u64, Client>,
    /// How many of them have not been let in.
    pending: usize,
    exits: Exits,
    deadlines: BTreeSet<(Duration, u64)>,
    rate: Option<Rate>,
    chance: u64,
    scratch: Vec<u8>,
}

impl Hub {
    pub fn new(config: Config) -> Self {
        Self {
            chance: config.seed | 1,
            exits: Exits::new(Bounds { each: config.queue_bytes, together: config.queue_total }),
            config,
            next: 0,
            clients: FxHashMap::default(),
            pending: 0,
            deadlines: BTreeSet::new(),
            rate: None,
            scratch: Vec::new(),
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.exits.counters
    }

    /// Connections whose output has begun to wait since the last call. Each is to be taken until there is no more.
    pub fn take_ready(&mut self) -> Vec<u64> {
        self.exits.take_ready()
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The active connection of an endpoint, then those it has replaced, the latest first.
    pub fn connections(&self, key: &Key) -> Vec<u64> {
        self.exits.table.connections(key)
    }

    // --- connections

    /// A TCP connection has come. None: there are too many.
    pub fn enter(&mut self, link: Link, now: Duration) -> Option<u64> {
        if self.clients.len() >= self.config.connections || self.pending >= self.config.pending {
            self.exits.counters.connections_refused += 1;
            return None;
        }
        let number = self.next;
        self.next += 1;
        let client = Client {
            server: Server::new(link),
            key: None,
            route: None,
            pace: None,
            limited: false,
            stage: Stage::Before(now + self.config.establish_timeout),
            watched: None,
        };
        self.clients.insert(number, client);
        self.pending += 1;
        self.exits.add(number);
        self.watch(number);
        Some(number)
    }

    /// A TCP connection is gone.
    pub fn leave(&mut self, number: u64) {
        self.end(number);
        if let Some(client) = self.clients.remove(&number) {
            if let Some(at) = client.watched {
                self.deadlines.remove(&(at, number));
            }
            self.exits.remove(number);
        }
    }

    /// Bytes have come.
    pub fn feed(&mut self, number: u64, data: &[u8], now: Duration) -> Vec<News> {
        let Self { clients, exits, scratch, .. } = self;
        let Some(client) = clients.get_mut(&number) else { return Vec::new() };
        let Client { server, key, route, stage, pace, .. } = client;
        if matches!(stage, Stage::Over) {
            return Vec::new();
        }
        let mut news = Vec::new();
        let (mut heard, mut proved) = (false, None);
        let upgraded = server.is_upgraded();
        let result = server.feed(data, scratch, &mut |event| match event {
            Event::Parcel(parcel) => {
                heard = true;
                if let Some(key) = key {
                    exits.forward(key, route, &parcel);
                }
            }
            Event::Request(request) => news.push(News::Request(request.clone())),
            Event::Proved(key) => proved = Some(key),
            Event::Ping(data) => {
                heard = true;
                exits.pong(number, data);
            }
            Event::Pong(data) => {
                heard = true;
                if let Stage::Open(liveness) = stage {
                    liveness.pong_came(data, now);
                }
            }
            Event::Echo(content) => exits.echo(number, &content),
        });
        if heard && let Stage::Open(liveness) = stage {
            liveness.frame_came(now);
        }
        if server.has_output() {
            exits.announce(number);
        }
        if upgraded && let Some(pace) = pace {
            let size = if server.is_tls() { scratch.len() } else { data.len() };
            if let Some(wait) = pace.spend(size, now) {
                news.push(News::Limited(wait));
                exits.counters.bytes_rx_ratelimited += size as u64;
                if !std::mem::replace(&mut client.limited, true) {
                    exits.counters.conns_rx_ratelimited += 1;
                    exits.status(number, LIMITED);
                }
            }
        }
        scratch.shrink_to(MAX_SCRATCH);
        if let Some(key) = proved {
            self.proved(number, key, &mut news);
        }
        if let Err(error) = result {
            self.end(number);
            news.push(News::Over(error));
        }
        news
    }

    /// Some of the bytes for a client; None: no more. What was taken may come back by [`recycle`](Self::recycle).
    pub fn take(&mut self, number: u64) -> Option<Vec<u8>> {
        let client = self.clients.get_mut(&number)?;
        let inner = client.server.has_output();
        match self.exits.take(number, inner) {
            Some(messages) => Some(client.server.take(messages)),
            None if inner => Some(client.server.take(Vec::new())),
            None => None,
        }
    }

    /// Memory that is not needed any more.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        self.exits.spare.give(bytes);
    }

    // --- decisions

    /// Answers a request that is no upgrade.
    pub fn respond(
        &mut self,
        number: u64,
        status: u16,
        reason: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<News> {
        let mut news = Vec::new();
        let Some(client) = self.clients.get_mut(&number) else { return news };
        let result = client.server.respond(status, reason, headers, body, &mut |event| {
            if let Event::Request(request) = event {
                news.push(News::Request(request.clone()));
            }
        });
        self.exits.announce(number);
        if let Err(error) = result {
            self.end(number);
            news.push(News::Over(error));
        }
        news
    }

    /// Answers a request by an upgrade, if it asks for a good one. Error: the text of a refusal, which is still to be
    /// sent.
    pub fn upgrade(
        &mut self,
        number: u64,
        headers: &[(&str, &str)],
        challenge: [u8; 16],
        now: Duration,
    ) -> Result<Vec<News>, &'static str> {
        let mut news = Vec::new();
        let Some(client) = self.clients.get_mut(&number) else { return Ok(news) };
        let Some(request) = client.server.request() else { return Ok(news) };
        let upgrade = accept_upgrade(request)?;
        let mut proved = None;
        let result = client.server.upgrade(&upgrade, headers, challenge, &mut |event| {
            if let Event::Proved(key) = event {
                proved = Some(key);
            }
        });
        client.stage = Stage::Before(now + self.config.handshake_timeout);
        client.pace = self.rate.map(|rate| Pace::new(rate, now));
        self.exits.announce(number);
        if let Some(key) = proved {
            self.proved(number, key, &mut news);
        }
        if let Err(error) = result {
            self.end(number);
            news.push(News::Over(error));
        }
        self.watch(number);
        Ok(news)
    }

    /// Lets a client in. False: it is not there any more. Gives a connection that is to be closed for it.
    pub fn confirm(&mut self, number: u64, now: Duration) -> (bool, Option<u64>) {
        let interval = self.ping_interval();
        let Some(client) = self.clients.get_mut(&number) else { return (false, None) };
        let (Some(key), Stage::Waiting) = (client.key, &client.stage) else { return (false, None) };
        client.server.confirm();
        client.stage = Stage::Open(Liveness::new(interval, now));
        let version = client.server.version();
        self.pending -= 1;
        self.exits.announce(number);
        let surplus = self.exits.enter(number, key, version);
        if let Some(surplus) = surplus {
            self.end(surplus);
        }
        self.watch(number);
        (true, surplus)
    }

    /// Sends a client away; the connection is to be closed once what waits for it was taken.
    pub fn deny(&mut self, number: u64, reason: &str) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.server.deny(reason);
            self.exits.announce(number);
            self.end(number);
        }
    }

    /// Tells a client that the relay will be back.
    pub fn announce_restart(&mut self, number: u64, reconnect_in_ms: u32, try_for_ms: u32) {
        if self.clients.get(&number).is_some_and(|client| client.server.is_open()) {
            self.exits.control(number, &Frame::Restarting { reconnect_in_ms, try_for_ms });
        }
    }

    // --- all of them

    /// A deadline has come: connections whose time is over, which are to be closed.
    pub fn tick(&mut self, now: Duration) -> Vec<(u64, News)> {
        let mut over = Vec::new();
        while let Some((at, number)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let ping = self.draw().to_le_bytes();
            let Some(client) = self.clients.get_mut(&number) else { continue };
            client.watched = None;
            let late = match &mut client.stage {
                Stage::Before(deadline) => *deadline <= now,
                Stage::Open(liveness) => match liveness.due(now) {
                    Due::Dead => true,
                    Due::Ask => {
                        liveness.ask(ping, now);
                        self.exits.control(number, &Frame::Ping(ping));
                        false
                    }
                    Due::Nothing => false,
                },
                Stage::Waiting | Stage::Over => false,
            };
            if late {
                self.end(number);
                over.push((number, News::Over(Error::TooLate)));
            }
            self.watch(number);
        }
        over
    }

    /// What each client may send from now on; buckets start full.
    pub fn set_rate(&mut self, rate: Option<Rate>, now: Duration) {
        self.rate = rate;
        for client in self.clients.values_mut().filter(|client| client.server.is_upgraded()) {
            client.pace = rate.map(|rate| Pace::new(rate, now));
        }
    }

    // --- inside

    fn proved(&mut self, number: u64, key: Key, news: &mut Vec<News>) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.key = Some(key);
            client.stage = Stage::Waiting;
            news.push(News::Proved(client.server.version(), key));
        }
    }

    /// It takes part no more.
    fn end(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        match std::mem::replace(&mut client.stage, Stage::Over) {
            Stage::Over => {}
            Stage::Open(_) => {
                if let Some(key) = client.key {
                    self.exits.leave(number, &key);
                }
            }
            Stage::Before(_) | Stage::Waiting => {
                self.pending -= 1;
                self.exits.counters.handshakes_failed += u64::from(client.server.is_upgraded());
            }
        }
    }

    /// Looks at it when something is due.
    fn watch(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let due = match &client.stage {
            Stage::Before(deadline) => Some(*deadline),
            Stage::Open(liveness) => Some(rounded_up(liveness.deadline())),
            Stage::Waiting | Stage::Over => None,
        };
        if due != client.watched {
            if let Some(at) = client.watched {
                self.deadlines.remove(&(at, number));
            }
            if let Some(at) = due {
                self.deadlines.insert((at, number));
            }
            client.watched = due;
        }
    }

    fn ping_interval(&mut self) -> Duration {
        let (least, most) = PING_JITTER_MS;
        PING_INTERVAL + Duration::from_millis(least + self.draw() % (most - least + 1))
    }

    fn draw(&mut self) -> u64 {
        // xorshift64
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }
}

/// Kept between two reads.
const MAX_SCRATCH: usize = 2 * CHUNK;

fn rounded_up(at: Duration) -> Duration {
    let step = STEP.as_nanos() as u64;
    Duration::from_nanos((at.as_nanos() as u64).div_ceil(step) * step)
}
