//! Real sockets under the engine: UDP in batches, and one descriptor that tells when to step.
//!
//! On Linux and on Apple's systems the event loop watches one descriptor for all sockets, a timer and
//! wake-ups from other threads. Elsewhere the caller watches the sockets and keeps the time itself.

mod ready;
mod socket;

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aioiroh_core::{
    EcnCodepoint,
    engine::{Engine, Received},
    route::{Outgoing, Output, Sent, SlotId},
};
use bytes::BytesMut;
use noq_udp::{BATCH_SIZE, RecvMeta};

use ready::Ready;
pub use ready::Signal;
use socket::UdpSlot;
pub use socket::{SocketInfo, SocketOptions};

/// Receive buffer of one message: 64 KiB, as much as the kernel coalesces.
const SLOT_BYTES: usize = 64 * 1024;
/// Messages taken by one receive call. Each may hold dozens of coalesced datagrams of about a
/// microsecond each, and time can be looked at only between calls.
const MESSAGES: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };
/// Time after which a step receives no more.
const RECEIVE_BUDGET: Duration = Duration::from_micros(80);
/// Time after which the pump leaves the rest to the next step.
const PUMP_BUDGET: Duration = Duration::from_micros(150);

/// The sockets of one engine.
pub struct Sockets {
    slots: Vec<UdpSlot>,
    ready: Ready,
    buffer: Vec<u8>,
    metas: Vec<RecvMeta>,
    pump_until: Option<Instant>,
    pub stats: UdpStats,
}

/// Counters of the sockets.
#[derive(Debug, Default, Clone, Copy)]
pub struct UdpStats {
    pub receive_calls: u64,
    pub send_calls: u64,
    pub gso_fallbacks: u64,
    pub receive_errors: u64,
}

impl Sockets {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            slots: Vec::new(),
            ready: Ready::new()?,
            buffer: vec![0; SLOT_BYTES * MESSAGES],
            metas: vec![RecvMeta::default(); MESSAGES],
            pump_until: None,
            stats: UdpStats::default(),
        })
    }

    /// Wakes the event loop from any thread.
    pub fn signal(&self) -> Arc<Signal> {
        self.ready.signal()
    }

    /// The descriptor to watch; none where the portable way is needed.
    pub fn fileno(&self) -> Option<i32> {
        self.ready.fileno()
    }

    /// What to watch without it: descriptors, and whether also for writing.
    pub fn descriptors(&self, engine: &Engine) -> Vec<(i32, bool)> {
        let mut all: Vec<_> =
            self.slots.iter().map(|slot| (slot.fd(), engine.router.wants_write(slot.id))).collect();
        all.push((self.ready.signal_fd(), false));
        all
    }

    pub fn bind(
        &mut self,
        engine: &mut Engine,
        address: SocketAddr,
        options: SocketOptions,
    ) -> io::Result<(SlotId, SocketAddr, SocketInfo)> {
        let mut slot = UdpSlot::bind(address, options)?;
        let (local, info) = (slot.local()?, slot.info());
        slot.id = engine.router.add_slot(local, false);
        if let Err(error) = self.ready.add(&slot) {
            engine.router.remove_slot(slot.id);
            return Err(error);
        }
        let id = slot.id;
        self.slots.push(slot);
        Ok((id, local, info))
    }

    pub fn remove(&mut self, engine: &mut Engine, id: SlotId) -> bool {
        engine.router.remove_slot(id);
        let Some(index) = self.slots.iter().position(|slot| slot.id == id) else { return false };
        let slot = self.slots.remove(index);
        self.ready.remove(&slot);
        engine.unpark();
        true
    }

    /// Binds a slot anew, to the same address and port if it can be had.
    pub fn rebind(&mut self, engine: &mut Engine, id: SlotId) -> io::Result<SocketAddr> {
        let index = self
            .slots
            .iter()
            .position(|slot| slot.id == id)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such socket"))?;
        let mut old = self.slots.remove(index);
        self.ready.remove(&old);
        let mut new = match old.rebind() {
            Ok(new) => new,
            Err(error) => {
                engine.router.remove_slot(id);
                return Err(error);
            }
        };
        new.id = id;
        self.ready.add(&new)?;
        let local = new.local()?;
        engine.router.rebound(id, local);
        engine.unpark();
        self.slots.insert(index, new);
        Ok(local)
    }

    /// Receives and fires timers. If that gives the application something to answer, connections have
    /// their turns in the [`pump`](Self::pump) that must follow, else at once.
    pub fn step(&mut self, engine: &mut Engine, now: Instant) {
        let ready = self.ready.poll();
        let receive_until = Instant::now() + RECEIVE_BUDGET;
        for index in 0..self.slots.len() {
            let fd = self.slots[index].fd();
            if !ready.contains(fd) {
                continue;
            }
            if engine.router.wants_write(self.slots[index].id) && ready.writable(fd) {
                let id = self.slots[index].id;
                engine.writable(id, self);
                self.watch_writing(engine);
            }
            self.receive(engine, index, now, receive_until);
        }
        engine.collect_wakes();
        engine.expire(now);
        self.pump_until = Some(Instant::now() + PUMP_BUDGET);
        engine.gather(now, self);
        if !engine.has_events() {
            self.pump(engine, now);
        }
    }

    /// Gives connections that were called their turns.
    pub fn pump(&mut self, engine: &mut Engine, now: Instant) {
        self.pump_until = Some(Instant::now() + PUMP_BUDGET);
        engine.pump(now, self);
        self.watch_writing(engine);
        if engine.has_work() {
            self.ready.arm_now();
        } else {
            self.ready.arm(engine.deadline(), now);
        }
    }

    fn watch_writing(&mut self, engine: &Engine) {
        for slot in &mut self.slots {
            let wanted = engine.router.wants_write(slot.id);
            if slot.watches_writing != wanted {
                slot.watches_writing = wanted;
                self.ready.watch(slot);
            }
        }
    }

    fn receive(&mut self, engine: &mut Engine, index: usize, now: Instant, until: Instant) {
        loop {
            let received = {
                let mut buffers: Vec<IoSliceMut<'_>> =
                    self.buffer.chunks_exact_mut(SLOT_BYTES).map(IoSliceMut::new).collect();
                self.stats.receive_calls += 1;
                self.slots[index].recv(&mut buffers, &mut self.metas)
            };
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // ICMP errors and the like say nothing about the socket: it goes on.
                Err(_) => {
                    self.stats.receive_errors += 1;
                    return;
                }
            };
            for message in 0..count {
                let meta = self.metas[message];
                let start = message * SLOT_BYTES;
                let data = BytesMut::from(&self.buffer[start..start + meta.len]);
                let received = Received {
                    slot: Some(self.slots[index].id),
                    source: meta.addr,
                    local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                    ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                    segment_size: meta.stride,
                    data,
                };
                engine.receive(now, received, self);
            }
            if count < MESSAGES || Instant::now() >= until {
                return;
            }
        }
    }
}

impl Output for Sockets {
    fn send(&mut self, slot: SlotId, outgoing: &Outgoing<'_>) -> Sent {
        let Ok(index) = self.slots.binary_search_by_key(&slot, |socket| socket.id) else {
            return Sent::Lost(libc::ENOTSOCK);
        };
        let socket = &self.slots[index];
        self.stats.send_calls += 1;
        socket.send(outgoing, &mut self.stats)
    }

    fn exhausted(&mut self) -> bool {
        self.pump_until.is_some_and(|until| Instant::now() >= until)
    }
}
