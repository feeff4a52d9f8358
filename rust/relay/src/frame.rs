//! What travels in a WebSocket message: a type number and a payload (relay protocol, section 3).
//!
//! Decoding is total: every message is a frame or one [`FrameError`]. Both ends refuse the same
//! things upstream refuses, and empty datagrams besides: upstream lets them pass on arrival, and one of them
//! then costs the recipient its connection.

use bytes::Bytes;

/// An Ed25519 public key, as the wire has it.
pub type Key = [u8; 32];

/// The largest payload behind the type number.
pub const MAX_PAYLOAD: usize = 65_536;
/// The largest frame that is sent, type number included.
pub const MAX_FRAME: usize = 65_536;
/// Type number, key, ECN and segment size before the content of a batch.
pub const BATCH_HEAD: usize = 1 + 32 + 1 + 2;
/// The same before a single datagram.
pub const SINGLE_HEAD: usize = 1 + 32 + 1;

/// The versions that exist. The later one says with codes what the earlier one said in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// As the subprotocol is called in the WebSocket upgrade.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "iroh-relay-v1",
            Self::V2 => "iroh-relay-v2",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::V2, Self::V1].into_iter().find(|version| version.name() == name)
    }
}

/// One datagram, or several of `segment_size` bytes each, of which the last may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagrams {
    /// The receiver on the way to the relay, the sender on the way from it.
    pub peer: Key,
    /// Explicit congestion notification: 0 none, 1 ECT(1), 2 ECT(0), 3 CE.
    pub ecn: u8,
    pub segment_size: Option<u16>,
    pub contents: Bytes,
}

impl Datagrams {
    /// Cuts off the first `count` segments; all of it if there are no more.
    pub fn take(&mut self, count: usize) -> Self {
        let size = self.segment_size.map_or(usize::MAX, usize::from);
        let len = size.saturating_mul(count).min(self.contents.len());
        let taken = Self {
            peer: self.peer,
            ecn: self.ecn,
            segment_size: self.segment_size.filter(|_| len > size),
            contents: self.contents.split_to(len),
        };
        if self.contents.len() <= size {
            self.segment_size = None;
        }
        taken
    }
}

/// Frames of either side after the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the relay: for the peer named in it.
    Send(Datagrams),
    /// From the relay: sent by the peer named in it.
    Receive(Datagrams),
    /// That endpoint has left the relay.
    Gone(Key),
    Ping([u8; 8]),
    Pong([u8; 8]),
    /// What troubles the relay, in words (version 1).
    Health(String),
    Restarting {
        reconnect_in_ms: u32,
        try_for_ms: u32,
    },
    /// What troubles the relay, as a code (version 2).
    Status(u8),
}

/// Who reads: some frames go one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A message that is no frame. Fatal for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// No type number.
    Empty,
    /// A type that does not exist, or not in this direction or version.
    UnexpectedType(u64),
    /// The payload has the wrong length for its type.
    Length { frame_type: u64, length: usize },
    /// Text that is not UTF-8.
    Text,
    /// A datagram without content.
    NoContent,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "a message without a type"),
            Self::UnexpectedType(number) => write!(f, "a frame of type {number}, which must not come here"),
            Self::Length { frame_type, length } => {
                write!(f, "a frame of type {frame_type} with a payload of {length} bytes")
            }
            Self::Text => write!(f, "a text that is not UTF-8"),
            Self::NoContent => write!(f, "a datagram without content"),
        }
    }
}

const SEND: u64 = 4;
const SEND_BATCH: u64 = 5;
const RECEIVE: u64 = 6;
const RECEIVE_BATCH: u64 = 7;
const GONE: u64 = 8;
const PING: u64 = 9;
const PONG: u64 = 10;
const HEALTH: u64 = 11;
const RESTARTING: u64 = 12;
const STATUS: u64 = 13;

/// The type number at the start of a message and what follows it. Longer forms than needed are taken.
pub fn split_type(message: &Bytes) -> Result<(u64, Bytes), FrameError> {
    let first = *message.first().ok_or(FrameError::Empty)?;
    let len = 1 << (first >> 6);
    let number = message.get(..len).ok_or(FrameError::Empty)?;
    let value = number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    // The two top bits say how long it is.
    let mask = u64::MAX >> (64 - 8 * len + 2);
    Ok((value & mask, message.slice(len..)))
}

