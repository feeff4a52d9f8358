//! Random operations under loss, reordering and duplication.
//!
//! What was read is always a prefix of what was written; a finished stream that was neither reset nor
//! stopped arrives whole; nothing gets stuck, and nothing panics.

use std::{collections::BTreeMap, time::Duration};

use aioiroh_core::{
    Dir, StreamId,
    config::Transport,
    event::{ConnId, Event},
    streams::{Read, Write},
};
use bytes::Bytes;

use crate::world::{CLIENT, Link, SERVER, World};

#[derive(Default)]
struct Flow {
    written: usize,
    read: usize,
    finished: bool,
    cut: bool,
    ended: bool,
}

fn byte(stream: u64, sender: usize, position: usize) -> u8 {
    (stream as usize * 7 + sender * 13 + position * 31) as u8
}

struct Play {
    world: World,
    conns: [ConnId; 2],
    /// By stream and sender.
    flows: BTreeMap<(u64, usize), Flow>,
    accepted: [Vec<StreamId>; 2],
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut random = crate::world::Random(seed ^ 0x5555);
        let link = Link {
            latency: Duration::from_millis(random.below(100)),
            jitter: Duration::from_millis(random.below(40)),
            loss: random.below(120),
            duplication: random.below(50),
        };
        let transport = Transport {
            stream_receive_window: 2_000 + random.below(200_000),
            receive_window: 20_000 + random.below(1_000_000),
            send_window: 10_000 + random.below(1_000_000),
            max_bidi_streams: 1 + random.below(20),
            max_uni_streams: 1 + random.below(20),
            ..Transport::default()
        };
        let mut world = World::new(seed, link, transport);
        let (client, server) = world.connect();
        Self { world, conns: [client, server], flows: BTreeMap::new(), accepted: Default::default() }
    }

    fn ours(stream: StreamId, node: usize) -> bool {
        (stream.initiator() == aioiroh_core::noq_proto::Side::Client) == (node == CLIENT)
    }

    fn pick(&mut self, node: usize, sending: bool) -> Option<u64> {
        let sender = if sending { node } else { 1 - node };
        let all: Vec<u64> = self
            .flows
            .iter()
            .filter(|((stream, from), flow)| {
                let id = StreamId::from(aioiroh_core::VarInt::from_u64(*stream).unwrap());
                *from == sender
                    && !flow.cut
                    && !(if sending { flow.finished } else { flow.ended })
                    && (Self::ours(id, node) || self.accepted[node].contains(&id))
            })
            .map(|((stream, _), _)| *stream)
            .collect();
        if all.is_empty() { None } else { Some(all[self.world.random.below(all.len() as u64) as usize]) }
    }

    fn operate(&mut self) {
        let node = self.world.random.below(2) as usize;
        let conn = self.conns[node];
        let choice = self.world.random.below(100);
        match choice {
            0..10 => {
                let dir = if self.world.random.permille(500) { Dir::Bi } else { Dir::Uni };
                let opened = self.world.nodes[node].engine.call(conn, |slot, _| slot.open(dir)).unwrap();
                if let Some(stream) = opened {
                    self.flows.insert((stream.into(), node), Flow::default());
                    if dir == Dir::Bi {
                        self.flows.insert((stream.into(), 1 - node), Flow::default());
                    }
                }
            }
            10..45 => {
                let Some(stream) = self.pick(node, true) else { return };
                let id = StreamId::from(aioiroh_core::VarInt::from_u64(stream).unwrap());
                let size = 1 + self.world.random.below(5_000) as usize;
                let flow = self.flows.get_mut(&(stream, node)).unwrap();
                let data: Vec<u8> =
                    (flow.written..flow.written + size).map(|p| byte(stream, node, p)).collect();
                match self.world.nodes[node].engine.call(conn, |slot, _| slot.write(id, &data)).unwrap() {
                    Write::Accepted(count) => flow.written += count,
                    Write::Stopped(_) => flow.cut = true,
                    Write::Gone => panic!("a stream that was not finished is gone"),
                }
            }
            45..52 => {
                let Some(stream) = self.pick(node, true) else { return };
                let id = StreamId::from(aioiroh_core::VarInt::from_u64(stream).unwrap());
                let flow = self.flows.get_mut(&(stream, node)).unwrap();
                let result = self.world.nodes[node]
                    .engine
                    .call(conn, |slot, _| slot.conn.send_stream(id).finish().is_ok())
                    .unwrap();
                if result {
                    flow.finished = true;
                } else {
                    flow.cut = true;
                }
            }
            52..54 => {
                let Some(stream) = self.pick(node, true) else { return };
                let id = StreamId::from(aioiroh_core::VarInt::from_u64(stream).unwrap());
                self.flows.get_mut(&(stream, node)).unwrap().cut = true;
                self.world.nodes[node]
                    .engine
                    .call(conn, |slot, _| {
                        let _ = slot.conn.send_stream(id).reset(9u32.into());
                    })
                    .unwrap();
            }
            54..56 => {
                let Some(stream) = self.pick(node, false) else { return };
                let id = StreamId::from(aioiroh_core::VarInt::from_u64(stream).unwrap());
                let flow = self.flows.get_mut(&(stream, 1 - node)).unwrap();
                flow.cut = true;
                flow.ended = true;
                self.world.nodes[node].engine.call(conn, |slot, _| slot.stop(id, 8)).unwrap();
            }
            56..60 => {
                let size = self.world.random.below(900) as usize;
                self.world.nodes[node]
                    .engine
                    .call(conn, |slot, _| {
                        let _ = slot.conn.datagrams().send(Bytes::from(vec![1; size]), true);
                    })
                    .unwrap();
            }
            60..85 => self.read(node),
            _ => {
                for _ in 0..1 + self.world.random.below(20) {
                    self.world.step();
                }
            }
        }
    }

    fn read(&mut self, node: usize) {
        let conn = self.conns[node];
        for dir in [Dir::Bi, Dir::Uni] {
            while let Some(stream) =
                self.world.nodes[node].engine.call(conn, |slot, _| slot.accept(dir)).unwrap()
            {
                assert!(!Self::ours(stream, node));
                self.accepted[node].push(stream);
            }
        }
        let Some(stream) = self.pick(node, false) else { return };
        let id = StreamId::from(aioiroh_core::VarInt::from_u64(stream).unwrap());
        let max = 1 + self.world.random.below(10_000) as usize;
        let read = self.world.nodes[node].engine.call(conn, |slot, _| slot.read(id, max)).unwrap();
        if let Read::Data(data) = &read {
            assert!(data.len <= max);
        }
        self.apply(node, stream, read);
    }

    fn apply(&mut self, node: usize, stream: u64, read: Read) {
        let flow = self.flows.get_mut(&(stream, 1 - node)).unwrap();
        match read {
            Read::Data(data) => {
                let mut bytes = vec![0; data.len];
                data.copy_to(&mut bytes);
                for (index, &found) in bytes.iter().enumerate() {
                    assert_eq!(found, byte(stream, 1 - node, flow.read + index), "stream {stream}");
                }
                flow.read += data.len;
                assert!(flow.read <= flow.written);
            }
            Read::Blocked => {}
            Read::End => {
                assert!(flow.finished);
                assert_eq!(flow.read, flow.written);
                flow.ended = true;
            }
            Read::Reset(code) => {
                assert_eq!(code, 9);
                assert!(flow.cut);
                flow.ended = true;
            }
            Read::Gone => assert!(flow.ended || flow.cut, "stream {stream} vanished"),
        }
    }

    fn events(&mut self) {
        for node in [CLIENT, SERVER] {
            while let Some(event) = self.world.nodes[node].events.pop_front() {
                match event {
                    Event::Data { stream, data, fin, .. } => {
                        if self.flows[&(stream.into(), 1 - node)].ended {
                            continue;
                        }
                        if !data.is_empty() {
                            self.apply(node, stream.into(), Read::Data(data));
                        }
                        if fin {
                            self.apply(node, stream.into(), Read::End);
                        }
                    }
                    Event::StreamReset { stream, code, .. }
                        if !self.flows[&(stream.into(), 1 - node)].ended =>
                    {
                        self.apply(node, stream.into(), Read::Reset(code));
                    }
                    Event::Stopped { stream, .. } => {
                        if let Some(flow) = self.flows.get_mut(&(stream.into(), node)) {
                            flow.cut = true;
                        }
                    }
                    Event::Closed { close, .. } => panic!("closed: {close:?}"),
                    Event::Failed { text } => panic!("{text}"),
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, operations: usize) {
        for _ in 0..operations {
            self.operate();
            self.world.pump();
            self.events();
        }
        // Everything that is open is finished, then read to its end.
        for ((stream, node), flow) in &mut self.flows {
            let id = StreamId::from(aioiroh_core::VarInt::from_u64(*stream).unwrap());
            if !flow.finished && !flow.cut && (Self::ours(id, *node) || self.accepted[*node].contains(&id)) {
                let conn = self.conns[*node];
                flow.finished = self.world.nodes[*node]
                    .engine
                    .call(conn, |slot, _| slot.conn.send_stream(id).finish().is_ok())
                    .unwrap();
            }
        }
        let end = self.world.now + Duration::from_secs(300);
        loop {
            for _ in 0..50 {
                self.read(CLIENT);
                self.read(SERVER);
            }
            let open: Vec<_> = self
                .flows
                .iter()
                .filter(|(_, flow)| flow.finished && !flow.cut && !flow.ended)
                .map(|(key, flow)| (*key, flow.read, flow.written))
                .collect();
            if open.is_empty() {
                break;
            }
            assert!(self.world.now < end, "stuck with {open:?}");
            for _ in 0..20 {
                self.world.step();
            }
            self.events();
        }
    }
}

#[test]
fn random_operations() {
    let (first, count) = match std::env::var("AIOIROH_SEED") {
        Ok(seed) => (seed.parse().expect("a number"), 1),
        Err(_) => (0, 150),
    };
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| Play::new(seed).run(400));
        if let Err(panic) = result {
            eprintln!("failed with AIOIROH_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
