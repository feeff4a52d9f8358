//! A relay and clients, joined by hand.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::time::Duration;

use aioiroh_relay::client::{self, Client};
use aioiroh_relay::frame::{Key, Version};
use aioiroh_relay::hub::{Config, Hub, News};
use aioiroh_relay::{Error, Link};

pub const A: [u8; 32] = [0x2a; 32];
pub const B: [u8; 32] = [0x2b; 32];
pub const C: [u8; 32] = [0x2c; 32];
pub const SECOND: Duration = Duration::from_secs(1);

pub fn public(secret: [u8; 32]) -> Key {
    ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key().to_bytes()
}

pub fn options(secret_key: [u8; 32]) -> client::Options {
    client::Options {
        host: "relay.test".into(),
        target: "/relay".into(),
        secret_key,
        token: None,
        entropy: [9; 24],
    }
}

pub fn config() -> Config {
    Config {
        connections: 20,
        pending: 10,
        queue_bytes: 400_000,
        queue_total: 1_000_000,
        establish_timeout: SECOND * 30,
        handshake_timeout: SECOND * 10,
        seed: 1,
    }
}

/// A relay and its clients, which are numbered as they came.
pub struct World {
    pub hub: Hub,
    pub now: Duration,
    pub clients: Vec<Client>,
    /// What each client heard.
    pub heard: Vec<Vec<client::Event>>,
    /// Why the relay, and why a client, ended a connection.
    pub over: Vec<(u64, Error)>,
    pub failed: Vec<(u64, Error)>,
    /// Bytes that are fed at once.
    pub cut: usize,
    /// Clients that take nothing.
    pub stuck: Vec<u64>,
}

impl World {
    pub fn new(config: Config) -> Self {
        Self {
            hub: Hub::new(config),
            now: SECOND,
            clients: Vec::new(),
            heard: Vec::new(),
            over: Vec::new(),
            failed: Vec::new(),
            cut: usize::MAX,
            stuck: Vec::new(),
        }
    }

    /// Another client; its number.
    pub fn join_over(&mut self, links: (Link, Link), secret: [u8; 32]) -> u64 {
        self.try_join(links, secret).unwrap()
    }

    /// The same; None: there is no room.
    pub fn try_join(&mut self, (client, server): (Link, Link), secret: [u8; 32]) -> Option<u64> {
        let number = self.hub.enter(server, self.now)?;
        self.clients.push(Client::new(client, options(secret)));
        self.heard.push(Vec::new());
        Some(number)
    }

    pub fn join(&mut self, secret: [u8; 32]) -> u64 {
        let number = self.join_over((Link::plain(), Link::plain()), secret);
        self.run();
        assert_eq!(self.take_heard(number), [client::Event::Connected(Version::V2)]);
        number
    }

    pub fn client(&mut self, number: u64) -> &mut Client {
        &mut self.clients[number as usize]
    }

    pub fn take_heard(&mut self, number: u64) -> Vec<client::Event> {
        std::mem::take(&mut self.heard[number as usize])
    }

    pub fn leave(&mut self, number: u64) {
        self.hub.leave(number);
        self.run();
    }

    /// Moves bytes until none are left, and answers as a relay does.
    pub fn run(&mut self) {
        loop {
            let mut idle = true;
            for number in 0..self.clients.len() as u64 {
                let up = self.client(number).take();
                idle &= up.is_empty();
                for piece in up.chunks(self.cut) {
                    let news = self.hub.feed(number, piece, self.now);
                    self.decide(number, news);
                }
            }
            for number in self.hub.take_ready() {
                idle = false;
                if !self.stuck.contains(&number) {
                    self.bring(number);
                }
            }
            if idle {
                return;
            }
        }
    }

    pub fn bring(&mut self, number: u64) {
        while let Some(down) = self.hub.take(number) {
            for piece in down.chunks(self.cut) {
                let client = &mut self.clients[number as usize];
                if let Err(error) = client.feed(piece) {
                    self.failed.push((number, error));
                }
                self.heard[number as usize].extend(std::iter::from_fn(|| client.poll()));
            }
        }
    }

    pub fn decide(&mut self, number: u64, news: Vec<News>) {
        for news in news {
            match news {
                News::Request(_) => match self.hub.upgrade(number, &[("x", "y")], [5; 16], self.now) {
                    Ok(more) => self.decide(number, more),
                    Err(refusal) => {
                        let more = self.hub.respond(number, 400, refusal, &[], b"");
                        self.decide(number, more);
                    }
                },
                News::Proved(..) => {
                    let (confirmed, surplus) = self.hub.confirm(number, self.now);
                    assert!(confirmed);
                    self.over.extend(surplus.map(|surplus| (surplus, Error::Replaced)));
                }
                News::Limited(_) => {}
                News::Over(error) => self.over.push((number, error)),
            }
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.hub.deadline().is_some_and(|at| at <= self.now) {
            for (number, news) in self.hub.tick(self.now) {
                self.decide(number, vec![news]);
            }
            self.run();
        }
    }
}
