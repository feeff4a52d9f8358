//! What both ends of a relay connection are made of: a link, then WebSocket messages on it.

use bytes::Bytes;

use crate::link::{Link, MAX_QUEUED};
use crate::websocket::{self, Broken, Kind, Message};

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
    masks: Option<Masks>,
    reader: websocket::Reader,
    /// Bytes that came in clear and are no WebSocket yet.
    pub(crate) head: Vec<u8>,
    scratch: Vec<u8>,
    /// Bytes given since the last [`take`](Self::take).
    queued: usize,
}

impl Channel {
    /// `mask_seed` for a client.
    pub(crate) fn new(link: Link, mask_seed: Option<u64>) -> Self {
        Self {
            link,
            masks: mask_seed.map(|seed| Masks(seed | 1)),
            reader: websocket::Reader::new(mask_seed.is_none()),
            head: Vec::new(),
            scratch: Vec::new(),
            queued: 0,
        }
    }

    /// What came in `head` from here on is WebSocket.
    pub(crate) fn upgraded(&mut self, head_len: usize) {
        self.reader.feed(&self.head[head_len..]);
        self.head = Vec::new();
    }

    pub(crate) fn feed_messages(&mut self, data: &[u8]) -> Result<(), rustls::Error> {
        self.scratch.clear();
        self.link.feed(data, &mut self.scratch)?;
        self.reader.feed(&self.scratch);
        Ok(())
    }

    pub(crate) fn feed_head(&mut self, data: &[u8]) -> Result<(), rustls::Error> {
        self.link.feed(data, &mut self.head)
    }

    /// The next binary message. Pings are answered, text is ignored; a close is given as None in the error's place.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Broken> {
        loop {
            match self.reader.next()? {
                None => return Ok(None),
                Some(Message::Binary(message)) => return Ok(Some(Incoming::Message(message))),
                Some(Message::Close(code)) => return Ok(Some(Incoming::Close(code))),
                Some(Message::Ping(content)) => self.put(Kind::Pong, &[&content]),
                Some(Message::Text | Message::Pong) => {}
            }
        }
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
        let mask = self.masks.as_mut().map(Masks::next);
        websocket::write(kind, pieces, mask, &mut self.scratch);
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

pub(crate) enum Incoming {
    Message(Bytes),
    Close(Option<u16>),
}
