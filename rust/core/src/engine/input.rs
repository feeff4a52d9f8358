//! What comes in: datagrams, and the connection attempts among them.

use std::{
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::BytesMut;
use noq_proto::{DatagramEvent, EcnCodepoint, FourTuple};

use super::{Engine, Pending, panic_text};
use crate::{
    Instant,
    event::Event,
    probe,
    route::{Output, SlotId, is_mapped, to_inner, to_outer},
};

/// A connection attempt that nobody answered for so long is ignored.
const INCOMING_AGE: Duration = Duration::from_secs(20);

/// Events that may wait when a probe adds one.
const MAX_KNOCKS: usize = 4096;

/// One datagram, or several of equal size (the last may be shorter) from one source.
#[derive(Debug)]
pub struct Received {
    /// Where it arrived; none for what did not come through a slot.
    pub slot: Option<SlotId>,
    pub source: SocketAddr,
    pub local_ip: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub segment_size: usize,
    pub data: BytesMut,
}

impl Engine {
    /// Datagrams that arrived together.
    pub fn receive(&mut self, now: Instant, mut received: Received, output: &mut dyn Output) {
        self.date_tokens(now);
        let bytes = received.data.len() as u64;
        self.stats.received_bytes += bytes;
        match received.source.ip() {
            IpAddr::V4(_) => self.stats.received_ipv4_bytes += bytes,
            IpAddr::V6(ip) if !is_mapped(&ip) => self.stats.received_ipv6_bytes += bytes,
            IpAddr::V6(_) => {}
        }
        self.stats.received_joined += u64::from(received.data.len() > received.segment_size);
        let path = FourTuple::new(to_inner(received.source), received.local_ip);
        let aside = received.slot.filter(|slot| self.router.is_aside(*slot));
        while !received.data.is_empty() {
            let datagram = received.data.split_to(received.segment_size.clamp(1, received.data.len()));
            self.stats.received_datagrams += 1;
            if let Some(slot) = aside {
                let port = probe::port_of(&datagram);
                self.knocked(slot, received.source, port);
                if port.is_some() {
                    continue;
                }
            }
            let result = self.guarded(|engine| engine.receive_one(now, path, received.ecn, datagram, output));
            if result.is_err() {
                return;
            }
        }
    }

    /// Something came through to a slot that was opened for it.
    fn knocked(&mut self, slot: SlotId, source: SocketAddr, port: Option<u16>) {
        // What is used already says nothing new; and whoever floods a slot must not fill our memory.
        if !self.router.is_pinned(source, slot) && self.events.len() < MAX_KNOCKS {
            self.events.push(Event::Knock { slot, source: to_outer(source), port });
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
                slot.watch.heard(path.remote(), now);
                let result = catch_unwind(AssertUnwindSafe(|| slot.conn.handle_event(event)));
                match result {
                    Ok(()) => {
                        if slot.mark_dirty() {
                            self.fresh.push_back(handle.0);
                        }
                    }
                    Err(panic) => self.kill(handle.0, panic_text(&*panic)),
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit, output),
            Some(DatagramEvent::NewConnection(incoming)) => self.incoming(now, incoming, output),
        }
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
        if !self.accepting || self.alpns.is_empty() || self.pending.len() >= self.max_incoming {
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
        // Such as a late packet of a server that we have left.
        let Some(initial) = incoming.decrypt() else { return self.endpoint.ignore(incoming) };
        let id = self.next_incoming;
        self.next_incoming += 1;
        self.events.push(Event::Incoming {
            id,
            remote: to_outer(incoming.remote_address()),
            local_ip: incoming.local_ip(),
            alpns: initial.alpns().map(|alpns| alpns.filter_map(Result::ok).collect()).unwrap_or_default(),
            validated: incoming.remote_address_validated(),
            may_retry: incoming.may_retry(),
        });
        self.pending.insert(id, Pending { incoming, since: now });
        self.pending_order.push_back(id);
    }
}
