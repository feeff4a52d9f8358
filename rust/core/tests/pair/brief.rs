//! Connections that do not last.

use std::time::Duration;

use aioiroh_core::{
    config::Transport,
    event::{Close, ConnId, Event},
};
use bytes::Bytes;

use crate::world::{CLIENT, Nowhere, PERFECT, SERVER, World};

fn new_world() -> World {
    World::new(1, PERFECT, Transport::default())
}

impl World {
    /// Datagrams that wait to be carried away.
    fn waiting(&mut self, node: usize) -> usize {
        let node = &mut self.nodes[node];
        let taken = node.engine.router.take(node.slot, usize::MAX);
        let count =
            |contents: &[u8], size: Option<usize>| contents.len().div_ceil(size.unwrap_or(usize::MAX));
        taken.iter().map(|held| count(&held.contents, held.segment_size)).sum()
    }

    fn greet(&mut self, node: usize, conn: ConnId) {
        self.nodes[node].engine.greet(conn, self.now, &mut Nowhere);
    }

    fn close(&mut self, node: usize, conn: ConnId) {
        self.nodes[node].engine.close_connection(self.now, conn, 7, Bytes::new()).unwrap();
    }

    fn drained(&mut self, node: usize) -> usize {
        let drained = |event: &Event| matches!(event, Event::Drained { .. });
        self.nodes[node].events.iter().filter(|event| drained(event)).count()
    }
}

#[test]
fn the_first_message_does_not_wait_for_the_pump() {
    let mut world = new_world();
    let client = world.dial(false);
    assert_eq!(world.waiting(CLIENT), 0);
    world.greet(CLIENT, client);
    assert_eq!(world.waiting(CLIENT), 1);
    world.pump();
    assert_eq!(world.waiting(CLIENT), 0, "it is sent once");
}

#[test]
fn what_is_not_urgent_waits_until_the_application_has_spoken() {
    let mut world = new_world();
    let client = world.dial(false);
    // Until the server's answer is with the client, which has not looked at it yet.
    while world.nodes[CLIENT].engine.stats.received_datagrams == 0 {
        world.pump();
        let knock = |event: &Event| match event {
            Event::Incoming { id, .. } => Some(*id),
            _ => None,
        };
        if let Some(id) = world.find(SERVER, knock) {
            let now = world.now;
            let conn = world.nodes[SERVER].engine.accept(now, id, None, None, &mut Nowhere).unwrap().unwrap();
            world.greet(SERVER, conn);
            world.pump();
        }
        world.deliver();
    }
    world.nodes[CLIENT].engine.gather(world.now, &mut Nowhere);
    let events = world.nodes[CLIENT].engine.take_events();
    assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })), "{events:?}");
    world.close(CLIENT, client);
    world.capture = Some(Vec::new());
    world.pump();
    assert_eq!(world.capture.take().unwrap().len(), 2, "the last message of the handshake, and the close");
    world.run_for(Duration::from_secs(1));
    let mut closed = None;
    let mut connected = false;
    for event in &world.nodes[SERVER].events {
        match event {
            Event::Connected { .. } => connected = true,
            Event::Closed { close, .. } => closed = Some(close.clone()),
            _ => {}
        }
    }
    assert!(connected);
    assert!(matches!(closed, Some(Close::Application { code: 7, .. })), "{closed:?}");
}

#[test]
fn closed_connections_are_forgotten_together() {
    const COUNT: usize = 20;
    let mut world = new_world();
    let pairs: Vec<_> = (0..COUNT).map(|_| world.connect()).collect();
    world.run_for(Duration::from_millis(300));
    for (client, _) in pairs {
        world.close(CLIENT, client);
        world.now += Duration::from_millis(1);
        world.pump();
    }
    let (mut turns, mut drained, begun) = (0, 0, world.now);
    while drained < COUNT {
        assert!(world.step());
        turns += usize::from(world.drained(CLIENT) > drained);
        drained = world.drained(CLIENT);
    }
    assert!(turns <= COUNT / 4, "{turns}");
    assert!(world.now - begun < Duration::from_millis(300), "{:?}", world.now - begun);
}
