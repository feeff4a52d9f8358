//! From bytes in stream order to verified pieces in blobs.

use std::collections::VecDeque;
use std::sync::Arc;

use aioiroh_bao::decode::{HEADER, checked_size};
use aioiroh_bao::hash::{Hash, Pair, subtree};
use aioiroh_bao::tree::{GROUP, chunks};
use aioiroh_bao::{ChunkRanges, DecodeError, Need, Verifier};
use aioiroh_core::stream::StreamEnd;
use bytes::{Buf, Bytes};

use crate::aligned::Aligned;
use crate::blob::Blob;
use crate::report::{Detail, Failure, Report, conflict, decode, os};
use crate::session::Session;
use crate::worker::{SLICE, TRANSFER_FLOOR};

/// Blobs in memory up to this size are verified where the bytes arrive: it takes less time than a thread switch.
const SMALL: u64 = 64 * 1024;
/// What a reported blob counts for besides its data: an empty one is not nothing.
const WHOLE_COST: usize = 64;
/// Bytes that make a turn of the worker worthwhile while an item goes on.
pub(crate) const BATCH: usize = TRANSFER_FLOOR;

/// Blobs without an outboard, which is none in one group, can be collected: all of one of them is reported.
const COLLECTED: u64 = GROUP as u64;

/// One response that is expected on the stream.
pub enum Item {
    /// For a query; goes into a blob.
    Part { query: ChunkRanges, blob: Arc<Blob> },
    /// For all of a blob. If it is small its data are reported, else a blob is asked for when its size is known.
    Whole(Hash),
}

impl Item {
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Self::Part { blob, .. } => blob.is_in_memory(),
            Self::Whole(_) => true,
        }
    }
}

/// What a receiver works on: the bytes at hand, and the items that they belong to.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) pending: VecDeque<Bytes>,
    pub(crate) pending_len: usize,
    pub(crate) items: VecDeque<Item>,
    // The size of the whole blob that comes next, once it was read, and where it goes if it is not small.
    header: Option<u64>,
    pub(crate) provided: Option<Arc<Blob>>,
    // Bytes of whole blobs that may be reported now.
    pub(crate) room: usize,
    pub(crate) current: Option<Current>,
    pub(crate) next_item: u64,
    pub(crate) end: Option<StreamEnd>,
    pub(crate) finished: bool,
    pub(crate) trailing: u64,
    pub(crate) over: bool,
    // Payload bytes that may still be announced; none: as many as there are.
    left: Option<u64>,
}

pub(crate) struct Current {
    pub(crate) item: u64,
    verifier: Verifier,
    session: Session,
    // Bytes that the response carries: 0 until the size is known.
    selected: u64,
    // Bytes verified, and how many of them were reported.
    verified: u64,
    reported: u64,
}

/// Bytes that are written together, at most: few enough to be in the cache still, and enough for few calls.
const RUN: usize = 256 * 1024;

/// Verified bytes that are written together.
#[derive(Default)]
struct RunBuffer {
    offset: u64,
    data: Aligned,
    slot: u64,
    pairs: Vec<u8>,
}

thread_local!(static BUFFER: std::cell::RefCell<RunBuffer> = std::cell::RefCell::default());

impl Work {
    pub(crate) fn new(total_limit: Option<u64>) -> Self {
        Self { left: total_limit, ..Self::default() }
    }

    /// One slice: everything verified in it is written at its end. With `small_only` it ends where an item is not small.
    pub(crate) fn slice(
        &mut self,
        limit: u64,
        small_only: bool,
        reports: &mut Vec<Report>,
    ) -> Result<(), Failure> {
        BUFFER.with_borrow_mut(|run| {
            run.data.reserve(RUN);
            run.data.set_len(0);
            run.pairs.clear();
            let result = self.process(run, limit, small_only, reports);
            // What has been verified is kept, whatever came after it.
            let flushed = match &mut self.current {
                Some(current) => current.flush(run),
                None => Ok(()),
            };
            if let Some(current) = &mut self.current
                && current.verified > current.reported
            {
                current.reported = current.verified;
                reports.push(Report::Progress { item: current.item, bytes: current.verified });
            }
            flushed.and(result)
        })
    }

