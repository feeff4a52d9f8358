//! The native end of a receive stream: verifies responses and writes them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use aioiroh_bao::hash::{Hash, Pair};
use aioiroh_bao::tree::GROUP;
use aioiroh_bao::{ChunkRanges, Need, Verifier};
use aioiroh_core::stream::{StreamEnd, StreamSink, Waker};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use crate::bell::Bell;
use crate::blob::Blob;
use crate::report::{Detail, Failure, Report, Reports, conflict, decode, os};
use crate::session::Session;
use crate::worker::{SLICE, Shared, TOTAL_LIMIT, TRANSFER_FLOOR, TRANSFER_LIMIT, Task, Worker};

/// Blobs in memory up to this size are verified where the bytes arrive: it takes less time than a thread switch.
const SMALL: u64 = 64 * 1024;
/// Bytes that make a turn of the worker worthwhile while an item goes on.
const BATCH: usize = TRANSFER_FLOOR;
/// Bytes after the last item that are read and thrown away before the stream is stopped.
const TRAILING: u64 = 64 * 1024;

/// One response that is expected on the stream.
pub struct Item {
    pub query: ChunkRanges,
    pub blob: Arc<Blob>,
}

/// The blob is complete or was opened for reading.
#[derive(Debug)]
pub struct NotWritable;

/// Takes responses in order from one stream. Clones are the same receiver.
#[derive(Clone)]
pub struct Receiver(Arc<Inbound>);

struct Inbound {
    me: Weak<Inbound>,
    id: u64,
    worker: Arc<Shared>,
    limit: u64,
    stop_code: u64,
    // The gate is held for moments only; the work for a slice, by whoever does it. Work is taken before the gate.
    gate: Mutex<Gate>,
    work: Mutex<Work>,
}

/// What the engine, the application and the worker share.
#[derive(Default)]
struct Gate {
    attached: bool,
    bell: Bell,

    queue: VecDeque<Bytes>,
    // Bytes that were pushed and are not dealt with, here and in the work.
    queued: usize,
    blocked: bool,
    end: Option<StreamEnd>,

    items: VecDeque<Item>,
    finished: bool,
    // Number of the item at hand.
    item: u64,

    // A turn of the worker is due.
    scheduled: bool,
    // So many queued bytes make a turn worthwhile.
    waits_for: usize,
    // The item at hand, or the next, is so small that the turn is done at once.
    small: bool,

    reports: Reports,
    stop: Option<u64>,
    over: bool,
}

#[derive(Default)]
struct Work {
    pending: VecDeque<Bytes>,
    pending_len: usize,
    items: VecDeque<Item>,
    current: Option<Current>,
    next_item: u64,
    end: Option<StreamEnd>,
    finished: bool,
    trailing: u64,
    over: bool,
}

struct Current {
    item: u64,
    verifier: Verifier,
    session: Session,
    // Bytes that the response carries: 0 until the size is known.
    selected: u64,
    // Bytes verified, and how many of them were reported.
    verified: u64,
    reported: u64,
}

enum Turn {
    Done,
    Again,
    /// The worker has to go on.
    HandOver,
}

/// Verified bytes that are written together.
#[derive(Default)]
struct RunBuffer {
    offset: u64,
    data: Vec<u8>,
    slot: u64,
    pairs: Vec<u8>,
}

thread_local!(static RUN: std::cell::RefCell<RunBuffer> = std::cell::RefCell::default());

impl Receiver {
    /// Refuses sizes above `limit` bytes. Stops the stream with `stop_code` on an error.
    pub fn new(worker: &Worker, limit: u64, stop_code: u64) -> io::Result<Self> {
        worker.check_process()?;
        let worker = worker.shared().clone();
        Ok(Self(Arc::new_cyclic(|me| Inbound {
            me: me.clone(),
            id: worker.next_id(),
            worker,
            limit,
            stop_code,
            gate: Mutex::new(Gate { waits_for: usize::MAX, ..Gate::default() }),
            work: Mutex::default(),
        })))
    }

    /// The number under which the worker tells of reports once the engine has let the stream go.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Appends responses that come on the stream.
    pub fn expect(&self, items: Vec<Item>) -> Result<(), NotWritable> {
        if items.iter().any(|item| !item.blob.is_writable()) {
            return Err(NotWritable);
        }
        let mut gate = self.0.gate.lock();
        if gate.waits_for == usize::MAX
            && let Some(first) = items.first()
        {
            gate.small = first.blob.is_in_memory();
            gate.waits_for = 0;
        }
        gate.items.extend(items);
        self.0.advance(gate, true);
        Ok(())
    }

