//! Datagrams from strangers: whatever they hold, the endpoint lives and other connections go on.

use std::time::Duration;

use aioiroh_core::{
    config::Transport,
    engine::Received,
    event::{Close, Event},
};
use bytes::BytesMut;

use crate::world::{CLIENT, Nowhere, PERFECT, Random, SERVER, World};

fn mutate(random: &mut Random, captured: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = captured[random.below(captured.len() as u64) as usize].clone();
    match random.below(5) {
        0 => datagram.truncate(random.below(datagram.len() as u64 + 1) as usize),
        1 => {
            let other = &captured[random.below(captured.len() as u64) as usize];
            let cut = random.below(datagram.len().min(other.len()) as u64) as usize;
            datagram.truncate(cut);
            datagram.extend_from_slice(&other[cut..]);
        }
        2 => {
            // Only the header, so that some of it stays believable.
            for _ in 0..1 + random.below(4) {
                let at = random.below(datagram.len().min(48) as u64) as usize;
                datagram[at] = random.next() as u8;
            }
        }
        3 => {
            let size = random.below(1500) as usize;
            datagram = (0..size).map(|_| random.next() as u8).collect();
        }
        _ => {
            for _ in 0..1 + random.below(20) {
                let at = random.below(datagram.len() as u64) as usize;
                datagram[at] ^= 1 << random.below(8);
            }
        }
    }
    datagram
}

#[test]
fn mutated_datagrams() {
    let mut world = World::new(7, PERFECT, Transport::default());
    world.capture = Some(Vec::new());
    let (client, server) = world.connect();
    for _ in 0..20 {
        world.nodes[CLIENT].engine.call(client, |slot, _| slot.conn.ping()).unwrap();
        world.run_for(Duration::from_millis(50));
    }
    let captured = world.capture.take().unwrap();
    let mut random = Random(42);
    for round in 0..30_000u64 {
        let to = (round % 2) as usize;
        let datagram = mutate(&mut random, &captured);
        if datagram.is_empty() {
            continue;
        }
        // From the peer's address, or from anywhere.
        let source = if random.permille(500) {
            world.nodes[1 - to].address
        } else {
            ([10, 9, random.next() as u8, random.next() as u8], 1 + random.below(60_000) as u16).into()
        };
        let size = datagram.len();
        let received = Received {
            slot: None,
            source,
            local_ip: None,
            ecn: None,
            segment_size: if random.permille(100) { 1 + random.below(size as u64) as usize } else { size },
            data: BytesMut::from(&datagram[..]),
        };
        let now = world.now;
        world.nodes[to].engine.receive(now, received, &mut Nowhere);
        if round % 50 == 0 {
            world.step();
            for node in [CLIENT, SERVER] {
                let engine = &mut world.nodes[node].engine;
                engine.take_events();
                world.nodes[node].events.retain(|event| {
                    if let Event::Closed { close, .. } = event {
                        assert!(!matches!(close, Close::Panic(_)), "{close:?}");
                    }
                    assert!(!matches!(event, Event::Failed { .. }));
                    false
                });
            }
        }
    }
    for (node, conn) in [(CLIENT, client), (SERVER, server)] {
        assert_eq!(world.nodes[node].engine.stats.panics, 0);
        let open = world.nodes[node].engine.inspect(conn, |slot| !slot.is_closed());
        assert_eq!(open, Ok(true), "strangers cannot end a connection");
    }
}
