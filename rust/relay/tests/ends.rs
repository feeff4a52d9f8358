//! Clients and a relay, joined by hand.

mod world;

use std::sync::Arc;
use std::time::Duration;

use aioiroh_relay::client::{self, Client};
use aioiroh_relay::frame::{Datagrams, Frame, Version};
use aioiroh_relay::hub::{Hub, News, Rate};
use aioiroh_relay::{Error, Link, MAX_QUEUED};
use bytes::Bytes;
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use world::{A, B, C, SECOND, World, config, options, public};

fn tls() -> (Link, Link) {
    let pem = include_bytes!("relay.test.pem");
    let cert = CertificateDer::from_pem_slice(pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let provider = aioiroh_core::provider::provider();
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    let name = ServerName::try_from("relay.test").unwrap();
    (Link::client(Arc::new(client), name).unwrap(), Link::server(Arc::new(server)).unwrap())
}

fn received(peer: [u8; 32], ecn: u8, segment_size: Option<u16>, contents: &[u8]) -> client::Event {
    let contents = Bytes::copy_from_slice(contents);
    client::Event::Frame(Frame::Receive(Datagrams { peer: public(peer), ecn, segment_size, contents }))
}

#[test]
fn the_key_is_proved_with_and_without_tls() {
    for links in [(Link::plain(), Link::plain()), tls()] {
        let encrypted = links.0.is_tls();
        let mut world = World::new(config());
        world.cut = 7;
        world.join_over(links, A);
        let mut head = String::new();
        // The first bytes tell whether the header spares the challenge.
        while head.is_empty() {
            let up = world.client(0).take();
            for news in world.hub.feed(0, &up, world.now) {
                if let News::Request(request) = &news {
                    head = format!("{request:?}");
                }
                world.decide(0, vec![news]);
            }
            world.bring(0);
        }
        assert_eq!(head.contains("x-iroh-relay-client-auth-v1"), encrypted);
        world.run();
        assert_eq!(world.take_heard(0), [client::Event::Connected(Version::V2)]);
        assert_eq!(world.hub.connections(&public(A)), [0]);
    }
}

#[test]
fn datagrams_go_to_the_peer_as_they_are() {
    for over_tls in [false, true] {
        let mut world = World::new(config());
        world.cut = 11;
        for secret in [A, B] {
            world.join_over(if over_tls { tls() } else { (Link::plain(), Link::plain()) }, secret);
        }
        world.run();
        world.heard = vec![vec![], vec![]];
        world.client(0).send(&public(B), 2, Some(3), b"abcdefgh");
        world.client(0).send(&public(B), 0, Some(3), b"abc");
        world.client(0).ping(*b"12345678");
        world.client(1).send(&public(A), 1, None, &[7; 60_000]);
        // To itself, and to nobody.
        world.client(1).send(&public(B), 0, None, b"me");
        world.client(1).send(&public(C), 0, None, b"nobody");
        world.run();
        assert_eq!(
            world.take_heard(1),
            [received(A, 2, Some(3), b"abcdefgh"), received(A, 0, None, b"abc"), received(B, 0, None, b"me")]
        );
        let pong = client::Event::Frame(Frame::Pong(*b"12345678"));
        assert_eq!(world.take_heard(0), [pong, received(B, 1, None, &[7; 60_000])]);
        let counters = world.hub.counters();
        assert_eq!((counters.send_packets_recv, counters.send_packets_sent), (5, 4));
        assert_eq!((counters.send_packets_dropped, counters.got_ping), (1, 1));
    }
}

#[test]
fn the_latest_connection_of_a_key_receives() {
    let mut world = World::new(config());
    let (first, peer, second) = (world.join(A), world.join(B), world.join(A));
    assert_eq!(world.take_heard(first), [client::Event::Frame(Frame::Status(1))]);
    world.client(peer).send(&public(A), 0, None, b"x");
    // The one before may still send.
    world.client(first).send(&public(B), 0, None, b"y");
    world.run();
    assert_eq!(world.take_heard(second), [received(B, 0, None, b"x")]);
    assert_eq!((world.take_heard(first), world.take_heard(peer)), (vec![], vec![received(A, 0, None, b"y")]));
    world.leave(second);
    assert_eq!(world.take_heard(first), [client::Event::Frame(Frame::Status(0))]);
    world.client(peer).send(&public(A), 0, None, b"z");
    world.run();
    assert_eq!(world.take_heard(first), [received(B, 0, None, b"z")]);
    // Only when nobody is left are those told who have heard from it.
    world.leave(first);
    assert_eq!(world.take_heard(peer), [client::Event::Frame(Frame::Gone(public(A)))]);
    world.leave(peer);
    let counters = world.hub.counters();
    assert_eq!((counters.accepts, counters.disconnects), (3, 3));
    assert_eq!((counters.clients_inactive_added, counters.clients_inactive_removed), (1, 1));
}

#[test]
fn a_client_that_takes_nothing_loses_frames_and_holds_nobody_up() {
    let mut world = World::new(config());
    let (slow, sender, third) = (world.join(A), world.join(B), world.join(C));
    world.client(third).send(&public(A), 0, None, b"first");
    world.run();
    world.take_heard(slow);
    world.stuck.push(slow);
    for _ in 0..300 {
        world.client(sender).send(&public(A), 0, None, &[1; 2000]);
        world.client(sender).send(&public(C), 0, None, &[2; 1000]);
    }
    world.run();
    assert_eq!(world.take_heard(third).len(), 300);
    // Of what waits for it, 196 frames of 2,038 bytes fit.
    assert_eq!(world.hub.counters().queue_full_dropped, 300 - 196);
    world.leave(third);
    world.stuck.clear();
    world.bring(slow);
    // News fit still.
    let mut kept = world.take_heard(slow);
    assert_eq!(kept.pop(), Some(client::Event::Frame(Frame::Gone(public(C)))));
    assert_eq!(kept.len(), 196);
    world.client(sender).send(&public(A), 0, None, b"x");
    world.run();
    assert_eq!(world.take_heard(slow).len(), 1);
}

#[test]
fn what_waits_for_many_takes_nothing_from_the_others() {
    let mut world = World::new(config());
    let (sender, last) = (world.join(B), world.join(C));
    for number in 0..4 {
        let secret = [number + 50; 32];
        let slow = world.join(secret);
        world.stuck.push(slow);
        for _ in 0..10 {
            world.client(sender).send(&public(secret), 0, None, &[1; 40_000]);
        }
        world.run();
    }
    // The first two have all that one may have, the third what is left, the fourth what each is sure of.
    assert_eq!(world.hub.counters().queue_full_dropped, 1 + 1 + 3 + 7);
    for _ in 0..3 {
        world.client(sender).send(&public(C), 0, None, &[2; 40_000]);
    }
    world.run();
    assert_eq!(world.take_heard(last).len(), 3);
    // What has gone counts no more.
    for slow in std::mem::take(&mut world.stuck) {
        world.leave(slow);
    }
    world.stuck.push(last);
    for _ in 0..8 {
        world.client(sender).send(&public(C), 0, None, &[2; 40_000]);
    }
    world.run();
    assert_eq!(world.hub.counters().queue_full_dropped, 12);
}

#[test]
fn a_silent_client_is_asked_and_given_up() {
    let mut world = World::new(config());
    let (quiet, dead) = (world.join(A), world.join(B));
    world.stuck.push(dead);
    world.wait(SECOND * 15);
    assert_eq!(world.over, []);
    for _ in 0..12 {
        world.wait(SECOND);
    }
    // The one has answered, as clients do by themselves.
    assert_eq!(world.over, [(dead, Error::TooLate)]);
    assert_eq!(world.hub.connections(&public(B)), []);
    assert_eq!(world.hub.connections(&public(A)), [quiet]);
}

#[test]
fn whoever_does_not_prove_the_key_in_time_is_gone() {
    let mut world = World::new(config());
    // One says nothing at all, the other stops after the upgrade.
    world.hub.enter(Link::plain(), world.now).unwrap();
    world.clients.push(Client::new(Link::plain(), options(A)));
    world.hub.enter(Link::plain(), world.now).unwrap();
    let up = world.clients[0].take();
    let news = world.hub.feed(1, &up, world.now);
    world.decide(1, news);
    for number in [0, 1] {
        world.stuck.push(number);
    }
    world.clients.clear();
    for _ in 0..9 {
        world.wait(SECOND);
    }
    assert_eq!(world.over, []);
    world.wait(SECOND * 2);
    assert_eq!(world.over, [(1, Error::TooLate)]);
    world.wait(SECOND * 20);
    assert_eq!(world.over, [(1, Error::TooLate), (0, Error::TooLate)]);
    assert_eq!(world.hub.deadline(), None);
    assert_eq!(world.hub.counters().handshakes_failed, 1);
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut world = World::new(config());
    for _ in 0..10 {
        world.hub.enter(Link::plain(), world.now).unwrap();
    }
    // Too many have not been let in.
    assert_eq!(world.hub.enter(Link::plain(), world.now), None);
    world.hub.leave(0);
    assert_eq!(world.hub.enter(Link::plain(), world.now), Some(10));
    assert_eq!(world.hub.counters().connections_refused, 1);
}

#[test]
fn a_rate_puts_off_reading() {
    let mut world = World::new(config());
    let (sender, receiver) = (world.join(A), world.join(B));
    world.hub.set_rate(Some(Rate { bytes_per_second: 10_000, burst: 2_000 }), world.now);
    let mut limited = Vec::new();
    for _ in 0..3 {
        world.client(sender).send(&public(B), 0, None, &[0; 1000]);
        let up = world.client(sender).take();
        let news = world.hub.feed(sender, &up, world.now);
        limited.extend(news.into_iter().filter(|news| matches!(news, News::Limited(_))));
        world.run();
    }
    assert_eq!(
        limited,
        [News::Limited(Duration::from_millis(100)), News::Limited(Duration::from_millis(200))]
    );
    // Told once; what was read is forwarded.
    assert_eq!(world.take_heard(sender), [client::Event::Frame(Frame::Status(2))]);
    assert_eq!(world.take_heard(receiver).len(), 3);
    let counters = world.hub.counters();
    assert_eq!(counters.conns_rx_ratelimited, 1);
    assert!((2000..2200).contains(&counters.bytes_rx_ratelimited));
}

#[test]
fn a_client_is_told_of_a_restart() {
    let mut world = World::new(config());
    let (first, second) = (world.join(A), world.join(B));
    let knocking = world.join_over((Link::plain(), Link::plain()), C);
    for number in [first, knocking, 99] {
        world.hub.announce_restart(number, 10, 20);
    }
    world.run();
    let restarting = client::Event::Frame(Frame::Restarting { reconnect_in_ms: 10, try_for_ms: 20 });
    assert_eq!((world.take_heard(first), world.take_heard(second)), (vec![restarting], vec![]));
    // Who is not let in yet is not told.
    assert_eq!(world.take_heard(knocking), [client::Event::Connected(Version::V2)]);
    world.client(first).close();
    world.run();
    assert_eq!(world.over, [(first, Error::Closed(Some(1000)))]);
}

#[test]
fn large_batches_are_cut_and_too_much_is_dropped() {
    let mut world = World::new(config());
    let (sender, receiver) = (world.join(A), world.join(B));
    let contents = vec![1; 100_000];
    world.client(sender).send(&public(B), 0, Some(1200), &contents);
    world.run();
    let (first, second) = contents.split_at(54 * 1200);
    let expected = [received(A, 0, Some(1200), first), received(A, 0, Some(1200), second)];
    assert_eq!(world.take_heard(receiver), expected);
    let client = world.client(sender);
    client.send(&public(B), 0, None, &contents);
    assert_eq!((client.dropped, client.queued()), (1, 0));
    while client.dropped == 1 {
        client.send(&public(B), 0, None, &contents[..60_000]);
        assert!(client.queued() < MAX_QUEUED + 100_000);
    }
}

#[test]
fn whoever_does_not_prove_the_key_stays_outside() {
    let mut world = World::new(config());
    world.join_over((Link::plain(), Link::plain()), A);
    let up = world.client(0).take();
    let news = world.hub.feed(0, &up, world.now);
    world.decide(0, news);
    world.bring(0);
    let mut answer = world.client(0).take();
    let last = answer.len() - 1;
    answer[last] ^= 1;
    assert_eq!(world.hub.feed(0, &answer, world.now), [News::Over(Error::Signature)]);
    world.bring(0);
    assert_eq!(world.failed, [(0, Error::Denied("signature invalid".into()))]);
    // And who is refused for what it is.
    world.join_over(tls(), B);
    loop {
        let up = world.client(1).take();
        let mut news = world.hub.feed(1, &up, world.now);
        if news == [News::Proved(Version::V2, public(B))] {
            break;
        }
        if let Some(News::Request(_)) = news.first() {
            news = world.hub.upgrade(1, &[], [1; 16], world.now).unwrap();
            assert_eq!(news, [News::Proved(Version::V2, public(B))]);
            break;
        }
        world.bring(1);
    }
    world.hub.deny(1, "not authorized");
    world.bring(1);
    assert_eq!(world.failed[1], (1, Error::Denied("not authorized".into())));
    assert_eq!(world.hub.counters().accepts, 0);
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let mut hub = Hub::new(config());
    hub.enter(Link::plain(), SECOND);
    let target = |news: &[News]| match news {
        [News::Request(request)] => request.target.clone(),
        other => panic!("{other:?}"),
    };
    let news = hub.feed(0, b"GET /ping HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", SECOND);
    assert_eq!(target(&news), "/ping");
    let news = hub.respond(0, 200, "OK", &[("a", "b")], b"body");
    assert_eq!(target(&news), "/healthz");
    assert_eq!(hub.take(0).unwrap(), b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(hub.take(0), None);
    assert_eq!(hub.feed(0, &[b'x'; 20_000], SECOND), [News::Over(Error::Http)]);
}

#[test]
fn nothing_may_come_before_the_upgrade_is_answered() {
    let mut hub = Hub::new(config());
    hub.enter(Link::plain(), SECOND);
    let mut bytes = Client::new(Link::plain(), options(A)).take();
    bytes.push(0x82);
    assert!(matches!(hub.feed(0, &bytes, SECOND)[..], [News::Request(_)]));
    assert_eq!(hub.upgrade(0, &[], [5; 16], SECOND), Ok(vec![News::Over(Error::TooEarly)]));
}

proptest! {
    #[test]
    fn damaged_bytes_hurt_nobody_else(
        at in 0usize..600, flip in 1u8.., extra in prop::collection::vec(any::<u8>(), 0..50), cut in 1usize..700
    ) {
        let mut world = World::new(config());
        let (sender, receiver, third) = (world.join(A), world.join(B), world.join(C));
        world.client(sender).send(&public(B), 0, None, &[3; 300]);
        world.client(sender).send(&public(B), 0, Some(10), &[4; 200]);
        let mut bytes = world.client(sender).take();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        bytes.extend_from_slice(&extra);
        for piece in bytes.chunks(cut) {
            let news = world.hub.feed(sender, piece, world.now);
            world.decide(sender, news);
        }
        // From the first byte on, too.
        let fresh = world.join_over((Link::plain(), Link::plain()), A);
        let news = world.hub.feed(fresh, &bytes, world.now);
        world.decide(fresh, news.into_iter().filter(|news| !matches!(news, News::Request(_))).collect());
        world.run();
        prop_assert_eq!(&world.failed, &[]);
        prop_assert!(world.over.iter().all(|(number, _)| *number == sender || *number == fresh));
        world.take_heard(receiver);
        world.client(third).send(&public(B), 0, None, b"still");
        world.run();
        prop_assert_eq!(world.take_heard(receiver), [received(C, 0, None, b"still")]);
        // And what the relay sends may be damaged, too.
        let _ = world.client(receiver).feed(&bytes);
    }
}
