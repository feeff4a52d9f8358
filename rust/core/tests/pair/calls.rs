//! One connection, call by call.

use std::time::Duration;

use aioiroh_core::{
    Dir,
    config::Transport,
    engine::CallError,
    event::{Close, Event},
    route::{Outgoing, Output, Sent, SlotId},
    streams::{Read, Write},
};
use bytes::Bytes;

use crate::world::{CLIENT, Nowhere, PERFECT, SERVER, World};

fn world() -> World {
    World::new(1, PERFECT, Transport::default())
}

#[test]
fn a_stream_carries_bytes_both_ways() {
    let mut world = world();
    let (client, server) = world.connect();
    let stream = world.nodes[CLIENT]
        .engine
        .call(client, |slot, _| {
            let stream = slot.open(Dir::Bi).unwrap();
            assert_eq!(slot.write(stream, b"question"), Write::Accepted(8));
            slot.conn.send_stream(stream).finish().unwrap();
            assert!(matches!(slot.read(stream, 100), Read::Blocked));
            stream
        })
        .unwrap();
    world.run_for(Duration::from_millis(50));
    world.nodes[SERVER]
        .engine
        .call(server, |slot, _| {
            let stream = slot.accept(Dir::Bi).unwrap();
            let Read::Data(data) = slot.read(stream, 100) else { panic!("no data") };
            assert_eq!(&data.first[..], b"question");
            assert!(matches!(slot.read(stream, 100), Read::End));
            slot.write(stream, b"answer");
            slot.conn.send_stream(stream).finish().unwrap();
        })
        .unwrap();
    world.run_for(Duration::from_millis(50));
    let answer = world.find(CLIENT, |event| match event {
        Event::Data { stream: id, data, fin, .. } if *id == stream => Some((data.first.clone(), *fin)),
        _ => None,
    });
    assert_eq!(answer, Some((Bytes::from_static(b"answer"), true)));
    let acked = |event: &Event| matches!(event, Event::Finished { .. }).then_some(());
    assert!(world.find(CLIENT, acked).is_some());
}

#[test]
fn an_answer_leaves_in_one_datagram_with_the_acknowledgement() {
    let mut world = world();
    let (client, server) = world.connect();
    world.run_for(Duration::from_secs(1));
    world.answering = Some(server);
    for _ in 0..20 {
        let sent = world.nodes[SERVER].engine.router.stats.sent_datagrams;
        world.nodes[CLIENT]
            .engine
            .call(client, |slot, _| {
                let stream = slot.open(Dir::Bi).unwrap();
                slot.write(stream, b"question");
                slot.conn.send_stream(stream).finish().unwrap();
                slot.read(stream, 100);
            })
            .unwrap();
        world.run_until(Duration::from_secs(1), |world| {
            let answered = |event: &Event| matches!(event, Event::Data { fin: true, .. }).then_some(());
            world.find(CLIENT, answered).is_some()
        });
        assert_eq!(world.nodes[SERVER].engine.router.stats.sent_datagrams, sent + 1);
    }
}

#[test]
fn gathering_sends_nothing_of_an_established_connection() {
    let mut world = world();
    let (_, server) = world.connect();
    world.run_for(Duration::from_secs(1));
    let now = world.now;
    let slot = world.nodes[SERVER].slot;
    let engine = &mut world.nodes[SERVER].engine;
    engine
        .call(server, |slot, _| {
            let stream = slot.open(Dir::Uni).unwrap();
            slot.write(stream, b"data");
        })
        .unwrap();
    engine.gather(now, &mut Nowhere);
    assert!(engine.router.take(slot, 10).is_empty());
    assert!(engine.has_work());
    engine.pump(now, &mut Nowhere);
    assert!(!engine.router.take(slot, 10).is_empty());
    assert!(!engine.has_work());
}

/// Sockets that have time for one connection only.
struct Hurried;

