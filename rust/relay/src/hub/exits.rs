//! The way out: which client a frame is for, and what waits for each.

use rustc_hash::FxHashMap;

use super::outbox::{Outbox, Spare};
use super::table::{Left, Table};
use crate::frame::{Frame, Key, Version};
use crate::server::Parcel;
use crate::websocket::Masked;

/// Status codes (relay protocol, section 3.3), and their words for clients of the version before.
pub const HEALTHY: u8 = 0;
pub const REPLACED: u8 = 1;
pub const LIMITED: u8 = 2;
const HEALTHY_TEXT: &str = "The connection is in order again.";
const REPLACED_TEXT: &str =
    "Another connection with the same endpoint id is in use; this one receives nothing.";

/// What may wait for any client, however much waits for others.
const GUARANTEED: usize = 128 * 1024;

/// Bytes that may wait for a client, and for all together.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub each: usize,
    pub together: usize,
}

/// What was counted, under upstream's names where it has one.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    pub bytes_sent: u64,
    pub bytes_recv: u64,
    pub send_packets_sent: u64,
    pub send_packets_recv: u64,
    pub send_packets_dropped: u64,
    /// Frames for a client with too much waiting already.
    pub queue_full_dropped: u64,
    pub got_ping: u64,
    pub sent_pong: u64,
    pub bytes_rx_ratelimited: u64,
    pub conns_rx_ratelimited: u64,
    pub accepts: u64,
    pub disconnects: u64,
    pub clients_inactive_added: u64,
    pub clients_inactive_removed: u64,
    /// TCP connections that were turned away.
    pub connections_refused: u64,
    /// Clients that have not proved their key in time, or at all.
    pub handshakes_failed: u64,
}

/// Where the last parcel of a connection went: most go to the same place.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    peer: Key,
    number: u64,
    epoch: u64,
}

/// What waits for a connection, and whether its owner knows.
#[derive(Debug)]
pub struct Exit {
    pub outbox: Outbox,
    pub version: Version,
    /// It is among the ready ones, or is being taken.
    announced: bool,
}

pub struct Exits {
    bounds: Bounds,
    /// Bytes that wait for all clients together.
    waiting: usize,
    pub table: Table,
    pub counters: Counters,
    exits: FxHashMap<u64, Exit>,
    ready: Vec<u64>,
    pub spare: Spare,
}

impl Exits {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: 0,
            table: Table::default(),
            counters: Counters::default(),
            exits: FxHashMap::default(),
            ready: Vec::new(),
            spare: Spare::default(),
        }
    }

    /// Connections whose output has begun to wait.
    pub fn take_ready(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ready)
    }

    pub fn add(&mut self, number: u64) {
        let exit = Exit { outbox: Outbox::default(), version: Version::V2, announced: false };
        self.exits.insert(number, exit);
    }

    pub fn remove(&mut self, number: u64) {
        if let Some(exit) = self.exits.remove(&number) {
            self.waiting -= exit.outbox.bytes();
        }
        self.ready.retain(|each| *each != number);
    }

    /// Something else waits for it.
    pub fn announce(&mut self, number: u64) {
        if let Some(exit) = self.exits.get_mut(&number)
            && !std::mem::replace(&mut exit.announced, true)
        {
            self.ready.push(number);
        }
    }

    /// Some of what waits for it; None: nothing, and the next thing will be announced.
    pub fn take(&mut self, number: u64, more: bool) -> Option<Vec<u8>> {
        let exit = self.exits.get_mut(&number)?;
        let taken = exit.outbox.take();
        if taken.is_none() && !more {
            exit.announced = false;
        }
        self.waiting -= taken.as_ref().map_or(0, Vec::len);
        taken
    }

    /// From the connection of an endpoint to the active one of another.
    pub fn forward(&mut self, source: &Key, route: &mut Option<Route>, parcel: &Parcel<'_>) {
        let size = parcel.contents.len() as u64;
        self.counters.send_packets_recv += 1;
        self.counters.bytes_recv += size;
        let number = match route {
            Some(route) if route.epoch == self.table.epoch() && route.peer == parcel.peer => route.number,
            _ => {
                let Some(number) = self.table.active(&parcel.peer) else {
                    self.counters.send_packets_dropped += 1;
                    return;
                };
                self.table.sent(source, &parcel.peer);
                *route = Some(Route { peer: parcel.peer, number, epoch: self.table.epoch() });
                number
            }
        };
        if self.put(number, |outbox, most, spare| outbox.forward(source, parcel, most, spare)) {
            self.counters.send_packets_sent += 1;
            self.counters.bytes_sent += size;
        } else {
            self.counters.queue_full_dropped += 1;
        }
    }

    pub fn control(&mut self, number: u64, frame: &Frame) {
        self.put(number, |outbox, most, spare| outbox.control(frame, most, spare));
    }

    pub fn pong(&mut self, number: u64, data: [u8; 8]) {
        self.counters.got_ping += 1;
        self.counters.sent_pong += 1;
        self.control(number, &Frame::Pong(data));
    }

    pub fn echo(&mut self, number: u64, content: &Masked<'_>) {
        self.put(number, |outbox, most, spare| outbox.echo(content, most, spare));
    }

    /// Lets `put` put something into what waits for a connection; whether there was room.
    fn put(&mut self, number: u64, put: impl FnOnce(&mut Outbox, usize, &mut Spare) -> bool) -> bool {
        let Some(exit) = self.exits.get_mut(&number) else { return false };
        let Bounds { each, together } = self.bounds;
        // Those who let much wait cannot take from the others what these need.
        let most = if self.waiting < together { each } else { each.min(GUARANTEED) };
        let before = exit.outbox.bytes();
        let fits = put(&mut exit.outbox, most, &mut self.spare);
        self.waiting += exit.outbox.bytes() - before;
        if fits {
            self.announce(number);
        }
        fits
    }

    /// In the words of its version; what that has no words for is not said.
    pub fn status(&mut self, number: u64, code: u8) {
        let frame = match (self.exits.get(&number).map(|exit| exit.version), code) {
            (Some(Version::V2), code) => Frame::Status(code),
            (Some(Version::V1), HEALTHY) => Frame::Health(HEALTHY_TEXT.to_owned()),
            (Some(Version::V1), REPLACED) => Frame::Health(REPLACED_TEXT.to_owned()),
            _ => return,
        };
        self.control(number, &frame);
    }

    /// A client was let in; gives a connection that is to be ended for it.
    pub fn enter(&mut self, number: u64, key: Key, version: Version) -> Option<u64> {
        if let Some(exit) = self.exits.get_mut(&number) {
            exit.version = version;
        }
        self.counters.accepts += 1;
        let entered = self.table.enter(key, number);
        if let Some(replaced) = entered.replaced {
            self.counters.clients_inactive_added += 1;
            self.status(replaced, REPLACED);
        }
        self.counters.clients_inactive_removed += u64::from(entered.surplus.is_some());
        entered.surplus
    }

    /// A client that was let in has gone.
    pub fn leave(&mut self, number: u64, key: &Key) {
        self.counters.disconnects += 1;
        match self.table.leave(key, number) {
            None => {}
            Some(Left::Replaced) => self.counters.clients_inactive_removed += 1,
            Some(Left::Restored(next)) => {
                self.counters.clients_inactive_removed += 1;
                self.status(next, HEALTHY);
            }
            Some(Left::Gone(told)) => {
                for peer in told {
                    if let Some(number) = self.table.active(&peer) {
                        self.control(number, &Frame::Gone(*key));
                    }
                }
            }
        }
    }
}