    /// No more items are expected: the end of the stream should follow.
    pub fn finish(&self) {
        let mut gate = self.0.gate.lock();
        gate.finished = true;
        if gate.waits_for == usize::MAX {
            gate.waits_for = 0;
            gate.small = true;
        }
        self.0.advance(gate, true);
    }

    pub fn poll(&self) -> Vec<Report> {
        self.0.gate.lock().reports.take()
    }

    /// The end to attach to a stream; None the second time.
    pub fn sink(&self) -> Option<Box<dyn StreamSink>> {
        let mut gate = self.0.gate.lock();
        if std::mem::replace(&mut gate.attached, true) {
            return None;
        }
        let sink = Sink { inbound: self.0.clone(), pushed: VecDeque::new(), pushed_len: 0 };
        Some(Box::new(sink))
    }
}

impl Inbound {
    /// Gets done what can be done; `wake` unless the engine asks by itself right after.
    fn advance(&self, mut gate: parking_lot::MutexGuard<'_, Gate>, wake: bool) {
        let due = gate.queued >= gate.waits_for || gate.end.is_some();
        if !due || gate.scheduled || gate.over {
            return;
        }
        gate.scheduled = true;
        if gate.small || self.worker.is_inline() {
            drop(gate);
            let hand_over = {
                let mut work = self.work.lock();
                loop {
                    match self.turn(&mut work, !self.worker.is_inline()) {
                        Turn::Done => break false,
                        Turn::Again => {}
                        Turn::HandOver => break true,
                    }
                }
            };
            if hand_over && let Some(me) = self.me.upgrade() {
                self.worker.submit(me);
            }
            if wake {
                self.wake();
            }
        } else if let Some(me) = self.me.upgrade() {
            drop(gate);
            self.worker.submit(me);
        }
    }

    /// One slice of work. With `small_only` the rest goes to the worker as soon as it is not small any more.
    fn turn(&self, work: &mut Work, small_only: bool) -> Turn {
        {
            let mut gate = self.gate.lock();
            work.pending.append(&mut gate.queue);
            work.pending_len = gate.queued;
            work.items.append(&mut gate.items);
            work.end = work.end.or(gate.end);
            work.finished = gate.finished;
        }
        let before = work.pending_len;
        let mut reports = Vec::new();
        let mut stop = None;
        let result = RUN.with_borrow_mut(|run| {
            run.data.clear();
            run.pairs.clear();
            let result = self.process(work, run, &mut reports, small_only);
            // What has been verified is kept, whatever came after it.
            let flushed = match &mut work.current {
                Some(current) => current.flush(run),
                None => Ok(()),
            };
            if let Some(current) = &mut work.current
                && current.verified > current.reported
            {
                current.reported = current.verified;
                reports.push(Report::Progress { item: current.item, bytes: current.verified });
            }
            flushed.and(result)
        });
        if let Err((kind, detail)) = result {
            let item = work.current.as_ref().map_or(work.next_item, |current| current.item);
            reports.push(Report::Error { item, kind, detail });
            stop = Some(self.stop_code);
            work.over = true;
        }
        if work.trailing > TRAILING && !work.over {
            stop = Some(0);
            reports.push(Report::End { trailing: work.trailing });
            work.over = true;
        }
        if work.over {
            work.current = None;
            work.items.clear();
            work.pending.clear();
            work.pending_len = 0;
        }

        let mut gate = self.gate.lock();
        let done = before - work.pending_len;
        gate.queued -= done;
        self.worker.queued.fetch_sub(done, Ordering::Relaxed);
        if work.over {
            gate.over = true;
            self.discard(&mut gate);
        }
        gate.stop = gate.stop.or(stop);
        gate.waits_for = work.waits_for();
        gate.small =
            work.is_small() || work.idle() && gate.items.front().is_some_and(|i| i.blob.is_in_memory());
        gate.reports.extend(reports);
        let news = !gate.items.is_empty() && work.idle()
            || gate.end.is_some() && work.end.is_none()
            || gate.finished && !work.finished;
        let more = !gate.over && (gate.queued >= gate.waits_for || news);
        gate.item = work.current.as_ref().map_or(work.next_item, |current| current.item);
        gate.scheduled = more;
        match more {
            false => Turn::Done,
            true if small_only && !gate.small => Turn::HandOver,
            true => Turn::Again,
        }
    }

