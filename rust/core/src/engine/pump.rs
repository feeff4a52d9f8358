//! Turns: each connection that has something to do tells its events and sends.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
};

use noq_proto::{ConnectionHandle, EndpointEvent};

use super::{Engine, index_of, panic_text};
use crate::{
    Instant,
    connection::Slot,
    event::{Close, ConnId, Event},
    route::{Outgoing, Output, is_mapped, to_outer},
};

/// Datagrams that one connection may send before the next one has its turn.
const TRANSMIT_QUOTA: usize = 40;
/// A batch must stay below 64 KiB.
pub(super) const MAX_BATCH_BYTES: usize = 65_000;

/// Bytes of a packet with nothing but a PATH_CHALLENGE, at most.
const MAX_NAT_PROBE: usize = 64;

/// How much of its turn a connection has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Whole,
    /// Until the handshake is complete on this side.
    Handshake,
}

impl Engine {
    /// Gives each connection that has something to do its turn.
    pub fn pump(&mut self, now: Instant, output: &mut dyn Output) {
        self.date_tokens(now);
        if self.failed.is_some() {
            return;
        }
        if self.panic_next == Some("endpoint") {
            self.panic_next = None;
            let _ = self.guarded(|_| panic!("injected"));
            return;
        }
        self.router.catch_up(output);
        while let Some(index) = self.dirty.pop_front().or_else(|| self.fresh.pop_front()) {
            self.turn(index, now, output, Turn::Whole);
            if self.failed.is_some() || output.exhausted() {
                break;
            }
        }
        for slot in std::mem::take(&mut self.router.filled) {
            self.events.push(Event::Output { slot });
        }
        for (slot, errno, destination) in std::mem::take(&mut self.router.errors) {
            self.events.push(Event::SocketError { slot, errno, destination });
        }
    }

    /// Tells what happened on connections that have something to do, and leaves sending to the next
    /// [`pump`](Self::pump): what an application answers at once leaves in one datagram with the
    /// acknowledgement of what it answers.
    ///
    /// Handshakes go on at once, up to a client's last message. An application that closes as soon as it
    /// has a connection would else take it along. What else there is to say by then (connection ids,
    /// tickets, a probe of the MTU) waits for the application, too.
    pub fn gather(&mut self, now: Instant, output: &mut dyn Output) {
        while let Some(index) = self.fresh.pop_front() {
            match self.conns.get_mut(index).and_then(Option::as_mut) {
                Some(slot) if slot.established => {
                    let events = &mut self.events;
                    match catch_unwind(AssertUnwindSafe(|| slot.tell(now, events))) {
                        Ok(()) => self.dirty.push_back(index),
                        Err(panic) => self.kill(index, panic_text(&*panic)),
                    }
                }
                Some(_) => self.turn(index, now, output, Turn::Handshake),
                None => {}
            }
            if self.failed.is_some() || output.exhausted() {
                return;
            }
        }
    }

    /// Sends the first message of a handshake, or the answer to it, while the application still arranges
    /// itself. Where early data may be sent, they come along in the next pump.
    pub fn greet(&mut self, id: ConnId, now: Instant, output: &mut dyn Output) {
        let index = index_of(id);
        let waits = self.slot(id).is_some_and(|slot| slot.dirty && !slot.is_early());
        if waits && self.fresh.back() == Some(&index) {
            self.fresh.pop_back();
            self.turn(index, now, output, Turn::Handshake);
        }
    }

