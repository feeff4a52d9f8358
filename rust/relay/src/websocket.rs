//! WebSocket messages (RFC 6455) as the relay protocol uses them: binary ones, without extensions.

use bytes::Bytes;

/// The largest message that is sent.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Content of a control frame at most (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

/// Bytes of a head at most.
const MAX_HEAD: usize = 14;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Bytes that are no WebSocket. Fatal for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    ReservedBits,
    Opcode(u8),
    /// A client must mask, a server must not.
    Mask,
    Control,
    Fragments,
    TooLarge,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ReservedBits => write!(f, "a WebSocket extension that was not agreed on"),
            Self::Opcode(code) => write!(f, "a WebSocket frame of the unknown kind {code}"),
            Self::Mask => {
                write!(f, "a WebSocket frame that is masked and must not be, or the other way round")
            }
            Self::Control => write!(f, "a WebSocket control frame that is too long or in pieces"),
            Self::Fragments => write!(f, "pieces of WebSocket messages that do not fit together"),
            Self::TooLarge => write!(f, "a WebSocket message that is too large"),
        }
    }
}

struct Head {
    fin: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    len: usize,
    size: usize,
}

/// The head of a frame at the start of `bytes`, if all of it has come. `most`: content that is taken.
fn head(bytes: &[u8], from_client: bool, most: usize) -> Result<Option<Head>, Broken> {
    let [first, second] = match bytes.get(..2) {
        Some(bytes) => [bytes[0], bytes[1]],
        None => return Ok(None),
    };
    if first & 0x70 != 0 {
        return Err(Broken::ReservedBits);
    }
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(Broken::Opcode(opcode));
    }
    let masked = second & 0x80 != 0;
    if masked != from_client {
        return Err(Broken::Mask);
    }
    let short = usize::from(second & 0x7f);
    if opcode >= CLOSE && (!fin || short > MAX_CONTROL) {
        return Err(Broken::Control);
    }
    let (len, mut size) = match short {
        126 => match bytes.get(2..4) {
            Some(bytes) => (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(bytes) => {
                let len = bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
                (usize::try_from(len).unwrap_or(usize::MAX), 10)
            }
            None => return Ok(None),
        },
        len => (len, 2),
    };
    if len > most {
        return Err(Broken::TooLarge);
    }
    let mask = match masked {
        true => match bytes.get(size..size + 4) {
            Some(bytes) => {
                size += 4;
                Some([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            None => return Ok(None),
        },
        false => None,
    };
    Ok(Some(Head { fin, opcode, mask, len, size }))
}

/// Bytes as they came, with the mask that is over them.
#[derive(Debug, Clone, Copy)]
pub struct Masked<'a> {
    bytes: &'a [u8],
    mask: [u8; 4],
}

impl<'a> Masked<'a> {
    /// Bytes that are as they are meant.
    pub fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, mask: [0; 4] }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All but the first `count`, which must be there.
    pub fn skip(&self, count: usize) -> Self {
        let mut mask = self.mask;
        mask.rotate_left(count % 4);
        Self { bytes: &self.bytes[count..], mask }
    }

    /// The first `N`, if there are so many.
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        let mut first: [u8; N] = self.bytes.get(..N)?.try_into().ok()?;
        apply_mask(&mut first, self.mask);
        Some(first)
    }

    /// Puts them, without the mask, at the end of `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        if self.mask != [0; 4] {
            apply_mask(&mut out[start..], self.mask);
        }
    }

    pub fn to_bytes(self) -> Bytes {
        let mut out = Vec::with_capacity(self.len());
        self.append_to(&mut out);
        out.into()
    }
}

/// Something that came, where it lies.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    Binary(Masked<'a>),
    /// To be answered with the same content.
    Ping(Masked<'a>),
    Close(Option<u16>),
}

/// Takes bytes and gives the messages in them, mostly from where they lie. Text and pongs are ignored.
#[derive(Debug)]
pub struct Messages {
    /// Whether the peer is a client, who masks.
    from_client: bool,
    /// The largest message that is taken.
    most: usize,
    /// A frame of which the end has not come. No room is made for what is only announced.
    held: Vec<u8>,
    /// A message that comes in pieces: whether it is binary, and what has come.
    partial: Option<(bool, Vec<u8>)>,
}

impl Messages {
    pub fn new(from_client: bool, most: usize) -> Self {
        Self { from_client, most, held: Vec::new(), partial: None }
    }

    /// Calls `each` with every message that is whole now. Nothing may be fed after an error.
    pub fn feed<E: From<Broken>>(
        &mut self,
        mut data: &[u8],
        mut each: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.held.is_empty() && !data.is_empty() {
            let Some(head) = self.head(&self.held)? else {
                // A head is short: byte by byte until it is there.
                self.held.push(data[0]);
                data = &data[1..];
                continue;
            };
            let missing = (head.size + head.len).saturating_sub(self.held.len());
            let (now, later) = data.split_at(missing.min(data.len()));
            self.held.extend_from_slice(now);
            data = later;
            if self.held.len() < head.size + head.len {
                return Ok(());
            }
            let held = std::mem::take(&mut self.held);
            self.one(&head, &held[head.size..], &mut each)?;
        }
        while let Some(head) = self.head(data)? {
            if data.len() < head.size + head.len {
                break;
            }
            let (frame, later) = data.split_at(head.size + head.len);
            self.one(&head, &frame[head.size..], &mut each)?;
            data = later;
        }
        self.held.extend_from_slice(data);
        Ok(())
    }

    fn head(&self, bytes: &[u8]) -> Result<Option<Head>, Broken> {
        head(bytes, self.from_client, self.most - self.partial.as_ref().map_or(0, |(_, bytes)| bytes.len()))
    }

