//! What waits for one client.

use std::collections::VecDeque;

use crate::frame::{Frame, Key, datagrams_head};
use crate::server::Parcel;
use crate::websocket::{Kind, Masked, write, write_head};

/// Bytes that are handed over at once.
pub const CHUNK: usize = 128 * 1024;
/// Bytes for what is no datagram, beyond the bound for datagrams.
const RESERVE: usize = 64 * 1024;
/// Chunks that are kept for later.
const MAX_SPARE: usize = 16;

/// Memory that was used and will be again: fresh memory costs more than what is copied into it.
#[derive(Debug, Default)]
pub struct Spare(Vec<Vec<u8>>);

impl Spare {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut chunk: Vec<u8>) {
        if self.0.len() < MAX_SPARE && chunk.capacity() <= 2 * CHUNK {
            chunk.clear();
            self.0.push(chunk);
        }
    }
}

/// Messages, as they will be on the wire before TLS. What does not fit is not taken.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    /// Whether there was room for these datagrams of `source`; `most` bytes may wait.
    pub fn forward(&mut self, source: &Key, parcel: &Parcel<'_>, most: usize, spare: &mut Spare) -> bool {
        let (head, len) = datagrams_head(false, source, parcel.ecn, parcel.segment_size);
        let size = len + parcel.contents.len();
        if self.bytes + size > most {
            return false;
        }
        self.append(size, spare, |out| {
            write_head(Kind::Binary, size, None, out);
            out.extend_from_slice(&head[..len]);
            parcel.contents.append_to(out);
        });
        true
    }

    /// Whether there was room for this frame, which is a short one.
    pub fn control(&mut self, frame: &Frame, most: usize, spare: &mut Spare) -> bool {
        let mut bytes = Vec::with_capacity(64);
        frame.encode(&mut bytes);
        self.short(Kind::Binary, &bytes, most, spare)
    }

    /// The same for the answer to a ping of WebSocket.
    pub fn echo(&mut self, content: &Masked<'_>, most: usize, spare: &mut Spare) -> bool {
        self.short(Kind::Pong, &content.to_bytes(), most, spare)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first of what waits.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    fn short(&mut self, kind: Kind, content: &[u8], most: usize, spare: &mut Spare) -> bool {
        let room = self.bytes + content.len() <= most + RESERVE;
        if room {
            self.append(content.len(), spare, |out| write(kind, &[content], None, out));
        }
        room
    }

    /// Lets a message with so much content be written where there is room for it.
    fn append(&mut self, size: usize, spare: &mut Spare, write: impl FnOnce(&mut Vec<u8>)) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() + size <= CHUNK => {
                let before = chunk.len();
                write(chunk);
                self.bytes += chunk.len() - before;
            }
            _ => {
                let mut chunk = spare.take();
                write(&mut chunk);
                self.bytes += chunk.len();
                self.chunks.push_back(chunk);
            }
        }
    }
}