    /// Works through the queue up to a slice.
    fn process(
        &mut self,
        run: &mut RunBuffer,
        limit: u64,
        small_only: bool,
        reports: &mut Vec<Report>,
    ) -> Result<(), Failure> {
        let mut budget = SLICE;
        while !self.over && budget > 0 {
            let Some(current) = &mut self.current else {
                if small_only && !self.is_small() {
                    return Ok(());
                }
                let may_start = self.pending_len > 0 || self.end.is_some();
                match self.items.front() {
                    Some(Item::Whole(hash)) => {
                        let hash = *hash;
                        if !self.whole(hash, limit, &mut budget, reports)? {
                            return Ok(());
                        }
                    }
                    Some(Item::Part { query, .. }) if may_start || query.is_empty() => self.start(limit),
                    Some(_) => return Ok(()),
                    None => {
                        self.end_of_items(reports);
                        return Ok(());
                    }
                }
                continue;
            };
            let need = current.verifier.need();
            if need == Need::Done {
                current.flush(run)?;
                let item = current.item;
                if current.verifier.size() == Some(0) {
                    // There was nothing to write, but the file has to exist.
                    current.session.create().map_err(|error| os(&error))?;
                }
                if current.verified > current.reported {
                    reports.push(Report::Progress { item, bytes: current.verified });
                }
                reports.push(Report::Done { item });
                self.current = None;
                continue;
            }
            if small_only && current.verifier.size().is_some_and(|size| size > SMALL) {
                return Ok(());
            }
            if self.pending_len < need.len() {
                return ended(self.end, || current.verifier.ended(self.pending_len));
            }
            budget = budget.saturating_sub(need.len());
            self.pending_len -= need.len();
            match need {
                Need::Header => {
                    let mut header = [0; HEADER];
                    take(&mut self.pending, &mut header);
                    let size = current.header(&header)?;
                    spend(&mut self.left, current.selected)?;
                    reports.push(Report::Size { item: current.item, size });
                }
                Need::Pair { slot } => {
                    let mut pair: Pair = [0; 64];
                    take(&mut self.pending, &mut pair);
                    current.verifier.accept(&pair).map_err(decode)?;
                    if let Some(slot) = slot {
                        current.add_pair(run, slot, &pair)?;
                    }
                }
                Need::Leaf { offset, len } => {
                    if run.data.len() + len > RUN || run.offset + run.data.len() as u64 != offset {
                        current.flush(run)?;
                    }
                    if run.data.is_empty() {
                        run.offset = offset;
                    }
                    let start = run.data.len();
                    run.data.set_len(start + len);
                    take(&mut self.pending, &mut run.data[start..]);
                    if let Err(error) = current.verifier.accept(&run.data[start..]) {
                        run.data.set_len(start);
                        return Err(decode(error));
                    }
                    current.verified += len as u64;
                }
                Need::Done => {}
            }
        }
        Ok(())
    }

