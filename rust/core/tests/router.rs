//! Slots and routes by themselves: full sockets, batches, families.

use std::net::SocketAddr;

use aioiroh_core::route::{
    Outgoing, Output, Reach, Router, Sent, SlotId, Target, is_mapped, to_inner, to_outer,
};

#[derive(Default)]
struct Socket {
    room: usize,
    sent: Vec<(SlotId, SocketAddr, Vec<u8>)>,
}

impl Output for Socket {
    fn send(&mut self, slot: SlotId, outgoing: &Outgoing<'_>) -> Sent {
        if self.room == 0 {
            return Sent::Full;
        }
        self.room -= 1;
        self.sent.push((slot, outgoing.destination, outgoing.contents.to_vec()));
        Sent::Ok
    }

    fn exhausted(&mut self) -> bool {
        false
    }
}

fn datagram(destination: SocketAddr, contents: &[u8]) -> Outgoing<'_> {
    Outgoing { destination, source_ip: None, ecn: None, segment_size: None, contents }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_full_socket_keeps_datagrams_in_order() {
    let mut router = Router::default();
    let slot = router.add_slot(address("0.0.0.0:1"), false);
    let mut socket = Socket { room: 1, ..Socket::default() };
    let to = to_inner(address("10.0.0.1:5"));
    for number in 0..4u8 {
        router.send(&datagram(to, &[number]), &mut socket);
    }
    assert_eq!(socket.sent.len(), 1);
    assert!(router.take_held() && router.wants_write(slot));
    assert!(!router.take_held());
    socket.room = 2;
    router.writable(slot, &mut socket);
    assert!(router.wants_write(slot), "one is still waiting");
    socket.room = 9;
    router.writable(slot, &mut socket);
    assert!(!router.wants_write(slot));
    let order: Vec<u8> = socket.sent.iter().map(|(_, _, contents)| contents[0]).collect();
    assert_eq!(order, [0, 1, 2, 3]);
    assert_eq!(router.stats.dropped_full, 0);
}

#[test]
fn what_waits_for_a_full_socket_is_bounded() {
    let mut router = Router::default();
    router.add_slot(address("0.0.0.0:1"), false);
    let mut socket = Socket::default();
    for _ in 0..1000 {
        router.send(&datagram(to_inner(address("10.0.0.1:5")), &[0; 100]), &mut socket);
    }
    assert_eq!(router.stats.dropped_full, 1000 - 256);
}

#[test]
fn what_waits_in_an_outbox_is_bounded() {
    let mut router = Router::default();
    let slot = router.add_slot(address("10.0.0.9:1"), true);
    for _ in 0..5000 {
        router.send(&datagram(to_inner(address("10.0.0.1:5")), &[0; 1200]), &mut Socket::default());
    }
    let taken = router.take(slot, usize::MAX).len();
    assert_eq!(taken as u64 + router.stats.dropped_full, 5000);
    assert!(taken * 1200 <= 4 << 20);
}

#[test]
fn families_and_sources_choose_the_slot() {
    let mut router = Router::default();
    let any = router.add_slot(address("0.0.0.0:1"), false);
    let one = router.add_slot(address("10.0.0.7:1"), false);
    let six = router.add_slot(address("[::]:1"), false);
    let mut socket = Socket { room: 10, ..Socket::default() };
    router.send(&datagram(to_inner(address("10.0.0.1:5")), b"a"), &mut socket);
    let mut from = datagram(to_inner(address("10.0.0.1:5")), b"b");
    from.source_ip = Some("10.0.0.7".parse().unwrap());
    router.send(&from, &mut socket);
    router.send(&datagram(address("[2001:db8::1]:5"), b"c"), &mut socket);
    let slots: Vec<SlotId> = socket.sent.iter().map(|(slot, ..)| *slot).collect();
    assert_eq!(slots, [any, one, six]);
    assert_eq!(socket.sent[0].1, address("10.0.0.1:5"), "IPv4 leaves as IPv4");
    router.remove_slot(six);
    router.send(&datagram(address("[2001:db8::1]:5"), b"d"), &mut socket);
    assert_eq!(router.stats.dropped_unroutable, 1);
}

