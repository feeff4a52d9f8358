//! Where datagrams go: slots (sockets, or outboxes that the application empties) and routes.
//!
//! Inside the QUIC state machine every remote is an IPv6 address; IPv4 is shown as v4-mapped, and
//! addresses that are no IP addresses (a relay, "any path to this peer") as addresses of a reserved
//! prefix with a route.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use noq_proto::EcnCodepoint;
use rustc_hash::FxHashMap;

use crate::mapped::is_spread;
pub use crate::mapped::{is_mapped, to_inner, to_outer};

/// Index of a slot; never reused.
pub type SlotId = u32;

/// Transmits held back for a socket that is full; beyond this they are dropped, QUIC repairs it.
const MAX_HELD: usize = 256;
/// Bytes in the outbox of a virtual slot; beyond this new datagrams are dropped.
const MAX_OUTBOX_BYTES: usize = 4 << 20;
/// Routes an application may set.
pub const MAX_ROUTES: usize = 65_536;
/// Targets of one route.
pub const MAX_TARGETS: usize = 64;
/// Addresses that are pinned to a slot.
pub const MAX_PINS: usize = 1024;
/// Transmits kept of a route that spreads a handshake: a first flight and its repetition.
const MAX_LATEST: usize = 4;

/// One or more datagrams for one destination.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub destination: SocketAddr,
    pub source_ip: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub segment_size: Option<usize>,
    pub contents: &'a [u8],
}

/// The same, owned.
#[derive(Debug, Clone)]
pub struct Held {
    pub destination: SocketAddr,
    pub source_ip: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub segment_size: Option<usize>,
    pub contents: Vec<u8>,
}

impl Held {
    fn of(outgoing: &Outgoing<'_>) -> Self {
        Self {
            destination: outgoing.destination,
            source_ip: outgoing.source_ip,
            ecn: outgoing.ecn,
            segment_size: outgoing.segment_size,
            contents: outgoing.contents.to_vec(),
        }
    }

    pub fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            destination: self.destination,
            source_ip: self.source_ip,
            ecn: self.ecn,
            segment_size: self.segment_size,
            contents: &self.contents,
        }
    }
}

/// What became of a datagram given to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Ok,
    /// The socket is full: keep it and try again when told.
    Full,
    /// Lost, with the system's error number.
    Lost(i32),
}

/// The sockets below the engine.
pub trait Output {
    fn send(&mut self, slot: SlotId, outgoing: &Outgoing<'_>) -> Sent;

    /// True when this turn has used its time and the rest should wait.
    fn exhausted(&mut self) -> bool;
}

#[derive(Debug)]
struct Slot {
    id: SlotId,
    local: SocketAddr,
    is_virtual: bool,
    /// Sends only what is pinned to it.
    is_aside: bool,
    reach: Reach,
    queue: VecDeque<Held>,
    queued_bytes: usize,
    blocked: bool,
}

/// Which destinations a slot is best for, if there are several of one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Bits of the slot's address that its network has in common with it; none if nothing is known.
    pub prefix: Option<u8>,
    /// The slot's address leads to the internet.
    pub outward: bool,
}

impl Reach {
    /// The larger, the better.
    fn fitness(self, local: IpAddr, destination: IpAddr) -> u8 {
        match self.prefix {
            Some(bits) if common_bits(local, destination) >= bits => bits.saturating_add(2),
            _ => u8::from(self.outward),
        }
    }
}

fn common_bits(one: IpAddr, other: IpAddr) -> u8 {
    let zeros = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    };
    zeros as u8
}

/// Where a route sends: a slot or the default one, an address or the original one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub slot: Option<SlotId>,
    pub address: Option<SocketAddr>,
}

/// What a mapped address means.
#[derive(Debug, Default)]
struct Route {
    targets: Vec<Target>,
    /// Added since the last datagram.
    fresh: Vec<Target>,
    /// The latest datagrams, for targets that are added during a handshake.
    latest: VecDeque<Held>,
}

