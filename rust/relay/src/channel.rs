//! What a client's connection is made of: a link, then WebSocket messages on it.

use bytes::Bytes;

use crate::error::Error;
use crate::link::{Link, MAX_QUEUED};
use crate::websocket::{self, Kind, MAX_MESSAGE, Messages, Piece};

/// Masks for what a client sends (RFC 6455, section 5.3). They are there against proxies that take
/// the content of a browser's messages for requests; no secret depends on them.
struct Masks(u64);

impl Masks {
    fn next(&mut self) -> [u8; 4] {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [a, b, c, d, ..] = (self.0 >> 16).to_le_bytes();
        [a, b, c, d]
    }
}

pub(crate) struct Channel {
    pub(crate) link: Link,
    masks: Masks,
    messages: Messages,
    /// Bytes that came in clear and are no WebSocket yet.
    pub(crate) head: Vec<u8>,
    scratch: Vec<u8>,
    /// Bytes given since the last [`take`](Self::take).
    queued: usize,
}

impl Channel {
    pub(crate) fn new(link: Link, mask_seed: u64) -> Self {
        Self {
            link,
            masks: Masks(mask_seed | 1),
            messages: Messages::new(false, MAX_MESSAGE),
            head: Vec::new(),
            scratch: Vec::new(),
            queued: 0,
        }
    }

    /// What came in `head` from here on is WebSocket.
    pub(crate) fn upgraded(&mut self, head_len: usize) -> Heard {
        let head = std::mem::take(&mut self.head);
        self.sort(&head[head_len..])
    }

    pub(crate) fn feed_messages(&mut self, data: &[u8]) -> Heard {
        if !self.link.is_tls() {
            return self.sort(data);
        }
        let mut clear = std::mem::take(&mut self.scratch);
        clear.clear();
        if let Err(error) = self.link.feed(data, &mut clear) {
            return (Vec::new(), Err(error.into()));
        }
        let heard = self.sort(&clear);
        self.scratch = clear;
        heard
    }

    /// The messages; pings are answered.
    fn sort(&mut self, clear: &[u8]) -> Heard {
        let (mut all, mut pings) = (Vec::new(), Vec::new());
        let result = self.messages.feed(clear, |piece| {
            match piece {
                Piece::Binary(content) => all.push(Incoming::Message(content.to_bytes())),
                Piece::Ping(content) => pings.push(content.to_bytes()),
                Piece::Close(code) => all.push(Incoming::Close(code)),
            }
            Ok(())
        });
        for content in pings {
            self.put(Kind::Pong, &[&content]);
        }
        (all, result)
    }

    pub(crate) fn feed_head(&mut self, data: &[u8]) -> Result<(), rustls::Error> {
        self.link.feed(data, &mut self.head)
    }

    /// Sends a binary message that is the pieces one after the other. False: too much is waiting, it was not taken.
    pub(crate) fn send(&mut self, pieces: &[&[u8]]) -> bool {
        let room = self.queued < MAX_QUEUED;
        if room {
            self.put(Kind::Binary, pieces);
        }
        room
    }

    pub(crate) fn close(&mut self, code: u16) {
        self.put(Kind::Close, &[&code.to_be_bytes()]);
        self.link.close();
    }

    fn put(&mut self, kind: Kind, pieces: &[&[u8]]) {
        self.scratch.clear();
        websocket::write(kind, pieces, Some(self.masks.next()), &mut self.scratch);
        self.queued += self.scratch.len();
        self.link.write(&self.scratch);
    }

    pub(crate) fn write_head(&mut self, head: &[u8]) {
        self.queued += head.len();
        self.link.write(head);
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.queued = 0;
        self.link.take()
    }

    /// Bytes that wait to be taken.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }
}

/// What came, and whether nothing more can.
pub(crate) type Heard = (Vec<Incoming>, Result<(), Error>);

pub(crate) enum Incoming {
    Message(Bytes),
    Close(Option<u16>),
}