impl Frame {
    /// Reads a message that came to `side`. Whether 32 bytes are a public key is not looked at: nobody is known by
    /// others.
    pub fn decode(message: &Bytes, side: Side, version: Version) -> Result<Self, FrameError> {
        let (frame_type, payload) = split_type(message)?;
        let wrong = FrameError::Length { frame_type, length: payload.len() };
        if payload.len() > MAX_PAYLOAD {
            return Err(wrong);
        }
        let to_client = side == Side::Client;
        match frame_type {
            SEND | SEND_BATCH if !to_client => {
                datagrams(&payload, frame_type == SEND_BATCH).ok_or(wrong).and_then(filled).map(Self::Send)
            }
            RECEIVE | RECEIVE_BATCH if to_client => datagrams(&payload, frame_type == RECEIVE_BATCH)
                .ok_or(wrong)
                .and_then(filled)
                .map(Self::Receive),
            GONE if to_client => exactly(&payload).ok_or(wrong).map(Self::Gone),
            PING => exactly(&payload).ok_or(wrong).map(Self::Ping),
            PONG => exactly(&payload).ok_or(wrong).map(Self::Pong),
            HEALTH if to_client && version == Version::V1 => {
                String::from_utf8(payload.to_vec()).map(Self::Health).map_err(|_| FrameError::Text)
            }
            RESTARTING if to_client => {
                let bytes: [u8; 8] = exactly(&payload).ok_or(wrong)?;
                let number =
                    |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Ok(Self::Restarting { reconnect_in_ms: number(0), try_for_ms: number(4) })
            }
            // What may follow the code is for later versions.
            STATUS if to_client && version == Version::V2 => {
                payload.first().copied().map(Self::Status).ok_or(wrong)
            }
            other => Err(FrameError::UnexpectedType(other)),
        }
    }

    /// Appends the message that carries the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Send(datagrams) => encode_datagrams(SEND, datagrams, out),
            Self::Receive(datagrams) => encode_datagrams(RECEIVE, datagrams, out),
            Self::Gone(key) => {
                out.push(GONE as u8);
                out.extend_from_slice(key);
            }
            Self::Ping(data) => {
                out.push(PING as u8);
                out.extend_from_slice(data);
            }
            Self::Pong(data) => {
                out.push(PONG as u8);
                out.extend_from_slice(data);
            }
            Self::Health(text) => {
                out.push(HEALTH as u8);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Restarting { reconnect_in_ms, try_for_ms } => {
                out.push(RESTARTING as u8);
                out.extend_from_slice(&reconnect_in_ms.to_be_bytes());
                out.extend_from_slice(&try_for_ms.to_be_bytes());
            }
            Self::Status(code) => out.extend_from_slice(&[STATUS as u8, *code]),
        }
    }
}

/// The head of a frame with datagrams, for content that follows from elsewhere.
pub fn datagrams_head(
    to_relay: bool,
    peer: &Key,
    ecn: u8,
    segment_size: Option<u16>,
) -> ([u8; BATCH_HEAD], usize) {
    let mut head = [0; BATCH_HEAD];
    let single = if to_relay { SEND } else { RECEIVE };
    head[0] = single as u8 + u8::from(segment_size.is_some());
    head[1..33].copy_from_slice(peer);
    head[33] = ecn & 3;
    match segment_size {
        Some(size) => {
            head[34..36].copy_from_slice(&size.to_be_bytes());
            (head, BATCH_HEAD)
        }
        None => (head, SINGLE_HEAD),
    }
}

fn encode_datagrams(single: u64, datagrams: &Datagrams, out: &mut Vec<u8>) {
    let (head, len) = datagrams_head(single == SEND, &datagrams.peer, datagrams.ecn, datagrams.segment_size);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(&datagrams.contents);
}

fn datagrams(payload: &Bytes, batch: bool) -> Option<Datagrams> {
    let peer: Key = payload.get(..32)?.try_into().ok()?;
    let ecn = payload.get(32)? & 3;
    let (segment_size, start) = match batch {
        true => (Some(u16::from_be_bytes([*payload.get(33)?, *payload.get(34)?])), 35),
        false => (None, 33),
    };
    // A size of zero means that it is a single one.
    let segment_size = segment_size.filter(|size| *size > 0);
    Some(Datagrams { peer, ecn, segment_size, contents: payload.slice(start..) })
}

fn filled(datagrams: Datagrams) -> Result<Datagrams, FrameError> {
    if datagrams.contents.is_empty() { Err(FrameError::NoContent) } else { Ok(datagrams) }
}

