//! Early data (0-RTT), Retry and tokens.

use std::time::Duration;

use aioiroh_core::{
    Dir,
    config::Transport,
    event::Event,
    streams::{Read, Write},
};

use crate::world::{CLIENT, PERFECT, SERVER, World};

fn connected(event: &Event) -> Option<bool> {
    match event {
        Event::Connected { zero_rtt, .. } => Some(*zero_rtt),
        _ => None,
    }
}

/// Connects once, so that the client has a session ticket.
fn acquainted() -> World {
    let mut world = World::new(1, PERFECT, Transport::default());
    let (client, _) = world.connect();
    world.run_for(Duration::from_millis(100));
    let now = world.now;
    world.nodes[CLIENT].engine.close_connection(now, client, 0, Default::default()).unwrap();
    world.run_for(Duration::from_secs(5));
    world.nodes[CLIENT].events.clear();
    world.nodes[SERVER].events.clear();
    world
}

fn send_early(world: &mut World, conn: u64) -> aioiroh_core::StreamId {
    world.nodes[CLIENT]
        .engine
        .call(conn, |slot, _| {
            assert!(slot.conn.has_0rtt());
            let stream = slot.open(Dir::Uni).unwrap();
            assert_eq!(slot.write(stream, b"early"), Write::Accepted(5));
            slot.conn.send_stream(stream).finish().unwrap();
            stream
        })
        .unwrap()
}

#[test]
fn early_data_is_accepted_by_a_server_that_knows_the_ticket() {
    let mut world = acquainted();
    let start = world.now;
    let client = world.dial(true);
    send_early(&mut world, client);
    let mut server = None;
    world.run_until(Duration::from_secs(5), |world| {
        let now = world.now;
        if let Some(id) = world.find(SERVER, |event| match event {
            Event::Incoming { id, .. } => Some(*id),
            _ => None,
        }) {
            server = Some(
                world.nodes[SERVER]
                    .engine
                    .accept(now, id, None, None, &mut crate::world::Nowhere)
                    .unwrap()
                    .unwrap(),
            );
            world.pump();
        }
        let Some(server) = server else { return false };
        let data = world.nodes[SERVER].engine.call(server, |slot, _| {
            let stream = slot.accept(Dir::Uni)?;
            match slot.read(stream, 100) {
                Read::Data(data) => Some(data.first),
                other => panic!("{other:?}"),
            }
        });
        data.unwrap().is_some_and(|data| &data[..] == b"early")
    });
    assert_eq!(world.now - start, Duration::from_millis(5), "with the first flight");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.find(CLIENT, connected), Some(true));
}

#[test]
fn early_data_is_rejected_by_a_server_that_does_not() {
    let mut world = acquainted();
    world.nodes[SERVER] = World::node(2, vec![b"test".to_vec()], Transport::default(), None);
    let client = world.dial(true);
    let early = send_early(&mut world, client);
    let server = world.accept();
    world.run_for(Duration::from_millis(100));
    let again = world.nodes[CLIENT].engine.call(client, |slot, _| {
        assert!(!slot.conn.accepted_0rtt());
        slot.open(Dir::Uni).unwrap()
    });
    assert_eq!(again, Ok(early), "streams start anew");
    let opened = world.nodes[SERVER].engine.call(server, |slot, _| slot.accept(Dir::Uni));
    assert_eq!(opened, Ok(None), "nothing of it arrived");
}

#[test]
fn without_a_ticket_there_is_no_early_data() {
    let mut world = World::new(1, PERFECT, Transport::default());
    let client = world.dial(true);
    assert_eq!(world.nodes[CLIENT].engine.inspect(client, |slot| slot.conn.has_0rtt()), Ok(false));
    world.accept();
}

#[test]
fn under_load_peers_prove_their_address_first() {
    let mut world = World::new(1, PERFECT, Transport::default());
    world.nodes[SERVER] = World::node(2, vec![b"test".to_vec()], Transport::default(), Some(0));
    world.dial(false);
    let mut validated = None;
    world.run_until(Duration::from_secs(5), |world| {
        validated = world.find(SERVER, |event| match event {
            Event::Incoming { validated, .. } => Some(*validated),
            _ => None,
        });
        validated.is_some()
    });
    assert_eq!(validated, Some(true));
    assert_eq!(world.nodes[SERVER].engine.stats.retried, 1);
}