impl Output for Hurried {
    fn send(&mut self, _slot: SlotId, _outgoing: &Outgoing<'_>) -> Sent {
        Sent::Ok
    }

    fn exhausted(&mut self) -> bool {
        true
    }
}

#[test]
fn everybody_has_a_turn_although_each_pump_has_time_for_one() {
    let mut world = world();
    let conns: Vec<_> = (0..6).map(|_| world.connect().0).collect();
    world.run_for(Duration::from_secs(1));
    let now = world.now;
    let slot = world.nodes[CLIENT].slot;
    let engine = &mut world.nodes[CLIENT].engine;
    for conn in &conns {
        engine
            .call(*conn, |slot, _| {
                let stream = slot.open(Dir::Uni).unwrap();
                slot.write(stream, b"data");
            })
            .unwrap();
    }
    for sent in 1..=conns.len() {
        assert!(engine.has_work());
        engine.gather(now, &mut Hurried);
        engine.pump(now, &mut Hurried);
        assert_eq!(engine.router.take(slot, 100).len(), 1, "turn {sent}");
    }
    assert!(!engine.has_work());
}

#[test]
fn who_closes_as_soon_as_he_has_a_connection_leaves_one_at_the_peer() {
    let mut world = world();
    let client = world.dial(false);
    world.run_until(Duration::from_secs(5), |world| {
        let knock = world.find(SERVER, |event| match event {
            Event::Incoming { id, .. } => Some(*id),
            _ => None,
        });
        if let Some(id) = knock {
            let now = world.now;
            world.nodes[SERVER].engine.accept(now, id, None, None, &mut Nowhere).unwrap().unwrap();
        }
        let connected = |event: &Event| matches!(event, Event::Connected { .. }).then_some(());
        world.find(CLIENT, connected).is_some()
    });
    let now = world.now;
    world.nodes[CLIENT].engine.close_connection(now, client, 7, Bytes::new()).unwrap();
    world.run_for(Duration::from_secs(5));
    let close = |event: &Event| match event {
        Event::Closed { close, .. } => Some(close.clone()),
        _ => None,
    };
    let expected = Close::Application { code: 7, reason: Bytes::new() };
    assert_eq!(world.find(SERVER, close), Some(expected));
}

#[test]
fn a_close_reaches_both_ends_once() {
    let mut world = world();
    let (client, server) = world.connect();
    let now = world.now;
    world.nodes[CLIENT].engine.close_connection(now, client, 7, Bytes::from_static(b"bye")).unwrap();
    assert_eq!(
        world.nodes[CLIENT].engine.close_connection(now, client, 7, Bytes::new()),
        Err(CallError::Gone)
    );
    world.run_for(Duration::from_secs(10));
    let close = |event: &Event| match event {
        Event::Closed { conn, close } => Some((*conn, close.clone())),
        _ => None,
    };
    let reason = Bytes::from_static(b"bye");
    assert_eq!(world.find(CLIENT, close), Some((client, Close::Local { code: 7, reason: reason.clone() })));
    assert_eq!(world.find(SERVER, close), Some((server, Close::Application { code: 7, reason })));
    for node in [CLIENT, SERVER] {
        assert!(world.find(node, close).is_none());
        assert!(world.find(node, |event| matches!(event, Event::Drained { .. }).then_some(())).is_some());
        assert!(world.nodes[node].engine.is_idle());
    }
    // The handle is used again, the id is not.
    let (again, _) = world.connect();
    assert_ne!(again, client);
    assert_eq!(world.nodes[CLIENT].engine.inspect(client, |_| ()), Err(CallError::Gone));
}