    /// Tells the engine or the application that there is something to look at. Not to be called under a lock: the
    /// waker may call into the engine.
    fn wake(&self) {
        let mut guard = self.gate.lock();
        let gate = &mut *guard;
        let has_room = gate.blocked && gate.queued <= self.limit_now() / 2;
        let ring = gate.bell.ring(has_room || gate.stop.is_some(), &mut gate.reports);
        drop(guard);
        ring.go(&self.worker, self.id);
    }

    fn limit_now(&self) -> usize {
        if self.worker.queued.load(Ordering::Relaxed) < TOTAL_LIMIT { TRANSFER_LIMIT } else { TRANSFER_FLOOR }
    }

    fn discard(&self, gate: &mut Gate) {
        gate.queue.clear();
        self.worker.queued.fetch_sub(gate.queued, Ordering::Relaxed);
        gate.queued = 0;
    }

    /// Works through the queue up to a slice.
    fn process(
        &self,
        work: &mut Work,
        run: &mut RunBuffer,
        reports: &mut Vec<Report>,
        small_only: bool,
    ) -> Result<(), Failure> {
        let mut budget = SLICE;
        while !work.over && budget > 0 {
            let Some(current) = &mut work.current else {
                if small_only && work.items.front().is_some_and(|item| !item.blob.is_in_memory()) {
                    return Ok(());
                }
                let may_start = work.pending_len > 0 || work.end.is_some();
                match work.items.front() {
                    Some(item) if may_start || item.query.is_empty() => work.start(self.limit),
                    Some(_) => return Ok(()),
                    None => {
                        work.end_of_items(reports);
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
                work.current = None;
                continue;
            }
            if small_only && current.verifier.size().is_some_and(|size| size > SMALL) {
                return Ok(());
            }
            if work.pending_len < need.len() {
                return match work.end {
                    None => Ok(()),
                    Some(StreamEnd::Reset(code)) => Err(("reset", Detail::Code(code))),
                    Some(StreamEnd::Lost) => Err(("lost", Detail::None)),
                    Some(StreamEnd::Finished) => current.verifier.ended(work.pending_len).map_err(decode),
                };
            }
            budget = budget.saturating_sub(need.len());
            work.pending_len -= need.len();
            match need {
                Need::Header => {
                    let mut header = [0; 8];
                    take(&mut work.pending, &mut header);
                    current.verifier.accept(&header).map_err(decode)?;
                    let size = current.verifier.size().unwrap_or(0);
                    current.selected = current.verifier.selected().bytes(size);
                    current.session.blob().claim(size).map_err(conflict)?;
                    reports.push(Report::Size { item: current.item, size });
                }
                Need::Pair { slot } => {
                    let mut pair: Pair = [0; 64];
                    take(&mut work.pending, &mut pair);
                    current.verifier.accept(&pair).map_err(decode)?;
                    if let Some(slot) = slot {
                        current.add_pair(run, slot, &pair)?;
                    }
                }
                Need::Leaf { offset, len } => {
                    if run.data.len() + len > SLICE || run.offset + run.data.len() as u64 != offset {
                        current.flush(run)?;
                    }
                    if run.data.is_empty() {
                        run.offset = offset;
                    }
                    let start = run.data.len();
                    take_to(&mut work.pending, &mut run.data, len);
                    if let Err(error) = current.verifier.accept(&run.data[start..]) {
                        run.data.truncate(start);
                        return Err(decode(error));
                    }
                    current.verified += len as u64;
                }
                Need::Done => {}
            }
        }
        Ok(())
    }
}

impl Work {
    /// Nothing at hand and nothing to take up.
    fn idle(&self) -> bool {
        self.current.is_none() && self.items.is_empty()
    }

    fn waits_for(&self) -> usize {
        match &self.current {
            Some(current) => {
                // At least that much of the item is still to come, so waiting for it never takes for ever.
                let remaining = usize::try_from(current.selected.saturating_sub(current.verified));
                current.verifier.need().len().max(remaining.unwrap_or(BATCH).min(BATCH))
            }
            None if self.items.is_empty() && !self.finished => usize::MAX,
            // Whatever comes belongs to the next item, or trails the last.
            None => 1,
        }
    }

    fn is_small(&self) -> bool {
        match (&self.current, self.items.front()) {
            (Some(current), _) => {
                current.session.blob().is_in_memory()
                    && current.verifier.size().is_none_or(|size| size <= SMALL)
            }
            (None, Some(item)) => item.blob.is_in_memory(),
            (None, None) => self.finished,
        }
    }

    fn start(&mut self, limit: u64) {
        let Some(Item { query, blob }) = self.items.pop_front() else { return };
        let item = self.next_item;
        let hash: Hash = *blob.hash();
        let verifier = Verifier::new(hash, query, limit.min(blob.limit()));
        let session = Session::new(blob);
        self.next_item += 1;
        self.current = Some(Current { item, verifier, session, selected: 0, verified: 0, reported: 0 });
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
            run.data.clear();
            written.map_err(|error| os(&error))?;
            let size = self.verifier.size().unwrap_or(0);
            let blob = self.session.blob();
            blob.commit(start, end, size, self.verifier.size_proven()).map_err(conflict)?;
        }
        Ok(())
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

impl Task for Inbound {
    fn run(&self) -> bool {
        let mut work = self.work.lock();
        let turn = self.turn(&mut work, false);
        drop(work);
        self.wake();
        matches!(turn, Turn::Again)
    }

    fn fail(&self, error: io::Error) {
        let mut gate = self.gate.lock();
        if gate.over {
            return;
        }
        gate.over = true;
        gate.scheduled = false;
        gate.stop = Some(self.stop_code);
        self.discard(&mut gate);
        let (kind, detail) = os(&error);
        let item = gate.item;
        gate.reports.push(Report::Error { item, kind, detail });
        drop(gate);
        self.wake();
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let gate = self.gate.get_mut();
        self.worker.queued.fetch_sub(gate.queued, Ordering::Relaxed);
    }
}

/// What the engine holds. It pushes packet by packet: they are collected here, so that the gate is taken for many at once.
struct Sink {
    inbound: Arc<Inbound>,
    pushed: VecDeque<Bytes>,
    pushed_len: usize,
}

impl Sink {
    fn hand_in(&mut self) {
        if self.pushed_len == 0 {
            return;
        }
        let len = std::mem::take(&mut self.pushed_len);
        let mut gate = self.inbound.gate.lock();
        if gate.over {
            drop(gate);
            self.pushed.clear();
            return;
        }
        gate.queued += len;
        self.inbound.worker.queued.fetch_add(len, Ordering::Relaxed);
        gate.queue.append(&mut self.pushed);
        self.inbound.advance(gate, false);
    }
}

impl StreamSink for Sink {
    fn attach(&mut self, waker: Waker) {
        let mut gate = self.inbound.gate.lock();
        gate.bell.attach(waker);
    }

    fn capacity(&mut self) -> usize {
        self.hand_in();
        let mut gate = self.inbound.gate.lock();
        gate.bell.looked();
        if gate.over {
            // The rest is thrown away, if it comes at all.
            return TRANSFER_LIMIT;
        }
        let room = self.inbound.limit_now().saturating_sub(gate.queued);
        gate.blocked = room == 0;
        room
    }

    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.pushed_len += data.len();
            self.pushed.push_back(data);
            if self.pushed_len >= BATCH {
                self.hand_in();
            }
        }
    }

    fn end(&mut self, end: StreamEnd) {
        self.hand_in();
        let mut gate = self.inbound.gate.lock();
        if gate.end.is_none() {
            gate.end = Some(end);
        }
        self.inbound.advance(gate, false);
    }

    fn notify(&mut self) -> bool {
        self.hand_in();
        let mut gate = self.inbound.gate.lock();
        gate.bell.looked();
        gate.reports.take_news()
    }

    fn stopped(&mut self) -> Option<u64> {
        self.hand_in();
        self.inbound.gate.lock().stop
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.hand_in();
        let mut gate = self.inbound.gate.lock();
        gate.bell.let_go();
        if gate.end.is_none() {
            gate.end = Some(StreamEnd::Lost);
        }
        self.inbound.advance(gate, true);
        // What the engine did not ask for any more.
        self.inbound.wake();
    }
}
