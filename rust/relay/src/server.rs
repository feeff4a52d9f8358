//! The relay's end of one connection: TLS, HTTP requests, the upgrade of one of them, the proof of the key, then
//! frames.
//!
//! It decides nothing, and it holds nothing that is to be sent but TLS' own bytes and answers: see [`crate::hub`].

use bytes::Bytes;

use crate::error::Error;
use crate::frame::{Frame, Key, MAX_PAYLOAD, Side, Version};
use crate::handshake::{self, AUTH_HEADER, Claim, Message};
use crate::http::{MAX_HEAD, Request, Upgrade, encode_response, parse_request};
use crate::link::Link;
use crate::websocket::{self, Kind, Masked, Messages, Piece};

/// The largest message: a frame with the longest form of its type number.
const MAX_MESSAGE: usize = MAX_PAYLOAD + 8;
const SEND: u8 = 4;
const SEND_BATCH: u8 = 5;

/// Datagrams to be forwarded, where they lie.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// For whom.
    pub peer: Key,
    pub ecn: u8,
    pub segment_size: Option<u16>,
    pub contents: Masked<'a>,
}

/// What came of the bytes that were fed.
#[derive(Debug)]
pub enum Event<'a> {
    /// To be answered by [`Server::respond`] or [`Server::upgrade`]; the next one comes after that.
    Request(&'a Request),
    /// The client has proved its key; to be answered by [`Server::confirm`] or [`Server::deny`].
    Proved(Key),
    Parcel(Parcel<'a>),
    /// To be answered by a pong with the same bytes.
    Ping([u8; 8]),
    Pong([u8; 8]),
    /// A ping of WebSocket, to be answered by its pong with the same content.
    Echo(Masked<'a>),
}

enum State {
    /// Between requests.
    Idle {
        head: Vec<u8>,
    },
    /// A request waits for its answer.
    Asked {
        request: Box<Request>,
        head: Vec<u8>,
    },
    Proving {
        challenge: [u8; 16],
    },
    /// It waits to be let in.
    Proved,
    Open,
    Over,
}

pub struct Server {
    link: Link,
    messages: Messages,
    state: State,
    version: Version,
}

impl Server {
    pub fn new(link: Link) -> Self {
        Self {
            link,
            messages: Messages::new(true, MAX_MESSAGE),
            state: State::Idle { head: Vec::new() },
            version: Version::V2,
        }
    }

    /// Takes what came from the client and calls `hear` with what it means. After an error the connection is over.
    /// `scratch` is room for what was encrypted; any number of connections can share it.
    pub fn feed(
        &mut self,
        data: &[u8],
        scratch: &mut Vec<u8>,
        hear: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let result = self.advance(data, scratch, hear);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the upgrade was answered.
    pub fn is_upgraded(&self) -> bool {
        matches!(self.state, State::Proving { .. } | State::Proved | State::Open)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Answers a request that is no upgrade, and goes on with the next one if it has come. The body of a request is
    /// taken for the next request: close the connection after answering one that has any.
    pub fn respond(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        hear: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if let State::Asked { head, .. } = &mut self.state {
            let head = std::mem::take(head);
            self.link.write(&encode_response(status, reason, headers, body));
            self.state = State::Idle { head };
            if let Err(error) = self.next_request(hear) {
                self.state = State::Over;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The request that waits for an answer.
    pub fn request(&self) -> Option<&Request> {
        match &self.state {
            State::Asked { request, .. } => Some(request),
            _ => None,
        }
    }

    /// Answers a request by an upgrade, and asks for the key unless the header has proved it. `challenge`: 16
    /// unpredictable bytes.
    pub fn upgrade(
        &mut self,
        upgrade: &Upgrade,
        headers: &[(&str, &str)],
        challenge: [u8; 16],
        hear: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let State::Asked { request, head } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Error::Handshake);
        };
        if !head.is_empty() {
            return Err(Error::TooEarly);
        }
        let mut all = vec![
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", upgrade.accept.as_str()),
            ("sec-websocket-protocol", upgrade.version.name()),
        ];
        all.extend_from_slice(headers);
        self.link.write(&encode_response(101, "Switching Protocols", &all, b""));
        self.version = upgrade.version;
        match self.proved_by_header(&request)? {
            Some(key) => {
                self.state = State::Proved;
                hear(Event::Proved(key));
            }
            None => {
                send(&mut self.link, &Message::Challenge(challenge));
                self.state = State::Proving { challenge };
            }
        }
        Ok(())
    }

    /// Lets the client in.
    pub fn confirm(&mut self) -> bool {
        let proved = matches!(self.state, State::Proved);
        if proved {
            send(&mut self.link, &Message::Confirms);
            self.state = State::Open;
        }
        proved
    }

    /// Sends the client away; the connection is over once the bytes are taken.
    pub fn deny(&mut self, reason: &str) {
        if matches!(self.state, State::Proved) {
            send(&mut self.link, &Message::Denies(reason.to_owned()));
            self.state = State::Over;
        }
    }

    /// Bytes for the client: what waits inside, then these messages.
    pub fn take(&mut self, messages: Vec<u8>) -> Vec<u8> {
        self.link.wrap(messages)
    }

    pub fn is_tls(&self) -> bool {
        self.link.is_tls()
    }

    /// Whether something waits inside.
    pub fn has_output(&self) -> bool {
        self.link.has_output()
    }

    fn advance(
        &mut self,
        data: &[u8],
        scratch: &mut Vec<u8>,
        hear: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        match &mut self.state {
            State::Over => return Ok(()),
            State::Idle { head } => {
                self.link.feed(data, head)?;
                return self.next_request(hear);
            }
            State::Asked { head, .. } => {
                self.link.feed(data, head)?;
                // Who does not wait for answers gets no memory for questions.
                return if head.len() > MAX_HEAD { Err(Error::Http) } else { Ok(()) };
            }
            State::Proving { .. } | State::Proved | State::Open => {}
        }
        let clear = if self.link.is_tls() {
            scratch.clear();
            self.link.feed(data, scratch)?;
            &scratch[..]
        } else {
            data
        };
        let Self { link, messages, state, version } = self;
        messages.feed(clear, |piece| match piece {
            Piece::Binary(message) => match state {
                State::Open => read(message, *version, hear),
                State::Proving { challenge } => {
                    let key = prove(&message.to_bytes(), challenge, link)?;
                    *state = State::Proved;
                    hear(Event::Proved(key));
                    Ok(())
                }
                // Nothing may come before the answer.
                _ => Err(Error::TooEarly),
            },
            Piece::Ping(content) => {
                hear(Event::Echo(content));
                Ok(())
            }
            Piece::Close(code) => Err(Error::Closed(code)),
        })
    }

    fn next_request(&mut self, hear: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let State::Idle { head } = &mut self.state else { return Ok(()) };
        let Some((request, len)) = parse_request(head).map_err(|_| Error::Http)? else { return Ok(()) };
        let head = head.split_off(len);
        hear(Event::Request(&request));
        self.state = State::Asked { request: Box::new(request), head };
        Ok(())
    }

    /// None: ask in the other way.
    fn proved_by_header(&self, request: &Request) -> Result<Option<Key>, Error> {
        let Some(header) = request.headers.text(AUTH_HEADER) else { return Ok(None) };
        let claim = Claim::parse(header).ok_or(Error::Handshake)?;
        let material = self.link.keying_material(&claim.key);
        Ok(material.filter(|material| claim.holds(material)).map(|_| claim.key))
    }
}

/// A frame of a client. Those with datagrams are taken apart where they lie, all others by the decoder.
fn read(message: Masked<'_>, version: Version, hear: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
    if let Some(parcel) = parcel(&message) {
        hear(Event::Parcel(parcel));
        return Ok(());
    }
    match Frame::decode(&message.to_bytes(), Side::Server, version)? {
        Frame::Ping(data) => hear(Event::Ping(data)),
        Frame::Pong(data) => hear(Event::Pong(data)),
        Frame::Send(datagrams) => hear(Event::Parcel(Parcel {
            peer: datagrams.peer,
            ecn: datagrams.ecn,
            segment_size: datagrams.segment_size,
            contents: Masked::plain(&datagrams.contents),
        })),
        // The decoder lets no others pass to a relay.
        _ => {}
    }
    Ok(())
}

/// Datagrams, if the message is a usual frame of them in which nothing is wrong.
fn parcel<'a>(message: &Masked<'a>) -> Option<Parcel<'a>> {
    let head: [u8; 34] = message.first()?;
    let (segment_size, start) = match head[0] {
        SEND => (None, 34),
        SEND_BATCH => {
            let size: [u8; 2] = message.skip(34).first()?;
            (Some(u16::from_be_bytes(size)).filter(|size| *size > 0), 36)
        }
        _ => return None,
    };
    if message.len() <= start || message.len() > MAX_PAYLOAD + 1 {
        return None;
    }
    let mut peer = [0; 32];
    peer.copy_from_slice(&head[1..33]);
    Some(Parcel { peer, ecn: head[33] & 3, segment_size, contents: message.skip(start) })
}

fn prove(message: &Bytes, challenge: &[u8; 16], link: &mut Link) -> Result<Key, Error> {
    let Message::ClientAuth { key, signature } = Message::decode(message)? else {
        return Err(Error::Handshake);
    };
    if !handshake::answers(&key, &signature, challenge) {
        send(link, &Message::Denies("signature invalid".to_owned()));
        return Err(Error::Signature);
    }
    Ok(key)
}

fn send(link: &mut Link, message: &Message) {
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    message.encode(&mut bytes);
    websocket::write(Kind::Binary, &[&bytes], None, &mut out);
    link.write(&out);
}