/// Counters of what the router did.
#[derive(Debug, Default, Clone, Copy)]
pub struct RouteStats {
    pub sent_datagrams: u64,
    pub sent_bytes: u64,
    /// Of these, to IPv4 and to IPv6 addresses.
    pub sent_ipv4_bytes: u64,
    pub sent_ipv6_bytes: u64,
    pub dropped_full: u64,
    pub dropped_unroutable: u64,
    pub send_errors: u64,
    /// Of the sent datagrams, those that are not QUIC.
    pub sent_probes: u64,
}

#[derive(Debug, Default)]
pub struct Router {
    slots: Vec<Slot>,
    next_slot: SlotId,
    routes: FxHashMap<Ipv6Addr, Route>,
    /// Peers' addresses that are reached through one slot only: the NAT before it knows them by its port.
    pins: FxHashMap<SocketAddr, SlotId>,
    /// Routes with targets that have missed the latest datagrams.
    behind: Vec<Ipv6Addr>,
    /// Virtual slots whose outbox has become non-empty, and sockets that could not send where,
    /// since last asked.
    pub(crate) filled: Vec<SlotId>,
    pub(crate) errors: Vec<(SlotId, i32, SocketAddr)>,
    /// Whether something given to [`send`](Self::send) since last asked waits for a full socket.
    held: bool,
    pub stats: RouteStats,
}

impl Router {
    pub fn add_slot(&mut self, local: SocketAddr, is_virtual: bool) -> SlotId {
        let id = self.next_slot;
        self.next_slot += 1;
        self.slots.push(Slot {
            id,
            local,
            is_virtual,
            is_aside: false,
            reach: Reach::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            blocked: false,
        });
        id
    }

    pub fn remove_slot(&mut self, id: SlotId) -> bool {
        let Some(index) = self.index(id) else { return false };
        self.slots.remove(index);
        self.pins.retain(|_, slot| *slot != id);
        true
    }