    fn turn(&mut self, index: usize, now: Instant, output: &mut dyn Output, extent: Turn) {
        let Some(mut slot) = self.conns.get_mut(index).and_then(Option::take) else { return };
        slot.dirty = false;
        let result = catch_unwind(AssertUnwindSafe(|| self.pump_one(index, &mut slot, now, output, extent)));
        match result {
            Ok(drained) => {
                let id = slot.id;
                self.conns[index] = Some(slot);
                if drained {
                    self.forget(index);
                    self.events.push(Event::Drained { conn: id });
                } else {
                    if let Some(slot) = &mut self.conns[index] {
                        slot.watch.after_turn(now);
                    }
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

    fn pump_one(
        &mut self,
        index: usize,
        slot: &mut Slot,
        now: Instant,
        output: &mut dyn Output,
        extent: Turn,
    ) -> bool {
        if self.panic_next == Some("connection") {
            self.panic_next = None;
            panic!("injected");
        }
        let mut quota = TRANSMIT_QUOTA;
        let mut parked = false;
        let mut drained = false;
        loop {
            slot.tell(now, &mut self.events);
            if extent == Turn::Handshake && slot.established {
                if slot.conn.side().is_client() {
                    self.transmit(slot, now, 1, output);
                }
                slot.dirty = true;
                if self.router.take_held() {
                    self.parked.push(index);
                } else {
                    self.dirty.push_back(index);
                }
                return false;
            }
            while quota > 0 {
                let sent = self.transmit(slot, now, quota, output);
                if sent == 0 {
                    break;
                }
                quota -= sent;
                if self.router.take_held() {
                    parked = true;
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
                slot.on_event(event, now, &mut self.events);
                again = true;
            }
            if quota == 0 {
                slot.dirty = true;
                if parked {
                    self.parked.push(index);
                } else {
                    self.dirty.push_back(index);
                }
                return false;
            }
            if !again && !slot.streams.pending() {
                return false;
            }
        }
    }

    /// Sends one batch of datagrams of a connection, at most so many; says how many it were.
    fn transmit(&mut self, slot: &mut Slot, now: Instant, most: usize, output: &mut dyn Output) -> usize {
        let mtu = usize::from(slot.conn.current_mtu()).max(1);
        let batch = self.batch.min(MAX_BATCH_BYTES / mtu).clamp(1, most);
        self.buffer.clear();
        let batch = NonZeroUsize::new(batch).expect("at least one");
        let Some(mut transmit) = slot.conn.poll_transmit(now, batch, &mut self.buffer) else { return 0 };
        if is_nat_probe(&transmit, slot) {
            slot.probes(to_outer(transmit.destination), &mut self.events);
        }
        let sent = transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size));
        self.respond(&transmit, output);
        if let Some(to) = slot.watch.detour_of(&slot.conn, transmit.destination, transmit.src_ip) {
            transmit.destination = to;
            transmit.src_ip = None;
            self.respond(&transmit, output);
        }
        sent.clamp(1, most)
    }

    fn forget(&mut self, index: usize) {
        if let Some(mut slot) = self.conns[index].take() {
            if let Some(armed) = slot.armed.take() {
                self.timers.remove(&(armed, index));
            }
            if slot.held {
                self.finished.insert(slot.id, slot);
            }
        }
        self.generations[index] = self.generations[index].wrapping_add(1);
        self.live -= 1;
    }

    /// Ends one connection whose state can no longer be trusted.
    pub(super) fn kill(&mut self, index: usize, text: String) {
        self.stats.panics += 1;
        let Some(slot) = self.conns[index].take() else { return };
        let id = slot.id;
        if let Some(armed) = slot.armed {
            self.timers.remove(&(armed, index));
        }
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

    pub(super) fn respond(&mut self, transmit: &noq_proto::Transmit, output: &mut dyn Output) {
        let buffer = std::mem::take(&mut self.buffer);
        self.router.send(&outgoing(transmit, &buffer), output);
        self.buffer = buffer;
    }
}

/// Whether it goes to an address that the peer has named for hole punching. The library tells a server
/// nothing of such addresses; but its probes are short, and go where there is no path.
fn is_nat_probe(transmit: &noq_proto::Transmit, slot: &Slot) -> bool {
    transmit.size <= MAX_NAT_PROBE
        && transmit.src_ip.is_none()
        && transmit.segment_size.is_none()
        && matches!(transmit.destination.ip(), IpAddr::V6(ip) if !is_mapped(&ip))
        && slot.established
        && slot.conn.side().is_server()
        && !slot.conn.paths().into_iter().any(|path| {
            slot.conn.network_path(path).is_ok_and(|network| network.remote() == transmit.destination)
        })
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
