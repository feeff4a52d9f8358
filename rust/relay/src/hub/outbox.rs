//! What waits for one client.

use std::collections::VecDeque;

use crate::frame::{Frame, Key, datagrams_head};
use crate::server::Parcel;
use crate::websocket::{Kind, Masked, write, write_head};

/// Bytes that are handed over at once.
pub const CHUNK: usize = 128 * 1024;
/// Bytes for what is no datagram, beyond the bound for datagrams.
const RESERVE: usize = 64 * 1024;

/// Messages, as they will be on the wire before TLS. What does not fit is not taken.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<(Vec<u8>, usize)>,
    bytes: usize,
    frames: usize,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub frames: usize,
    pub bytes: usize,
}

impl Outbox {
    /// Whether there was room for these datagrams of `source`.
    pub fn forward(&mut self, source: &Key, parcel: &Parcel<'_>, bounds: &Bounds) -> bool {
        let (head, len) = datagrams_head(false, source, parcel.ecn, parcel.segment_size);
        let size = len + parcel.contents.len();
        if self.frames >= bounds.frames || self.bytes + size > bounds.bytes {
            return false;
        }
        let out = self.room(size);
        write_head(Kind::Binary, size, None, out);
        out.extend_from_slice(&head[..len]);
        parcel.contents.append_to(out);
        true
    }

    /// Whether there was room for this frame, which is a short one.
    pub fn control(&mut self, frame: &Frame, bounds: &Bounds) -> bool {
        let mut bytes = Vec::with_capacity(64);
        frame.encode(&mut bytes);
        self.short(Kind::Binary, &bytes, bounds)
    }

    /// The same for the answer to a ping of WebSocket.
    pub fn echo(&mut self, content: &Masked<'_>, bounds: &Bounds) -> bool {
        self.short(Kind::Pong, &content.to_bytes(), bounds)
    }

    fn short(&mut self, kind: Kind, content: &[u8], bounds: &Bounds) -> bool {
        let room = self.bytes + content.len() <= bounds.bytes + RESERVE;
        if room {
            write(kind, &[content], None, self.room(content.len()));
        }
        room
    }

    /// Where to put a message with so much content.
    fn room(&mut self, size: usize) -> &mut Vec<u8> {
        self.frames += 1;
        self.bytes += size;
        let fits = self.chunks.back().is_some_and(|(bytes, _)| bytes.len() + size <= CHUNK);
        if !fits {
            self.chunks.push_back((Vec::new(), 0));
        }
        let at = self.chunks.len() - 1;
        let (bytes, frames) = &mut self.chunks[at];
        *frames += 1;
        bytes
    }

    pub fn take(&mut self) -> Option<Vec<u8>> {
        let (bytes, frames) = self.chunks.pop_front()?;
        self.frames -= frames;
        if self.chunks.is_empty() {
            self.bytes = 0;
        } else {
            self.bytes = self.bytes.saturating_sub(bytes.len());
        }
        Some(bytes)
    }
}