    /// Slots have increasing ids, and there may be hundreds of them while holes are guessed.
    fn index(&self, id: SlotId) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }

    /// A socket of the slot was bound anew.
    pub fn rebound(&mut self, id: SlotId, local: SocketAddr) {
        if let Some(index) = self.index(id) {
            self.slots[index].local = local;
            self.slots[index].blocked = false;
        }
    }

    pub fn is_virtual(&self, id: SlotId) -> Option<bool> {
        self.index(id).map(|index| self.slots[index].is_virtual)
    }

    /// What the slot is good for. False if there is no such slot.
    pub fn set_reach(&mut self, id: SlotId, reach: Reach) -> bool {
        let Some(index) = self.index(id) else { return false };
        self.slots[index].reach = reach;
        true
    }

    /// The slot sends only to addresses that are pinned to it. False if there is no such slot.
    pub fn set_aside(&mut self, id: SlotId) -> bool {
        let Some(index) = self.index(id) else { return false };
        self.slots[index].is_aside = true;
        true
    }

    pub fn is_aside(&self, id: SlotId) -> bool {
        self.index(id).is_some_and(|index| self.slots[index].is_aside)
    }

    /// What goes to this address goes through this slot. False if there is no such slot, or too many pins.
    pub fn pin(&mut self, address: SocketAddr, id: SlotId) -> bool {
        if self.index(id).is_none() || self.pins.len() >= MAX_PINS {
            return false;
        }
        self.pins.insert(to_inner(address), id);
        true
    }

    pub(crate) fn is_pinned(&self, address: SocketAddr, id: SlotId) -> bool {
        self.pins.get(&to_inner(address)) == Some(&id)
    }

    pub fn unpin(&mut self, address: SocketAddr) -> bool {
        self.pins.remove(&to_inner(address)).is_some()
    }

    /// Sends a datagram from one slot, whatever else holds for its destination.
    pub(crate) fn send_from(&mut self, id: SlotId, outgoing: &Outgoing<'_>, output: &mut dyn Output) {
        self.send_to(self.index(id), outgoing, output);
    }

    /// False when there is no room for another route.
    pub fn set_route(&mut self, ip: Ipv6Addr, targets: Vec<Target>) -> bool {
        if self.routes.len() >= MAX_ROUTES && !self.routes.contains_key(&ip) {
            return false;
        }
        let route = self.routes.entry(ip).or_default();
        if !route.latest.is_empty() {
            let fresh = targets.iter().filter(|target| !route.targets.contains(target));
            route.fresh.extend(fresh.copied());
            self.behind.push(ip);
        }
        route.targets = targets;
        true
    }

    /// Sends targets that were added to a route what the others have got just before.
    ///
    /// A handshake would reach them only when it is repeated, a second later at first.
    pub(crate) fn catch_up(&mut self, output: &mut dyn Output) {
        for ip in std::mem::take(&mut self.behind) {
            let Some(route) = self.routes.get_mut(&ip) else { continue };
            let fresh = std::mem::take(&mut route.fresh);
            let latest: Vec<Held> = route.latest.iter().cloned().collect();
            for target in fresh {
                for held in &latest {
                    self.send_target(target, &held.outgoing(), output);
                }
            }
        }
    }

    pub fn drop_route(&mut self, ip: &Ipv6Addr) -> bool {
        self.routes.remove(ip).is_some()
    }

    /// Whether something sent since last asked waits for a full socket: whoever sent it should wait too,
    /// instead of piling up datagrams.
    pub fn take_held(&mut self) -> bool {
        std::mem::take(&mut self.held)
    }

    /// Sockets that wait for room.
    pub fn wants_write(&self, id: SlotId) -> bool {
        self.index(id).is_some_and(|index| self.slots[index].blocked)
    }

    pub fn send(&mut self, outgoing: &Outgoing<'_>, output: &mut dyn Output) {
        let ip = match outgoing.destination.ip() {
            IpAddr::V6(ip) => ip,
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        };
        if !self.routes.is_empty()
            && let Some(route) = self.routes.get_mut(&ip)
        {
            let targets = route.targets.clone();
            if is_spread(&ip) {
                if route.latest.len() == MAX_LATEST {
                    route.latest.pop_front();
                }
                route.latest.push_back(Held::of(outgoing));
            }
            if targets.is_empty() {
                self.stats.dropped_unroutable += 1;
            }
            for target in targets {
                self.send_target(target, outgoing, output);
            }
            return;
        }
        if is_mapped(&ip) {
            self.stats.dropped_unroutable += 1;
            return;
        }
        let mut copy = *outgoing;
        copy.destination = to_outer(copy.destination);
        let pinned = if self.pins.is_empty() { None } else { self.pins.get(&to_inner(copy.destination)) };
        let index = match pinned {
            Some(&id) => self.index(id),
            None => self.default_slot(&copy),
        };
        self.send_to(index, &copy, output);
    }

    fn send_target(&mut self, target: Target, outgoing: &Outgoing<'_>, output: &mut dyn Output) {
        let mut copy = *outgoing;
        if let Some(address) = target.address {
            copy.destination = address;
            copy.source_ip = None;
        }
        copy.destination = to_outer(copy.destination);
        let index = match target.slot {
            Some(id) => self.index(id),
            None => self.default_slot(&copy),
        };
        self.send_to(index, &copy, output);
    }

    /// The slot of the destination's family: the one bound to the source address, else the one whose network the
    /// destination is in, else one that leads to the internet.
    fn default_slot(&self, outgoing: &Outgoing<'_>) -> Option<usize> {
        let v4 = outgoing.destination.is_ipv4();
        let mut best: Option<(u8, usize)> = None;
        for (index, slot) in self.slots.iter().enumerate() {
            // What carries datagrams to a relay is for routes only.
            let is_relay = matches!(slot.local.ip(), IpAddr::V6(ip) if is_mapped(&ip));
            if slot.local.is_ipv4() != v4 || is_relay || slot.is_aside {
                continue;
            }
            if outgoing.source_ip == Some(slot.local.ip()) {
                return Some(index);
            }
            let fitness = slot.reach.fitness(slot.local.ip(), outgoing.destination.ip());
            if best.is_none_or(|(other, _)| fitness > other) {
                best = Some((fitness, index));
            }
        }
        best.map(|(_, index)| index)
    }

    fn send_to(&mut self, index: Option<usize>, outgoing: &Outgoing<'_>, output: &mut dyn Output) {
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else {
            self.stats.dropped_unroutable += 1;
            return;
        };
        let datagrams = outgoing.segment_size.map_or(1, |size| outgoing.contents.len().div_ceil(size)) as u64;
        if slot.is_virtual {
            if slot.queued_bytes + outgoing.contents.len() > MAX_OUTBOX_BYTES {
                self.stats.dropped_full += datagrams;
                return;
            }
            if slot.queue.is_empty() {
                self.filled.push(slot.id);
            }
            slot.queued_bytes += outgoing.contents.len();
            slot.queue.push_back(Held::of(outgoing));
        } else {
            let mut outgoing = *outgoing;
            // A socket bound to one address sends from it anyway; a foreign source would be refused.
            if !slot.local.ip().is_unspecified() {
                outgoing.source_ip = None;
            }
            let sent = if slot.blocked { Sent::Full } else { output.send(slot.id, &outgoing) };
            match sent {
                Sent::Ok => {}
                Sent::Full => {
                    slot.blocked = true;
                    self.held = true;
                    if slot.queue.len() >= MAX_HELD {
                        self.stats.dropped_full += datagrams;
                        return;
                    }
                    slot.queue.push_back(Held::of(&outgoing));
                }
                Sent::Lost(errno) => {
                    self.stats.send_errors += 1;
                    if self.errors.len() < 16 {
                        self.errors.push((slot.id, errno, outgoing.destination));
                    }
                    return;
                }
            }
        }
        self.stats.sent_datagrams += datagrams;
        let bytes = outgoing.contents.len() as u64;
        self.stats.sent_bytes += bytes;
        match outgoing.destination.ip() {
            IpAddr::V4(_) => self.stats.sent_ipv4_bytes += bytes,
            IpAddr::V6(ip) if !is_mapped(&ip) => self.stats.sent_ipv6_bytes += bytes,
            IpAddr::V6(_) => {}
        }
    }

    /// A socket has room again: sends what was held back.
    pub fn writable(&mut self, id: SlotId, output: &mut dyn Output) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        slot.blocked = false;
        while let Some(held) = slot.queue.pop_front() {
            match output.send(id, &held.outgoing()) {
                Sent::Ok => {}
                Sent::Full => {
                    slot.blocked = true;
                    slot.queue.push_front(held);
                    return;
                }
                Sent::Lost(errno) => {
                    self.stats.send_errors += 1;
                    if self.errors.len() < 16 {
                        self.errors.push((id, errno, held.destination));
                    }
                }
            }
        }
    }

    /// Takes datagrams out of the outbox of a virtual slot.
    pub fn take(&mut self, id: SlotId, max: usize) -> Vec<Held> {
        let Some(index) = self.index(id) else { return Vec::new() };
        let slot = &mut self.slots[index];
        if !slot.is_virtual {
            return Vec::new();
        }
        let count = max.min(slot.queue.len());
        let taken: Vec<Held> = slot.queue.drain(..count).collect();
        slot.queued_bytes -= taken.iter().map(|held| held.contents.len()).sum::<usize>();
        if !slot.queue.is_empty() {
            self.filled.push(id);
        }
        taken
    }
}