    fn one<E: From<Broken>>(
        &mut self,
        head: &Head,
        content: &[u8],
        each: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let content = Masked { bytes: content, mask: head.mask.unwrap_or_default() };
        match (head.opcode, self.partial.take()) {
            (BINARY, None) if head.fin => each(Piece::Binary(content)),
            (TEXT, None) if head.fin => Ok(()),
            (opcode @ (TEXT | BINARY), None) => {
                let mut bytes = Vec::new();
                content.append_to(&mut bytes);
                self.partial = Some((opcode == BINARY, bytes));
                Ok(())
            }
            (CONTINUATION, Some((binary, mut bytes))) => {
                content.append_to(&mut bytes);
                if !head.fin {
                    self.partial = Some((binary, bytes));
                    return Ok(());
                }
                if binary { each(Piece::Binary(Masked::plain(&bytes))) } else { Ok(()) }
            }
            (CONTINUATION | TEXT | BINARY, _) => Err(Broken::Fragments.into()),
            (opcode, partial) => {
                self.partial = partial;
                match opcode {
                    PING => each(Piece::Ping(content)),
                    CLOSE => each(Piece::Close(content.first().map(u16::from_be_bytes))),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Binary,
    Pong,
    Close,
}

/// Appends a message whose content is the pieces one after the other; `mask` if we are the client.
pub fn write(kind: Kind, pieces: &[&[u8]], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    write_head(kind, pieces.iter().map(|piece| piece.len()).sum(), mask, out);
    let start = out.len();
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Appends the head of a message, and makes room for its content, which is to follow.
pub fn write_head(kind: Kind, len: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let opcode = match kind {
        Kind::Binary => BINARY,
        Kind::Pong => PONG,
        Kind::Close => CLOSE,
    };
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.reserve(MAX_HEAD + len);
    out.push(0x80 | opcode);
    match len {
        0..126 => out.push(masked | len as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value =
            u64::from_ne_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        word.copy_from_slice(&(value ^ wide).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(kind: Kind, content: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        write(kind, &[content], mask, &mut out);
        out
    }

    #[derive(Debug, PartialEq)]
    enum Came {
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Close(Option<u16>),
    }

    fn feed(messages: &mut Messages, bytes: &[u8]) -> Result<Vec<Came>, Broken> {
        let mut all = Vec::new();
        messages.feed(bytes, |piece| {
            all.push(match piece {
                Piece::Binary(content) => Came::Binary(content.to_bytes().to_vec()),
                Piece::Ping(content) => Came::Ping(content.to_bytes().to_vec()),
                Piece::Close(code) => Came::Close(code),
            });
            Ok::<(), Broken>(())
        })?;
        Ok(all)
    }

    fn read(from_client: bool, bytes: &[u8]) -> Result<Vec<Came>, Broken> {
        feed(&mut Messages::new(from_client, MAX_MESSAGE), bytes)
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 6455, section 5.7, with the opcode of binary messages.
        assert_eq!(written(Kind::Binary, b"Hello", None), b"\x82\x05Hello");
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(written(Kind::Binary, b"Hello", Some(mask)), masked);
        assert_eq!(read(true, &masked), Ok(vec![Came::Binary(b"Hello".to_vec())]));
        let pieces = b"\x02\x03Hel\x89\x01p\x80\x02lo";
        let all = vec![Came::Ping(b"p".to_vec()), Came::Binary(b"Hello".to_vec())];
        assert_eq!(read(false, pieces), Ok(all));
        assert_eq!(read(false, b"\x88\x02\x03\xe8"), Ok(vec![Came::Close(Some(1000))]));
        assert_eq!(read(false, b"\x88\x00\x81\x01x"), Ok(vec![Came::Close(None)]));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(read(false, b"\xc2\x00"), Err(Broken::ReservedBits));
        assert_eq!(read(false, b"\x83\x00"), Err(Broken::Opcode(3)));
        assert_eq!(read(false, b"\x82\x80"), Err(Broken::Mask));
        assert_eq!(read(true, b"\x82\x00"), Err(Broken::Mask));
        assert_eq!(read(false, b"\x09\x00"), Err(Broken::Control));
        assert_eq!(read(false, b"\x89\x7e\x00\x80"), Err(Broken::Control));
        assert_eq!(read(false, b"\x80\x00"), Err(Broken::Fragments));
        assert_eq!(read(false, b"\x02\x00\x82\x00"), Err(Broken::Fragments));
        assert_eq!(read(false, b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01"), Err(Broken::TooLarge));
        assert_eq!(read(false, b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Broken::TooLarge));
        let mut two = written(Kind::Binary, &vec![0; MAX_MESSAGE], None);
        two[0] = BINARY;
        assert_eq!(read(false, &[&two[..], b"\x80\x01x"].concat()), Err(Broken::TooLarge));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            large in 0usize..70_000,
            mask in any::<Option<[u8; 4]>>(),
            cut in 1usize..500,
        ) {
            let mut expected: Vec<Vec<u8>> = contents;
            expected.push(vec![7; large]);
            let mut bytes = Vec::new();
            for content in &expected {
                let middle = content.len() / 2;
                write(Kind::Binary, &[&content[..middle], &content[middle..]], mask, &mut bytes);
            }
            let mut messages = Messages::new(mask.is_some(), MAX_MESSAGE);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                got.extend(feed(&mut messages, piece).unwrap().into_iter().map(|came| match came {
                    Came::Binary(content) => content,
                    other => panic!("{other:?}"),
                }));
            }
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), client: bool) {
            let _ = read(client, &bytes);
        }
    }
}
