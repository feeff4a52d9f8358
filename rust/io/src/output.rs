//! From blobs to bytes in stream order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use aioiroh_bao::encode::Item as Encoded;
use aioiroh_bao::tree::GROUP;
use aioiroh_bao::{ChunkRanges, EncodeError, Encoder};
use bytes::Bytes;

use crate::blob::Blob;
use crate::buffer::{Buffer, LARGE};
use crate::report::{Detail, Failure, Report, os};
use crate::session::Session;

/// Blobs in memory up to this size are encoded where the bytes leave.
pub(crate) const SMALL: u64 = 64 * 1024;
/// Bytes that are encoded before they are handed over.
const PIECE: usize = LARGE - GROUP;

/// Something to send.
pub(crate) enum Item {
    Raw(Bytes),
    Blob { blob: Arc<Blob>, query: ChunkRanges },
}

impl Item {
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Self::Raw(_) => true,
            Self::Blob { blob, .. } => blob.is_in_memory() && blob.size().is_none_or(|size| size <= SMALL),
        }
    }
}

/// What a sender works on: the items, and what is encoded of them.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) items: VecDeque<Item>,
    pub(crate) current: Option<Current>,
    pub(crate) next_item: u64,
    // Encoded, or given as it is, and not yet in the gate's queue.
    pub(crate) buffer: Buffer,
    pub(crate) raw: Option<Bytes>,
    pub(crate) marks: Vec<(usize, Report)>,
}

pub(crate) struct Current {
    pub(crate) item: u64,
    pub(crate) encoder: Encoder,
    pub(crate) session: Session,
    // About how many bytes of the response are to come.
    pub(crate) remaining: usize,
}

impl Work {
    /// Encodes until a piece is full (true), or until about `room` bytes are encoded or nothing is left (false). With
    /// `small_only` it ends where an item is not small.
    pub(crate) fn fill(&mut self, room: &mut usize, small_only: bool) -> Result<bool, Failure> {
        while *room > 0 {
            let Some(current) = &mut self.current else {
                match self.items.front() {
                    Some(item) if small_only && !item.is_small() => return Ok(false),
                    // What was encoded before goes first.
                    Some(Item::Raw(_)) if self.buffer.filled > 0 => return Ok(true),
                    Some(Item::Raw(data)) => {
                        *room = room.saturating_sub(data.len());
                        self.give();
                        return Ok(true);
                    }
                    Some(Item::Blob { .. }) => self.start()?,
                    None => return Ok(false),
                }
                continue;
            };
            let item = current.item;
            let Some(len) = current.encoder.next_len() else {
                self.current = None;
                self.mark(Report::Done { item });
                continue;
            };
            let space = self.buffer.space(len, current.remaining);
            let written = current.encoder.write(&mut current.session, space).map_err(failure)?;
            self.buffer.filled += len;
            current.remaining = current.remaining.saturating_sub(len);
            *room = room.saturating_sub(len);
            if let Encoded::Leaf { end } = written {
                self.mark_progress(item, end);
            }
            if self.buffer.filled >= PIECE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes bytes as they are from the front of the items.
    fn give(&mut self) {
        if let Some(Item::Raw(data)) = self.items.pop_front() {
            self.marks.push((data.len(), Report::Done { item: self.next_item }));
            self.next_item += 1;
            self.raw = (!data.is_empty()).then_some(data);
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        if let Some(Item::Blob { blob, query }) = self.items.pop_front() {
            let item = self.next_item;
            if !query.is_empty() {
                // Nothing is sent of a blob of which something is missing: a reset may throw it away anyway.
                let size = blob.verified_size().filter(|size| blob.can_encode(&query, *size));
                let size = size.ok_or(("missing", Detail::None))?;
                let encoder = Encoder::new(*blob.hash(), size, &query);
                let expected = encoder.selected().bytes(size);
                let remaining = usize::try_from(expected + expected / 128).unwrap_or(usize::MAX);
                self.mark(Report::Started { item, size });
                self.current = Some(Current { item, encoder, session: Session::new(blob), remaining });
            } else {
                self.mark(Report::Done { item });
            }
            self.next_item += 1;
        }
        Ok(())
    }

    pub(crate) fn mark(&mut self, report: Report) {
        self.marks.push((self.buffer.filled, report));
    }

    fn mark_progress(&mut self, item: u64, bytes: u64) {
        let at = self.buffer.filled;
        match self.marks.last_mut() {
            Some((position, Report::Progress { item: same, bytes: before })) if *same == item => {
                (*position, *before) = (at, bytes);
            }
            _ => self.marks.push((at, Report::Progress { item, bytes })),
        }
    }
}

impl Current {
    pub(crate) fn is_small(&self) -> bool {
        let blob = self.session.blob();
        blob.is_in_memory() && blob.size().is_none_or(|size| size <= SMALL)
    }
}

fn failure(error: EncodeError<io::Error>) -> Failure {
    match error {
        EncodeError::Changed { lo, hi } => ("changed", Detail::Chunks { lo, hi }),
        // What was given as the blob's content or outboard is not.
        EncodeError::Source(error) if error.kind() == io::ErrorKind::InvalidData => ("changed", Detail::None),
        EncodeError::Source(error) => os(&error),
    }
}
