//! The link and the clock.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use aioiroh_core::{
    Dir,
    config::{Settings, Transport},
    engine::{Engine, Received},
    event::{ConnId, Event},
    route::{Outgoing, Output, Sent, SlotId},
};
use bytes::BytesMut;

pub struct Nowhere;

impl Output for Nowhere {
    fn send(&mut self, _slot: SlotId, _outgoing: &Outgoing<'_>) -> Sent {
        Sent::Lost(0)
    }

    fn exhausted(&mut self) -> bool {
        false
    }
}

/// A small generator: a test that fails is repeated by its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True in so many of a thousand cases.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }
}

#[derive(Clone, Copy)]
pub struct Link {
    pub latency: Duration,
    pub jitter: Duration,
    pub loss: u64,
    pub duplication: u64,
}

pub const PERFECT: Link =
    Link { latency: Duration::from_millis(5), jitter: Duration::ZERO, loss: 0, duplication: 0 };

pub struct Node {
    pub engine: Engine,
    pub slot: SlotId,
    pub address: SocketAddr,
    pub events: VecDeque<Event>,
}

struct Packet {
    due: Instant,
    serial: u64,
    to: usize,
    received: Received,
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Packet {}
impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.serial).cmp(&(other.due, other.serial))
    }
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub random: Random,
    pub link: Link,
    pub nodes: [Node; 2],
    /// Every datagram that was sent, when somebody wants them.
    pub capture: Option<Vec<Vec<u8>>>,
    /// A connection of the server on which streams are answered before anything is sent.
    pub answering: Option<ConnId>,
    flight: BinaryHeap<Reverse<Packet>>,
    serial: u64,
    pub delivered: u64,
}

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

impl World {
    pub fn node(number: u8, alpns: Vec<Vec<u8>>, transport: Transport, retry_above: Option<usize>) -> Node {
        let mut engine = Engine::new(
            Settings {
                secret: [number; 32],
                alpns,
                transport,
                keylog: None,
                seed: Some([number; 32]),
                max_incoming: 16,
                retry_above,
                max_tickets: 256,
            },
            Box::new(|| {}),
        )
        .unwrap();
        let address = SocketAddr::from(([10, 0, 0, number], 4000));
        let slot = engine.router.add_slot(address, true);
        Node { engine, slot, address, events: VecDeque::new() }
    }

    pub fn new(seed: u64, link: Link, transport: Transport) -> Self {
        let node = |number, alpns| Self::node(number, alpns, transport.clone(), None);
        let now = Instant::now();
        Self {
            now,
            start: now,
            random: Random(seed),
            link,
            nodes: [node(1, Vec::new()), node(2, vec![b"test".to_vec()])],
            capture: None,
            answering: None,
            flight: BinaryHeap::new(),
            serial: 0,
            delivered: 0,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Pumps both engines and puts what they send on the link.
    pub fn pump(&mut self) {
        for from in 0..2 {
            let node = &mut self.nodes[from];
            loop {
                node.engine.collect_wakes();
                node.engine.expire(self.now);
                node.engine.gather(self.now, &mut Nowhere);
                if let (SERVER, Some(conn)) = (from, self.answering) {
                    let _ = node.engine.call(conn, |slot, _| {
                        while let Some(stream) = slot.accept(Dir::Bi) {
                            slot.read(stream, 100);
                            slot.write(stream, b"answer");
                            slot.conn.send_stream(stream).finish().unwrap();
                        }
                    });
                }
                node.engine.pump(self.now, &mut Nowhere);
                if !node.engine.has_work() {
                    break;
                }
            }
            node.events.extend(node.engine.take_events());
            let source = node.address;
            for held in node.engine.router.take(node.slot, usize::MAX) {
                let size = held.segment_size.unwrap_or(held.contents.len());
                for datagram in held.contents.chunks(size) {
                    if let Some(capture) = &mut self.capture {
                        capture.push(datagram.to_vec());
                    }
                    if self.random.permille(self.link.loss) {
                        continue;
                    }
                    let copies = 1 + u64::from(self.random.permille(self.link.duplication));
                    for _ in 0..copies {
                        let jitter = self.random.below(self.link.jitter.as_micros() as u64 + 1);
                        self.serial += 1;
                        self.flight.push(Reverse(Packet {
                            due: self.now + self.link.latency + Duration::from_micros(jitter),
                            serial: self.serial,
                            to: 1 - from,
                            received: Received {
                                slot: None,
                                source,
                                local_ip: None,
                                ecn: held.ecn,
                                segment_size: datagram.len(),
                                data: BytesMut::from(datagram),
                            },
                        }));
                    }
                }
            }
        }
    }

    /// Goes on to the next thing that happens. False if nothing will.
    pub fn step(&mut self) -> bool {
        self.pump();
        let went_on = self.deliver();
        self.pump();
        went_on
    }

    /// The same; but nobody looks yet at what came.
    pub fn deliver(&mut self) -> bool {
        let packet = self.flight.peek().map(|Reverse(packet)| packet.due);
        let timer = self.nodes.iter().filter_map(|node| node.engine.deadline()).min();
        let Some(next) = packet.into_iter().chain(timer).min() else { return false };
        self.now = self.now.max(next);
        while let Some(Reverse(packet)) = self.flight.peek() {
            if packet.due > self.now {
                break;
            }
            let Reverse(packet) = self.flight.pop().unwrap();
            self.delivered += 1;
            self.nodes[packet.to].engine.receive(self.now, packet.received, &mut Nowhere);
        }
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            if !self.step() {
                break;
            }
        }
    }

    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let until = self.now + limit;
        while !done(self) {
            assert!(self.now < until, "nothing came of it in {limit:?}");
            assert!(self.step(), "stuck: no packet in flight and no timer");
        }
    }

    /// Takes the first event for which `f` gives something; earlier ones stay.
    pub fn find<T>(&mut self, node: usize, mut f: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let events = &mut self.nodes[node].events;
        let position = events.iter().position(|event| f(event).is_some())?;
        f(&events.remove(position).unwrap())
    }

    pub fn dial(&mut self, early_data: bool) -> ConnId {
        let (server, key) = (self.nodes[SERVER].address, self.nodes[SERVER].engine.public_key());
        self.nodes[CLIENT]
            .engine
            .connect(self.now, server, key, vec![b"test".to_vec()], None, early_data)
            .unwrap()
    }

    /// Dials, accepts, and waits for both ends.
    pub fn connect(&mut self) -> (ConnId, ConnId) {
        let client = self.dial(false);
        (client, self.accept())
    }

    /// Accepts what was dialled, and waits for both ends.
    pub fn accept(&mut self) -> ConnId {
        let mut accepted = None;
        let mut open = [false; 2];
        self.run_until(Duration::from_secs(30), |world| {
            if let Some(id) = world.find(SERVER, |event| match event {
                Event::Incoming { id, .. } => Some(*id),
                _ => None,
            }) {
                let now = world.now;
                accepted = Some(
                    world.nodes[SERVER].engine.accept(now, id, None, None, &mut Nowhere).unwrap().unwrap(),
                );
            }
            for (node, open) in open.iter_mut().enumerate() {
                *open |= world
                    .find(node, |event| matches!(event, Event::Connected { .. }).then_some(()))
                    .is_some();
            }
            open == [true; 2]
        });
        accepted.unwrap()
    }
}