#[test]
fn a_route_pins_a_slot_or_spreads_over_several() {
    let mut router = Router::default();
    let first = router.add_slot(address("0.0.0.0:1"), false);
    let second = router.add_slot(address("0.0.0.0:2"), false);
    let mut socket = Socket { room: 10, ..Socket::default() };
    let mapped = address("[fd15:70a:510b::7]:12345");
    let SocketAddr::V6(v6) = mapped else { unreachable!() };
    assert!(is_mapped(v6.ip()));
    let to = Some(address("10.0.0.1:5"));
    router.set_route(*v6.ip(), vec![Target { slot: Some(second), address: to }]);
    router.send(&datagram(mapped, b"a"), &mut socket);
    assert_eq!(socket.sent.last().unwrap().0, second);
    router.set_route(
        *v6.ip(),
        vec![Target { slot: Some(first), address: to }, Target { slot: Some(second), address: to }],
    );
    router.send(&datagram(mapped, b"b"), &mut socket);
    let slots: Vec<SlotId> = socket.sent[1..].iter().map(|(slot, ..)| *slot).collect();
    assert_eq!(slots, [first, second]);
}

#[test]
fn a_slot_that_is_set_aside_carries_only_what_is_pinned_to_it() {
    let mut router = Router::default();
    let aside = router.add_slot(address("0.0.0.0:1"), false);
    assert!(router.set_aside(aside) && router.is_aside(aside) && !router.set_aside(aside + 1));
    let ordinary = router.add_slot(address("0.0.0.0:2"), false);
    let (peer, other) = (address("10.0.0.1:5"), address("10.0.0.1:6"));
    assert!(router.pin(peer, aside) && !router.pin(other, ordinary + 1));
    let mut socket = Socket { room: 10, ..Socket::default() };
    let mut sent_through = |router: &mut Router, to: SocketAddr| {
        router.send(&datagram(to_inner(to), b"a"), &mut socket);
        socket.sent.pop().map(|(slot, ..)| slot)
    };
    assert_eq!(sent_through(&mut router, peer), Some(aside));
    assert_eq!(sent_through(&mut router, other), Some(ordinary));
    assert!(router.unpin(peer) && !router.unpin(peer));
    assert_eq!(sent_through(&mut router, peer), Some(ordinary));
    // A pin does not outlive its slot.
    router.pin(peer, aside);
    router.remove_slot(aside);
    assert_eq!(sent_through(&mut router, peer), Some(ordinary));
}

#[test]
fn addresses_inside_are_ipv6() {
    let v4 = address("192.0.2.1:9");
    assert_eq!(to_inner(v4), address("[::ffff:192.0.2.1]:9"));
    assert_eq!(to_outer(to_inner(v4)), v4);
    let v6 = address("[2001:db8::1]:9");
    assert_eq!(to_outer(to_inner(v6)), v6);
}

#[test]
fn of_several_slots_the_one_in_whose_network_the_destination_is() {
    let mut router = Router::default();
    let first = router.add_slot("192.0.2.1:1".parse().unwrap(), true);
    let near = router.add_slot("198.51.100.1:1".parse().unwrap(), true);
    let outward = router.add_slot("203.0.113.1:1".parse().unwrap(), true);
    let to = |router: &mut Router, destination: &str| {
        router.send(&datagram(address(destination), b"x"), &mut Socket::default());
        [first, near, outward].into_iter().find(|slot| !router.take(*slot, 1).is_empty()).unwrap()
    };
    assert_eq!(to(&mut router, "198.51.100.9:9"), first);
    assert!(router.set_reach(first, Reach { prefix: Some(24), outward: false }));
    assert!(router.set_reach(near, Reach { prefix: Some(24), outward: false }));
    assert!(router.set_reach(outward, Reach { prefix: Some(24), outward: true }));
    assert_eq!(to(&mut router, "192.0.2.9:9"), first);
    assert_eq!(to(&mut router, "198.51.100.9:9"), near);
    assert_eq!(to(&mut router, "198.51.101.9:9"), outward);
    assert!(!router.set_reach(77, Reach::default()));
}