    /// Takes what there is of a whole blob; false if that is all that can be done.
    fn whole(
        &mut self,
        hash: Hash,
        limit: u64,
        budget: &mut usize,
        reports: &mut Vec<Report>,
    ) -> Result<bool, Failure> {
        let item = self.next_item;
        let size = match self.header {
            Some(size) => size,
            None if self.pending_len < HEADER => {
                return ended(self.end, || Err(DecodeError::MissingHeader)).map(|()| false);
            }
            None => {
                let mut header = [0; HEADER];
                take(&mut self.pending, &mut header);
                self.pending_len -= HEADER;
                let size = checked_size(&hash, u64::from_le_bytes(header), limit).map_err(decode)?;
                spend(&mut self.left, size)?;
                self.header = Some(size);
                if size > COLLECTED {
                    reports.push(Report::Wanted { item, size });
                }
                size
            }
        };
        if size > COLLECTED {
            let Some(blob) = self.provided.take() else { return Ok(false) };
            self.header = None;
            self.items.pop_front();
            self.begin(ChunkRanges::all(), blob, limit).header(&size.to_le_bytes())?;
            return Ok(true);
        }
        let len = size as usize;
        if self.room == 0 {
            return Ok(false);
        }
        if self.pending_len < len {
            let wrong = if self.pending_len == 0 { DecodeError::MissingItem } else { DecodeError::Truncated };
            return ended(self.end, || Err(wrong)).map(|()| false);
        }
        let mut data = Vec::with_capacity(len);
        take_to(&mut self.pending, &mut data, len);
        self.pending_len -= len;
        if subtree(&data, 0, true) != hash {
            return Err(decode(DecodeError::LeafMismatch { lo: 0, hi: chunks(size) }));
        }
        *budget = budget.saturating_sub(HEADER + len);
        self.room = self.room.saturating_sub(len + WHOLE_COST);
        self.header = None;
        self.items.pop_front();
        self.next_item += 1;
        reports.push(Report::Whole { item, data: data.into() });
        Ok(true)
    }

    /// The whole blob that waits for somewhere to go.
    pub(crate) fn wanted(&self) -> Option<&Hash> {
        match self.items.front() {
            Some(Item::Whole(hash)) if self.provided.is_none() && self.header? > COLLECTED => Some(hash),
            _ => None,
        }
    }

    /// A whole blob comes next, and what was reported before has to be collected first.
    pub(crate) fn is_held(&self) -> bool {
        self.room == 0 && self.current.is_none() && matches!(self.items.front(), Some(Item::Whole(_)))
    }

    /// Nothing at hand and nothing to take up.
    pub(crate) fn idle(&self) -> bool {
        self.current.is_none() && self.items.is_empty()
    }

    /// Queued bytes that make a turn worthwhile; `batch` while an item goes on.
    pub(crate) fn waits_for(&self, batch: usize) -> usize {
        match &self.current {
            Some(current) => {
                // At least that much of the item is still to come, so waiting for it never takes for ever.
                let remaining = usize::try_from(current.selected.saturating_sub(current.verified));
                current.verifier.need().len().max(remaining.unwrap_or(batch).min(batch))
            }
            None => match self.items.front() {
                Some(Item::Whole(_)) => match self.header {
                    None => HEADER,
                    Some(_) if self.provided.is_some() => 0,
                    Some(size) if size > COLLECTED => usize::MAX,
                    Some(size) => size as usize,
                },
                None if !self.finished => usize::MAX,
                // Whatever comes belongs to the next item, or trails the last.
                _ => 1,
            },
        }
    }

    pub(crate) fn is_small(&self) -> bool {
        match (&self.current, self.items.front()) {
            (Some(current), _) => {
                current.session.blob().is_in_memory()
                    && current.verifier.size().is_none_or(|size| size <= SMALL)
            }
            (None, Some(item)) => {
                item.is_small() && self.provided.as_ref().is_none_or(|blob| blob.is_in_memory())
            }
            (None, None) => self.finished,
        }
    }

    /// Drops everything: the stream is over for the receiver.
    pub(crate) fn give_up(&mut self) {
        self.current = None;
        self.items.clear();
        self.provided = None;
        self.pending.clear();
        self.pending_len = 0;
    }

    fn start(&mut self, limit: u64) {
        if let Some(Item::Part { query, blob }) = self.items.pop_front() {
            self.begin(query, blob, limit);
        }
    }

    fn begin(&mut self, query: ChunkRanges, blob: Arc<Blob>, limit: u64) -> &mut Current {
        let item = self.next_item;
        let verifier = Verifier::new(*blob.hash(), query, limit.min(blob.limit()));
        let session = Session::new(blob);
        self.next_item += 1;
        self.current.insert(Current { item, verifier, session, selected: 0, verified: 0, reported: 0 })
    }

