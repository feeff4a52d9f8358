//! Anything may happen to a relay, in any order: it neither panics nor loses count, and it serves those who behave.

mod world;

use std::time::Duration;

use aioiroh_relay::frame::Frame;
use aioiroh_relay::hub::Rate;
use aioiroh_relay::{Link, client};
use proptest::prelude::*;
use world::{A, B, SECOND, World, config, public};

#[derive(Debug, Clone)]
enum Happening {
    Join(u8),
    /// A connection that says this and nothing else.
    Knock(Vec<u8>),
    Send {
        from: usize,
        to: u8,
        segment: Option<u16>,
        content: Vec<u8>,
    },
    Noise {
        from: usize,
        bytes: Vec<u8>,
    },
    Ping(usize),
    Close(usize),
    Leave(usize),
    Stick(usize),
    Wait(u16),
    Limit(Option<u16>),
    Restart(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        3 => (0u8..5).prop_map(Join),
        1 => bytes().prop_map(Knock),
        6 => (any::<usize>(), 0u8..7, any::<Option<u16>>(), prop::collection::vec(any::<u8>(), 1..3000))
            .prop_map(|(from, to, segment, content)| Send { from, to, segment, content }),
        1 => (any::<usize>(), bytes()).prop_map(|(from, bytes)| Noise { from, bytes }),
        1 => any::<usize>().prop_map(Ping),
        1 => any::<usize>().prop_map(Close),
        2 => any::<usize>().prop_map(Leave),
        1 => any::<usize>().prop_map(Stick),
        2 => any::<u16>().prop_map(Wait),
        1 => any::<Option<u16>>().prop_map(Limit),
        1 => any::<usize>().prop_map(Restart),
    ]
}

fn secret(number: u8) -> [u8; 32] {
    [number + 100; 32]
}

fn apply(world: &mut World, happening: Happening) {
    let count = world.clients.len();
    let chosen = |number: usize| (number % count.max(1)) as u64;
    match happening {
        Happening::Join(_) | Happening::Knock(_) if count >= 18 => {}
        Happening::Join(number) => {
            world.try_join((Link::plain(), Link::plain()), secret(number));
        }
        Happening::Knock(bytes) => {
            if let Some(number) = world.try_join((Link::plain(), Link::plain()), secret(0)) {
                world.client(number).take();
                let news = world.hub.feed(number, &bytes, world.now);
                world.decide(number, news);
            }
        }
        _ if count == 0 => {}
        Happening::Send { from, to, segment, content } => {
            world.client(chosen(from)).send(&public(secret(to)), 0, segment, &content);
        }
        Happening::Noise { from, bytes } => {
            let news = world.hub.feed(chosen(from), &bytes, world.now);
            world.decide(chosen(from), news);
        }
        Happening::Ping(from) => world.client(chosen(from)).ping([7; 8]),
        Happening::Close(from) => world.client(chosen(from)).close(),
        Happening::Leave(from) => world.hub.leave(chosen(from)),
        Happening::Stick(who) => world.stuck.push(chosen(who)),
        Happening::Wait(ms) => world.wait(Duration::from_millis(ms.into())),
        Happening::Limit(rate) => {
            let rate = rate.map(|rate| Rate { bytes_per_second: 10 + u32::from(rate), burst: 100 });
            world.hub.set_rate(rate, world.now);
        }
        Happening::Restart(who) => world.hub.announce_restart(chosen(who), 1, 2),
    }
    world.run();
}

#[test]
fn who_had_to_go_for_newer_ones_is_not_counted_as_put_aside() {
    let mut world = World::new(config());
    for _ in 0..15 {
        world.join(A);
    }
    let aside = world.hub.connections(&public(A)).len() as u64 - 1;
    let counters = world.hub.counters();
    assert_eq!(counters.clients_inactive_added - counters.clients_inactive_removed, aside);
    assert_eq!(counters.accepts - counters.disconnects, aside + 1);
}

proptest! {
    #[test]
    fn whatever_happens(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::new(config());
        for happening in happenings {
            apply(&mut world, happening);
        }
        let one = world.try_join((Link::plain(), Link::plain()), A);
        let other = world.try_join((Link::plain(), Link::plain()), B);
        world.run();
        if let (Some(one), Some(other)) = (one, other) {
            world.take_heard(other);
            world.client(one).send(&public(B), 0, None, b"still there");
            world.run();
            let heard = world.take_heard(other);
            prop_assert!(heard.iter().any(|event| matches!(
                event, client::Event::Frame(Frame::Receive(datagrams)) if datagrams.contents == "still there"
            )));
        }
        for number in 0..world.clients.len() as u64 {
            world.hub.leave(number);
        }
        let counters = world.hub.counters();
        prop_assert_eq!(counters.accepts, counters.disconnects);
        prop_assert_eq!(counters.clients_inactive_added, counters.clients_inactive_removed);
        prop_assert_eq!(world.hub.deadline(), None);
        for number in 0..7 {
            prop_assert!(world.hub.connections(&public(secret(number))).is_empty());
        }
        // All places are free again.
        for _ in 0..10 {
            prop_assert!(world.hub.enter(Link::plain(), world.now + SECOND).is_some());
        }
    }
}
