//! The relay's end: TLS, HTTP requests, the upgrade of one of them, the proof of the key, then frames.
//!
//! It decides nothing: requests are answered, and clients let in, by whoever drives it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::channel::{Channel, Incoming};
use crate::error::Error;
use crate::frame::{Frame, Key, Side, Version};
use crate::handshake::{self, AUTH_HEADER, Claim, Message};
use crate::http::{Request, Upgrade, encode_response, parse_request};
use crate::link::Link;

/// What came of the bytes that were fed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be answered by [`Server::respond`] or [`Server::upgrade`]; the next one comes after that.
    Request(Request),
    /// The client has proved its key; to be answered by [`Server::confirm`] or [`Server::deny`].
    Proved(Key),
    /// Anything but pings, which are answered.
    Frame(Frame),
}

enum State {
    /// Between requests.
    Idle,
    /// A request waits for its answer.
    Asked(Box<Request>),
    Proving {
        challenge: [u8; 16],
    },
    /// It waits to be let in.
    Proved,
    Open,
    Over,
}

pub struct Server {
    channel: Channel,
    state: State,
    version: Version,
    events: VecDeque<Event>,
    /// Pings that were answered.
    pub pings_received: u64,
    pub frames_received: u64,
}

impl Server {
    pub fn new(link: Link) -> Self {
        Self {
            channel: Channel::new(link, None),
            state: State::Idle,
            version: Version::V2,
            events: VecDeque::new(),
            pings_received: 0,
            frames_received: 0,
        }
    }

    /// Takes what came from the client. After an error the connection is over.
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

    /// The bytes for the client.
    pub fn take(&mut self) -> Vec<u8> {
        self.channel.take()
    }

    /// Bytes that wait to be taken.
    pub fn queued(&self) -> usize {
        self.channel.queued()
    }

    /// Whether TLS is done, or there is none.
    pub fn is_linked(&self) -> bool {
        self.channel.link.is_open()
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Answers a request that is no upgrade. The body of the request, if there is one, is taken for the next request:
    /// close the connection after answering such.
    pub fn respond(&mut self, status: u16, reason: &str, headers: &[(&str, &str)], body: &[u8]) {
        if matches!(self.state, State::Asked(_)) {
            self.channel.write_head(&encode_response(status, reason, headers, body));
            self.state = State::Idle;
        }
    }

    /// Goes on with the requests that came together with the one that was answered.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.feed(&[])
    }

    /// Answers a request by an upgrade, and asks for the key unless the header has proved it. `challenge`: 16
    /// unpredictable bytes.
    pub fn upgrade(
        &mut self,
        upgrade: &Upgrade,
        headers: &[(&str, &str)],
        challenge: [u8; 16],
    ) -> Result<(), Error> {
        let State::Asked(request) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Error::Handshake);
        };
        if !self.channel.head.is_empty() {
            return Err(Error::TooEarly);
        }
        let mut all = vec![
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", upgrade.accept.as_str()),
            ("sec-websocket-protocol", upgrade.version.name()),
        ];
        all.extend_from_slice(headers);
        self.channel.write_head(&encode_response(101, "Switching Protocols", &all, b""));
        self.channel.upgraded(0);
        self.version = upgrade.version;
        match self.proved_by_header(&request)? {
            Some(key) => self.proved(key),
            None => {
                self.send_message(&Message::Challenge(challenge));
                self.state = State::Proving { challenge };
            }
        }
        Ok(())
    }

    /// Lets the client in.
    pub fn confirm(&mut self) {
        if matches!(self.state, State::Proved) {
            self.send_message(&Message::Confirms);
            self.state = State::Open;
        }
    }

    /// Sends the client away; the connection is over once the bytes are taken.
    pub fn deny(&mut self, reason: &str) {
        if matches!(self.state, State::Proved) {
            self.send_message(&Message::Denies(reason.to_owned()));
            self.state = State::Over;
        }
    }

    /// Sends a frame; false if too much is waiting already, and for what the client's version does not know.
    pub fn send(&mut self, frame: &Frame) -> bool {
        let known = match frame {
            Frame::Health(_) => self.version == Version::V1,
            Frame::Status(_) => self.version == Version::V2,
            _ => true,
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        known && self.is_open() && self.channel.send(&[&bytes])
    }

    fn send_message(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.channel.send(&[&bytes]);
    }

    fn advance(&mut self, data: &[u8]) -> Result<(), Error> {
        match self.state {
            State::Over => return Ok(()),
            State::Idle => {
                self.channel.feed_head(data)?;
                return self.next_request();
            }
            State::Asked(_) => {
                self.channel.feed_head(data)?;
                // Who does not wait for answers gets no memory for questions.
                let full = self.channel.head.len() > crate::http::MAX_HEAD;
                return if full { Err(Error::Http) } else { Ok(()) };
            }
            State::Proving { .. } | State::Proved | State::Open => self.channel.feed_messages(data)?,
        }
        while let Some(incoming) = self.channel.next()? {
            match incoming {
                Incoming::Message(message) => self.message(&message)?,
                Incoming::Close(code) => return Err(Error::Closed(code)),
            }
        }
        Ok(())
    }

    fn next_request(&mut self) -> Result<(), Error> {
        let Some((request, len)) = parse_request(&self.channel.head).map_err(|_| Error::Http)? else {
            return Ok(());
        };
        self.channel.head.drain(..len);
        self.events.push_back(Event::Request(request.clone()));
        self.state = State::Asked(Box::new(request));
        Ok(())
    }

    /// None: ask in the other way.
    fn proved_by_header(&self, request: &Request) -> Result<Option<Key>, Error> {
        let Some(header) = request.headers.text(AUTH_HEADER) else { return Ok(None) };
        let claim = Claim::parse(header).ok_or(Error::Handshake)?;
        let material = self.channel.link.keying_material(&claim.key);
        Ok(material.filter(|material| claim.holds(material)).map(|_| claim.key))
    }

    fn proved(&mut self, key: Key) {
        self.state = State::Proved;
        self.events.push_back(Event::Proved(key));
    }

    fn message(&mut self, message: &Bytes) -> Result<(), Error> {
        match self.state {
            State::Open => {}
            State::Proving { challenge } => return self.prove(message, &challenge),
            // Nothing may come before the answer.
            _ => return Err(Error::TooEarly),
        }
        self.frames_received += 1;
        match Frame::decode(message, Side::Server, self.version)? {
            Frame::Ping(data) => {
                self.pings_received += 1;
                self.send(&Frame::Pong(data));
            }
            frame => self.events.push_back(Event::Frame(frame)),
        }
        Ok(())
    }

    fn prove(&mut self, message: &Bytes, challenge: &[u8; 16]) -> Result<(), Error> {
        let Message::ClientAuth { key, signature } = Message::decode(message)? else {
            return Err(Error::Handshake);
        };
        if !handshake::answers(&key, &signature, challenge) {
            self.send_message(&Message::Denies("signature invalid".to_owned()));
            return Err(Error::Signature);
        }
        self.proved(key);
        Ok(())
    }
}
