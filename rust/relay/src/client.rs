//! The client's end: TLS, upgrade, proof of the key, then frames.

use std::collections::VecDeque;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use crate::channel::{Channel, Incoming};
use crate::error::Error;
use crate::frame::{BATCH_HEAD, Frame, Key, MAX_FRAME, SINGLE_HEAD, Side, Version, datagrams_head};
use crate::handshake::{self, Message};
use crate::http::{UpgradeRequest, parse_response, upgraded};
use crate::link::Link;

/// WebSocket's code for a connection that is not needed any more.
const NORMAL: u16 = 1000;

/// What a client says of itself.
#[derive(Clone)]
pub struct Options {
    /// Host of the relay, with the port if the URL has one.
    pub host: String,
    /// Path and query of the upgrade.
    pub target: String,
    pub secret_key: [u8; 32],
    /// Authorization token; visible ASCII.
    pub token: Option<String>,
    /// 24 unpredictable bytes.
    pub entropy: [u8; 24],
}

/// What came of the bytes that were fed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The relay has taken the client.
    Connected(Version),
    /// Anything but pings, which are answered.
    Frame(Frame),
}

enum State {
    Linking,
    Upgrading,
    Proving { challenged: bool },
    Open,
    Over,
}

pub struct Client {
    channel: Channel,
    state: State,
    version: Version,
    options: Options,
    events: VecDeque<Event>,
    /// Frames that came since the handshake.
    pub frames_received: u64,
    /// Datagram frames that were not taken, because too much was waiting or nobody was there to take them.
    pub dropped: u64,
}

impl Client {
    pub fn new(link: Link, options: Options) -> Self {
        let mut seed = [0; 8];
        seed.copy_from_slice(&options.entropy[16..]);
        let mut client = Self {
            channel: Channel::new(link, u64::from_le_bytes(seed)),
            state: State::Linking,
            version: Version::V2,
            options,
            events: VecDeque::new(),
            frames_received: 0,
            dropped: 0,
        };
        client.ask_for_upgrade();
        client
    }

    /// Takes what came from the relay. After an error the connection is over.
    pub fn feed(&mut self, data: &[u8]) -> Result<(), Error> {
        let result = self.advance(data);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// What happened, in order.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The bytes for the relay.
    pub fn take(&mut self) -> Vec<u8> {
        self.channel.take()
    }

    /// Bytes that wait to be taken.
    pub fn queued(&self) -> usize {
        self.channel.queued()
    }

    /// Whether frames can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Sends datagrams to a peer, several of `segment_size` bytes each if it is given. What cannot go is dropped and
    /// counted: datagrams may be lost anywhere.
    pub fn send(&mut self, peer: &Key, ecn: u8, segment_size: Option<u16>, contents: &[u8]) {
        let segment_size = segment_size.filter(|size| *size > 0 && usize::from(*size) < contents.len());
        let most = match segment_size {
            Some(size) => (MAX_FRAME - BATCH_HEAD) / usize::from(size) * usize::from(size),
            None => MAX_FRAME - SINGLE_HEAD,
        };
        if segment_size.is_none() && contents.len() > most || most == 0 {
            self.dropped += 1;
            return;
        }
        for contents in contents.chunks(most) {
            let segment_size = segment_size.filter(|size| contents.len() > usize::from(*size));
            let (head, len) = datagrams_head(true, peer, ecn, segment_size);
            if !self.is_open() || !self.channel.send(&[&head[..len], contents]) {
                self.dropped += 1;
            }
        }
    }

    pub fn ping(&mut self, data: [u8; 8]) {
        self.send_frame(&Frame::Ping(data));
    }

    /// Says that the connection is not needed any more.
    pub fn close(&mut self) {
        if !matches!(self.state, State::Over) {
            self.state = State::Over;
            self.channel.close(NORMAL);
        }
    }

    fn send_frame(&mut self, frame: &Frame) {
        let mut bytes = Vec::with_capacity(16);
        frame.encode(&mut bytes);
        if self.is_open() {
            self.channel.send(&[&bytes]);
        }
    }

    fn advance(&mut self, data: &[u8]) -> Result<(), Error> {
        let (heard, result) = match self.state {
            State::Over => return Ok(()),
            State::Linking | State::Upgrading => {
                self.channel.feed_head(data)?;
                self.ask_for_upgrade();
                let Some(head_len) = self.upgrade()? else { return Ok(()) };
                self.channel.upgraded(head_len)
            }
            State::Proving { .. } | State::Open => self.channel.feed_messages(data),
        };
        for incoming in heard {
            match incoming {
                Incoming::Message(message) => self.message(&message)?,
                Incoming::Close(code) => return Err(Error::Closed(code)),
            }
        }
        result
    }

    fn ask_for_upgrade(&mut self) {
        if !matches!(self.state, State::Linking) || !self.channel.link.is_open() {
            return;
        }
        self.state = State::Upgrading;
        let key = SigningKey::from_bytes(&self.options.secret_key);
        let material = self.channel.link.keying_material(key.verifying_key().as_bytes());
        let auth = material.map(|material| handshake::header(&key, &material));
        let request = UpgradeRequest {
            host: &self.options.host,
            target: &self.options.target,
            key: self.websocket_key(),
            token: self.options.token.as_deref(),
            auth: auth.as_deref(),
        };
        let head = request.encode();
        self.channel.write_head(head.as_bytes());
    }

    fn websocket_key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&self.options.entropy[..16]);
        key
    }

    /// How long the response to the upgrade is, once it is there and good.
    fn upgrade(&mut self) -> Result<Option<usize>, Error> {
        let Some((response, len)) = parse_response(&self.channel.head).map_err(|_| Error::Http)? else {
            return Ok(None);
        };
        self.version = upgraded(&response, &self.websocket_key()).map_err(Error::NotUpgraded)?;
        self.state = State::Proving { challenged: false };
        Ok(Some(len))
    }

    fn message(&mut self, message: &Bytes) -> Result<(), Error> {
        if let State::Proving { challenged } = self.state {
            return self.prove(Message::decode(message)?, challenged);
        }
        self.frames_received += 1;
        match Frame::decode(message, Side::Client, self.version)? {
            Frame::Ping(data) => self.send_frame(&Frame::Pong(data)),
            frame => self.events.push_back(Event::Frame(frame)),
        }
        Ok(())
    }

    fn prove(&mut self, message: Message, challenged: bool) -> Result<(), Error> {
        match message {
            Message::Challenge(challenge) if !challenged => {
                let key = SigningKey::from_bytes(&self.options.secret_key);
                let mut bytes = Vec::with_capacity(98);
                handshake::answer(&key, &challenge).encode(&mut bytes);
                self.channel.send(&[&bytes]);
                self.state = State::Proving { challenged: true };
                Ok(())
            }
            Message::Confirms => {
                self.state = State::Open;
                self.events.push_back(Event::Connected(self.version));
                Ok(())
            }
            Message::Denies(reason) => Err(Error::Denied(reason)),
            Message::Challenge(_) | Message::ClientAuth { .. } => Err(Error::Handshake),
        }
    }
}
