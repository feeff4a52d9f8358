//! A client and a server, joined by hand.

use std::sync::Arc;

use aioiroh_relay::client::{self, Client};
use aioiroh_relay::frame::{Datagrams, Frame, Version};
use aioiroh_relay::http::accept_upgrade;
use aioiroh_relay::server::{self, Server};
use aioiroh_relay::{Error, Link, MAX_QUEUED};
use bytes::Bytes;
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

const SECRET: [u8; 32] = [0x2a; 32];

fn public() -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(&SECRET).verifying_key().to_bytes()
}

fn options() -> client::Options {
    client::Options {
        host: "relay.test".into(),
        target: "/relay".into(),
        secret_key: SECRET,
        token: None,
        entropy: [9; 24],
    }
}

fn tls() -> (Link, Link) {
    let pem = include_bytes!("relay.test.pem");
    let cert = CertificateDer::from_pem_slice(pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
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

struct Pair {
    client: Client,
    server: Server,
    requests: usize,
    cut: usize,
}

impl Pair {
    fn new((client, server): (Link, Link)) -> Self {
        Self {
            client: Client::new(client, options()),
            server: Server::new(server),
            requests: 0,
            cut: usize::MAX,
        }
    }

    fn plain() -> Self {
        Self::new((Link::plain(), Link::plain()))
    }

    /// Moves bytes until none are left, and answers as a relay does.
    fn run(&mut self) -> Result<(Vec<client::Event>, Vec<server::Event>), Error> {
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        loop {
            let (up, down) = (self.client.take(), self.server.take());
            if up.is_empty() && down.is_empty() {
                return Ok((at_client, at_server));
            }
            for piece in up.chunks(self.cut) {
                self.server.feed(piece)?;
                while let Some(event) = self.server.poll() {
                    match &event {
                        server::Event::Request(request) => {
                            self.requests += 1;
                            let upgrade = accept_upgrade(request).unwrap();
                            self.server.upgrade(&upgrade, &[("x", "y")], [5; 16])?;
                        }
                        server::Event::Proved(_) => self.server.confirm(),
                        server::Event::Frame(_) => {}
                    }
                    at_server.push(event);
                }
            }
            for piece in down.chunks(self.cut) {
                self.client.feed(piece)?;
                at_client.extend(std::iter::from_fn(|| self.client.poll()));
            }
        }
    }

    fn connected(mut self) -> Self {
        let (at_client, at_server) = self.run().unwrap();
        assert_eq!(at_client, [client::Event::Connected(Version::V2)]);
        assert_eq!(at_server.last(), Some(&server::Event::Proved(public())));
        self
    }
}

#[test]
fn the_key_is_proved_with_and_without_tls() {
    for links in [(Link::plain(), Link::plain()), tls()] {
        let encrypted = links.0.is_tls();
        let mut pair = Pair::new(links);
        pair.cut = 7;
        let (at_client, at_server) = pair.run().unwrap();
        assert_eq!(at_client, [client::Event::Connected(Version::V2)]);
        let [server::Event::Request(request), server::Event::Proved(key)] = &at_server[..] else { panic!() };
        assert_eq!(*key, public());
        // Over TLS the header spares the challenge.
        assert_eq!(request.headers.text("x-iroh-relay-client-auth-v1").is_some(), encrypted);
        assert!(pair.client.is_open() && pair.server.is_open());
    }
}

#[test]
fn datagrams_pings_and_news() {
    let mut pair = Pair::new(tls()).connected();
    pair.client.send(&[7; 32], 2, Some(3), b"abcdefgh");
    pair.client.send(&[7; 32], 0, Some(3), b"abc");
    pair.client.send(&[7; 32], 0, None, b"");
    pair.client.ping(*b"12345678");
    let (at_client, at_server) = pair.run().unwrap();
    let sent = |segment_size, ecn, contents: &'static [u8]| {
        let contents = Bytes::from_static(contents);
        server::Event::Frame(Frame::Send(Datagrams { peer: [7; 32], ecn, segment_size, contents }))
    };
    assert_eq!(at_server, [sent(Some(3), 2, b"abcdefgh"), sent(None, 0, b"abc")]);
    assert_eq!(at_client, [client::Event::Frame(Frame::Pong(*b"12345678"))]);
    let batch =
        Datagrams { peer: [8; 32], ecn: 1, segment_size: Some(4), contents: Bytes::from_static(b"123456") };
    for frame in [Frame::Receive(batch), Frame::Gone([8; 32]), Frame::Status(1)] {
        assert!(pair.server.send(&frame));
        assert_eq!(pair.run().unwrap().0, [client::Event::Frame(frame)]);
    }
    // Words are for the version before.
    assert!(!pair.server.send(&Frame::Health("well".into())));
    assert!(pair.server.send(&Frame::Ping([1; 8])));
    assert_eq!(pair.run().unwrap().1, [server::Event::Frame(Frame::Pong([1; 8]))]);
    pair.client.close();
    assert_eq!(pair.run(), Err(Error::Closed(Some(1000))));
}

#[test]
fn large_batches_are_cut_and_too_much_is_dropped() {
    let mut pair = Pair::plain().connected();
    let contents = vec![1; 100_000];
    pair.client.send(&[7; 32], 0, Some(1200), &contents);
    let lens: Vec<_> = pair
        .run()
        .unwrap()
        .1
        .into_iter()
        .map(|event| match event {
            server::Event::Frame(Frame::Send(datagrams)) => datagrams.contents.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lens, [54 * 1200, 100_000 - 54 * 1200]);
    pair.client.send(&[7; 32], 0, None, &contents);
    assert_eq!((pair.client.dropped, pair.client.queued()), (1, 0));
    while pair.client.dropped == 1 {
        pair.client.send(&[7; 32], 0, None, &contents[..60_000]);
        assert!(pair.client.queued() < MAX_QUEUED + 100_000);
    }
    pair.run().unwrap();
    pair.client.send(&[7; 32], 0, None, b"x");
    assert_eq!(pair.run().unwrap().1.len(), 1);
}

#[test]
fn whoever_does_not_prove_the_key_stays_outside() {
    let mut pair = Pair::plain();
    let mut server = Server::new(Link::plain());
    server.feed(&pair.client.take()).unwrap();
    let Some(server::Event::Request(request)) = server.poll() else { panic!() };
    server.upgrade(&accept_upgrade(&request).unwrap(), &[], [5; 16]).unwrap();
    pair.client.feed(&server.take()).unwrap();
    let mut answer = pair.client.take();
    let last = answer.len() - 1;
    answer[last] ^= 1;
    assert_eq!(server.feed(&answer), Err(Error::Signature));
    assert_eq!(pair.client.feed(&server.take()), Err(Error::Denied("signature invalid".into())));
    // And who is refused for what it is.
    let (mut client, mut server) = (Client::new(Link::plain(), options()), Server::new(Link::plain()));
    server.feed(&client.take()).unwrap();
    server.poll();
    server.upgrade(&accept_upgrade(&request).unwrap(), &[], [6; 16]).unwrap();
    client.feed(&server.take()).unwrap();
    server.feed(&client.take()).unwrap();
    assert_eq!(server.poll(), Some(server::Event::Proved(public())));
    server.deny("not authorized");
    assert_eq!(client.feed(&server.take()), Err(Error::Denied("not authorized".into())));
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let mut server = Server::new(Link::plain());
    server.feed(b"GET /ping HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let target = |event| match event {
        Some(server::Event::Request(request)) => request.target,
        other => panic!("{other:?}"),
    };
    assert_eq!(target(server.poll()), "/ping");
    assert_eq!(server.poll(), None);
    server.respond(200, "OK", &[("a", "b")], b"body");
    assert_eq!(server.take(), b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 4\r\n\r\nbody");
    server.resume().unwrap();
    assert_eq!(target(server.poll()), "/healthz");
    assert_eq!(server.feed(&[b'x'; 20_000]), Err(Error::Http));
}

#[test]
fn nothing_may_come_before_the_upgrade_is_answered() {
    let mut server = Server::new(Link::plain());
    let mut bytes = Client::new(Link::plain(), options()).take();
    bytes.push(0x82);
    server.feed(&bytes).unwrap();
    let Some(server::Event::Request(request)) = server.poll() else { panic!() };
    assert_eq!(server.upgrade(&accept_upgrade(&request).unwrap(), &[], [5; 16]), Err(Error::TooEarly));
}

proptest! {
    #[test]
    fn damaged_bytes_end_in_an_error_or_not_at_all(
        at in 0usize..600, flip in 1u8.., downward: bool, extra in prop::collection::vec(any::<u8>(), 0..50)
    ) {
        let mut pair = Pair::plain().connected();
        pair.client.send(&[7; 32], 0, None, &[3; 300]);
        pair.server.send(&Frame::Receive(Datagrams {
            peer: [8; 32], ecn: 0, segment_size: None, contents: vec![4; 300].into(),
        }));
        let mut bytes = if downward { pair.server.take() } else { pair.client.take() };
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        bytes.extend_from_slice(&extra);
        let _ = if downward { pair.client.feed(&bytes) } else { pair.server.feed(&bytes) };
        // From the first byte on, too.
        let _ = Client::new(Link::plain(), options()).feed(&bytes);
        let _ = Server::new(Link::plain()).feed(&bytes);
    }
}