fn exactly<const N: usize>(payload: &Bytes) -> Option<[u8; N]> {
    payload[..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [
        0x19, 0x7f, 0x6b, 0x23, 0xe1, 0x6c, 0x85, 0x32, 0xc6, 0xab, 0xc8, 0x38, 0xfa, 0xcd, 0x5e, 0xa7, 0x89,
        0xbe, 0x0c, 0x76, 0xb2, 0x92, 0x03, 0x34, 0x03, 0x9b, 0xfa, 0x8b, 0x3d, 0x36, 0x8d, 0x61,
    ];

    fn hello(segment_size: Option<u16>) -> Datagrams {
        Datagrams { peer: KEY, ecn: 3, segment_size, contents: Bytes::from_static(b"Hello World!") }
    }

    #[test]
    fn vectors_of_the_reference() {
        let single = [&[3][..], b"Hello World!"].concat();
        let batch = [&[3, 0, 6][..], b"Hello World!"].concat();
        let with_key = |number: u8, rest: &[u8]| [&[number][..], &KEY, rest].concat();
        let cases = [
            (Frame::Send(hello(None)), Side::Server, with_key(4, &single)),
            (Frame::Send(hello(Some(6))), Side::Server, with_key(5, &batch)),
            (Frame::Receive(hello(None)), Side::Client, with_key(6, &single)),
            (Frame::Receive(hello(Some(6))), Side::Client, with_key(7, &batch)),
            (Frame::Gone(KEY), Side::Client, with_key(8, b"")),
            (Frame::Ping([0x2a; 8]), Side::Client, [&[9][..], &[0x2a; 8]].concat()),
            (Frame::Pong([0x2a; 8]), Side::Server, [&[10][..], &[0x2a; 8]].concat()),
            (
                Frame::Restarting { reconnect_in_ms: 10, try_for_ms: 20 },
                Side::Client,
                vec![12, 0, 0, 0, 10, 0, 0, 0, 20],
            ),
            (Frame::Status(1), Side::Client, vec![13, 1]),
            (Frame::Status(2), Side::Client, vec![13, 2]),
        ];
        for (frame, side, bytes) in cases {
            let mut out = Vec::new();
            frame.encode(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(Frame::decode(&bytes.into(), side, Version::V2), Ok(frame));
        }
    }

    #[test]
    fn batches_are_cut_between_segments() {
        let mut batch = Datagrams { peer: KEY, ecn: 0, segment_size: Some(4), contents: (0..14).collect() };
        let part = |range: std::ops::Range<u8>, segment_size| Datagrams {
            segment_size,
            contents: range.collect(),
            ..batch.clone()
        };
        let (first, second, third) = (part(0..8, Some(4)), part(8..12, None), part(12..14, None));
        assert_eq!(batch.take(2), first);
        assert_eq!(batch.take(1), second);
        assert_eq!(batch, third);
        assert_eq!(batch.take(5), third);
        assert!(batch.contents.is_empty());
    }

    #[test]
    fn what_is_refused_and_what_is_not() {
        let decode =
            |bytes: &[u8], side, version| Frame::decode(&Bytes::copy_from_slice(bytes), side, version);
        let client = |bytes: &[u8]| decode(bytes, Side::Client, Version::V2);
        assert_eq!(client(b""), Err(FrameError::Empty));
        assert_eq!(client(b"\x40"), Err(FrameError::Empty));
        assert_eq!(client(&[14]), Err(FrameError::UnexpectedType(14)));
        // A longer form of the type number is taken.
        assert_eq!(client(&[0x40, 9, 1, 2, 3, 4, 5, 6, 7, 8]), Ok(Frame::Ping([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(client(&[9, 1]), Err(FrameError::Length { frame_type: 9, length: 1 }));
        assert_eq!(client(&[8, 1]), Err(FrameError::Length { frame_type: 8, length: 1 }));
        assert_eq!(client(&[12, 1]), Err(FrameError::Length { frame_type: 12, length: 1 }));
        assert_eq!(client(&[13]), Err(FrameError::Length { frame_type: 13, length: 0 }));
        assert_eq!(client(&[13, 77, 1]), Ok(Frame::Status(77)));
        assert_eq!(client(&[11, b'x']), Err(FrameError::UnexpectedType(11)));
        assert_eq!(decode(&[13, 0], Side::Client, Version::V1), Err(FrameError::UnexpectedType(13)));
        assert_eq!(decode(&[11, 0xff], Side::Client, Version::V1), Err(FrameError::Text));
        assert_eq!(decode(&[11, b'x'], Side::Client, Version::V1), Ok(Frame::Health("x".into())));
        let mut frame = Vec::new();
        Frame::Send(hello(None)).encode(&mut frame);
        assert_eq!(client(&frame), Err(FrameError::UnexpectedType(4)));
        let server = |bytes: &[u8]| decode(bytes, Side::Server, Version::V2);
        assert_eq!(server(&frame[..34]), Err(FrameError::NoContent));
        assert_eq!(server(&frame[..33]), Err(FrameError::Length { frame_type: 4, length: 32 }));
        assert_eq!(server(&[8; 33]), Err(FrameError::UnexpectedType(8)));
        // Upper bits of the ECN byte are not looked at; a segment size of zero is none.
        let batch = [&[5][..], &KEY, &[0xf6, 0, 0], b"x"].concat();
        let single = Datagrams { peer: KEY, ecn: 2, segment_size: None, contents: Bytes::from_static(b"x") };
        assert_eq!(server(&batch), Ok(Frame::Send(single)));
        let exactly = [&[4][..], &KEY, &[0], &vec![7; MAX_PAYLOAD - 33]].concat();
        assert!(server(&exactly).is_ok());
        assert!(matches!(server(&[&exactly[..], &[7]].concat()), Err(FrameError::Length { .. })));
    }

    proptest! {
        #[test]
        fn any_message_is_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0u8..16) {
            for side in [Side::Client, Side::Server] {
                for version in [Version::V1, Version::V2] {
                    let _ = Frame::decode(&bytes.clone().into(), side, version);
                    let mut typed = bytes.clone();
                    typed.insert(0, head);
                    if let Ok(frame) = Frame::decode(&typed.into(), side, version) {
                        let mut out = Vec::new();
                        frame.encode(&mut out);
                        prop_assert_eq!(Frame::decode(&out.into(), side, version), Ok(frame));
                    }
                }
            }
        }
    }
}