#[test]
fn a_panic_ends_one_connection_only() {
    let mut world = world();
    let (client, _) = world.connect();
    let (other, _) = world.connect();
    world.nodes[CLIENT].engine.panic_next("connection");
    world.nodes[CLIENT].engine.call(client, |slot, _| slot.conn.ping()).unwrap();
    world.run_for(Duration::from_millis(100));
    let dead = world.find(CLIENT, |event| match event {
        Event::Closed { conn, close: Close::Panic(text) } => Some((*conn, text.clone())),
        _ => None,
    });
    assert_eq!(dead, Some((client, "injected".to_owned())));
    assert_eq!(world.nodes[CLIENT].engine.inspect(client, |_| ()), Err(CallError::Gone));
    assert_eq!(world.nodes[CLIENT].engine.call(other, |slot, _| slot.open(Dir::Bi).is_some()), Ok(true));
    assert!(world.nodes[CLIENT].engine.failed().is_none());
}

#[test]
fn a_panic_in_shared_code_ends_the_endpoint() {
    let mut world = world();
    let (client, _) = world.connect();
    world.nodes[CLIENT].engine.panic_next("endpoint");
    world.pump();
    let failed = world.find(CLIENT, |event| matches!(event, Event::Failed { .. }).then_some(()));
    assert!(failed.is_some());
    let dead = world.nodes[CLIENT].engine.call(client, |_, _| ());
    assert!(matches!(dead, Err(CallError::Dead(_))));
}

#[test]
fn an_unanswered_attempt_is_forgotten_and_a_full_table_refuses() {
    let mut world = world();
    let (server, key) = (world.nodes[SERVER].address, world.nodes[SERVER].engine.public_key());
    let now = world.now;
    let dial = |world: &mut World| {
        world.nodes[CLIENT].engine.connect(now, server, key, vec![b"test".to_vec()], None, false).unwrap()
    };
    for _ in 0..17 {
        dial(&mut world);
    }
    world.run_for(Duration::from_millis(200));
    let refused = world.find(CLIENT, |event| match event {
        Event::Closed { close: Close::PeerTransport { code, .. }, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(refused, Some(2), "CONNECTION_REFUSED");
    assert_eq!(world.nodes[SERVER].engine.stats.refused, 1);
}

#[test]
fn routes_fan_out_and_unknown_mapped_addresses_are_dropped() {
    let mut world = world();
    let mapped = "fd15:70a:510b::1".parse().unwrap();
    let target = aioiroh_core::route::Target { slot: None, address: Some(world.nodes[SERVER].address) };
    let dead = aioiroh_core::route::Target { slot: None, address: Some(([10, 0, 0, 99], 1).into()) };
    world.nodes[CLIENT].engine.set_route(mapped, vec![dead, target]);
    let key = world.nodes[SERVER].engine.public_key();
    let now = world.now;
    let client = world.nodes[CLIENT]
        .engine
        .connect(now, (mapped, 12345).into(), key, vec![b"test".to_vec()], None, false)
        .unwrap();
    world.pump();
    world.run_until(Duration::from_secs(5), |world| {
        if let Some(id) = world.find(SERVER, |event| match event {
            Event::Incoming { id, .. } => Some(*id),
            _ => None,
        }) {
            let now = world.now;
            world.nodes[SERVER]
                .engine
                .accept(now, id, None, None, &mut crate::world::Nowhere)
                .unwrap()
                .unwrap();
        }
        world.find(CLIENT, |event| matches!(event, Event::Connected { .. }).then_some(())).is_some()
    });
    let remote = world.nodes[CLIENT]
        .engine
        .inspect(client, |slot| slot.conn.network_path(0u32.into()).unwrap().remote())
        .unwrap();
    assert_eq!(aioiroh_core::route::to_outer(remote), world.nodes[SERVER].address);
    let before = world.nodes[CLIENT].engine.router.stats.dropped_unroutable;
    world.nodes[CLIENT].engine.router.drop_route(&mapped);
    let stray = "fd15:70a:510b::2".parse::<std::net::Ipv6Addr>().unwrap();
    world.nodes[CLIENT]
        .engine
        .connect(now, (stray, 12345).into(), key, vec![b"test".to_vec()], None, false)
        .unwrap();
    world.pump();
    assert!(world.nodes[CLIENT].engine.router.stats.dropped_unroutable > before);
}