    /// All expected items are done.
    fn end_of_items(&mut self, reports: &mut Vec<Report>) {
        if !self.finished {
            return;
        }
        self.trailing += self.pending_len as u64;
        self.pending.clear();
        self.pending_len = 0;
        if self.end.is_some() {
            reports.push(Report::End { trailing: self.trailing });
            self.over = true;
        }
    }
}

impl Current {
    fn header(&mut self, header: &[u8; HEADER]) -> Result<u64, Failure> {
        self.verifier.accept(header).map_err(decode)?;
        let size = self.verifier.size().unwrap_or(0);
        self.selected = self.verifier.selected().bytes(size);
        self.session.blob().claim(size).map_err(conflict)?;
        Ok(size)
    }

    fn add_pair(&mut self, run: &mut RunBuffer, slot: u64, pair: &Pair) -> Result<(), Failure> {
        let next = run.slot + (run.pairs.len() / pair.len()) as u64;
        if !run.pairs.is_empty() && next != slot {
            self.flush(run)?;
        }
        if run.pairs.is_empty() {
            run.slot = slot;
        }
        run.pairs.extend_from_slice(pair);
        Ok(())
    }

    /// Writes what was verified, and only then says that it is here.
    fn flush(&mut self, run: &mut RunBuffer) -> Result<(), Failure> {
        if !run.pairs.is_empty() {
            let written = self.session.write_pairs(run.slot, &run.pairs);
            run.pairs.clear();
            written.map_err(|error| os(&error))?;
        }
        if !run.data.is_empty() {
            let written = self.session.write_data(run.offset, &run.data);
            let (start, end) = (run.offset, run.offset + run.data.len() as u64);
            run.data.set_len(0);
            written.map_err(|error| os(&error))?;
            let size = self.verifier.size().unwrap_or(0);
            let blob = self.session.blob();
            blob.commit(start, end, size, self.verifier.size_proven()).map_err(conflict)?;
        }
        Ok(())
    }
}

/// Takes what a blob brings from what all together may bring.
fn spend(left: &mut Option<u64>, bytes: u64) -> Result<(), Failure> {
    let Some(left) = left else { return Ok(()) };
    match left.checked_sub(bytes) {
        Some(rest) => *left = rest,
        None => return Err(decode(DecodeError::SizeLimit { claimed: bytes, limit: *left })),
    }
    Ok(())
}

/// What it means that no more bytes are there now; `verdict` if no more will come.
fn ended(end: Option<StreamEnd>, verdict: impl FnOnce() -> Result<(), DecodeError>) -> Result<(), Failure> {
    match end {
        None => Ok(()),
        Some(StreamEnd::Reset(code)) => Err(("reset", Detail::Code(code))),
        Some(StreamEnd::Lost) => Err(("lost", Detail::None)),
        Some(StreamEnd::Finished) => verdict().map_err(decode),
    }
}

/// Takes bytes from the front of a queue that has as many.
fn take(queue: &mut VecDeque<Bytes>, mut out: &mut [u8]) {
    while !out.is_empty() {
        let Some(front) = queue.front_mut() else { return };
        let now = front.len().min(out.len());
        let (head, rest) = out.split_at_mut(now);
        head.copy_from_slice(&front[..now]);
        front.advance(now);
        out = rest;
        if front.is_empty() {
            queue.pop_front();
        }
    }
}

fn take_to(queue: &mut VecDeque<Bytes>, out: &mut Vec<u8>, mut len: usize) {
    debug_assert!(len <= GROUP);
    while len > 0 {
        let Some(front) = queue.front_mut() else { return };
        let now = front.len().min(len);
        out.extend_from_slice(&front[..now]);
        front.advance(now);
        len -= now;
        if front.is_empty() {
            queue.pop_front();
        }
    }
}
