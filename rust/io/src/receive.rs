//! The native end of a receive stream: verifies responses and writes them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use aioiroh_bao::Hash;
use aioiroh_core::stream::{StreamEnd, StreamSink, Waker};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::bell::Bell;
use crate::blob::Blob;
use crate::intake::{BATCH, Item, Work};
use crate::report::{Report, Reports, os};
use crate::worker::{Shared, TOTAL_LIMIT, TRANSFER_FLOOR, TRANSFER_LIMIT, Task, Worker};

/// Bytes after the last item that are read and thrown away before the stream is stopped.
const TRAILING: u64 = 64 * 1024;

/// Data of whole blobs that are reported and not collected yet.
const COLLECTED_LIMIT: usize = 1024 * 1024;

/// The blob is complete or was opened for reading.
#[derive(Debug)]
pub struct NotWritable;

/// No blob is asked for, or another one.
#[derive(Debug)]
pub struct NotWanted;

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
    // Bytes that were ever pushed.
    received: u64,
    blocked: bool,
    // Bytes that it may still take; none: as many as come.
    allowance: Option<u64>,
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
    // What of a limit for whole blobs waits to be collected, and whether the next one waits for that.
    collected: usize,
    held: bool,
    // The whole blob that is asked for, and what was given for it.
    wanted: Option<Hash>,
    provided: Option<Arc<Blob>>,
    stop: Option<u64>,
    over: bool,
}

enum Turn {
    Done,
    Again,
    /// The worker has to go on.
    HandOver,
}

impl Receiver {
    /// Refuses sizes above `limit` bytes, and what makes all blobs together bring more than `total_limit`. Stops the
    /// stream with `stop_code` on an error.
    pub fn new(worker: &Worker, limit: u64, total_limit: Option<u64>, stop_code: u64) -> io::Result<Self> {
        worker.check_process()?;
        let worker = worker.shared().clone();
        Ok(Self(Arc::new_cyclic(|me| Inbound {
            me: me.clone(),
            id: worker.next_id(),
            worker,
            limit,
            stop_code,
            gate: Mutex::new(Gate { waits_for: usize::MAX, ..Gate::default() }),
            work: Mutex::new(Work::new(total_limit)),
        })))
    }

    /// The number under which the worker tells of reports once the engine has let the stream go.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Appends responses that come on the stream.
    pub fn expect(&self, items: Vec<Item>) -> Result<(), NotWritable> {
        if items.iter().any(|item| matches!(item, Item::Part { blob, .. } if !blob.is_writable())) {
            return Err(NotWritable);
        }
        let mut gate = self.0.gate.lock();
        if gate.waits_for == usize::MAX
            && let Some(first) = items.first()
        {
            gate.small = first.is_small();
            gate.waits_for = 0;
        }
        gate.items.extend(items);
        self.0.advance(gate, true);
        Ok(())
    }

    /// Gives the blob that was reported to be wanted.
    pub fn provide(&self, blob: Arc<Blob>) -> Result<(), NotWanted> {
        let mut gate = self.0.gate.lock();
        if gate.wanted.as_ref() != Some(blob.hash()) || !blob.is_writable() {
            return Err(NotWanted);
        }
        gate.wanted = None;
        gate.small = blob.is_in_memory();
        gate.waits_for = 0;
        gate.provided = Some(blob);
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

    /// Lets it take so many bytes more. From the first call on it takes no more than were allowed, and the stream is
    /// not drained meanwhile. Gives what is left.
    pub fn allow(&self, bytes: u64) -> u64 {
        let mut gate = self.0.gate.lock();
        let left = gate.allowance.unwrap_or(0).saturating_add(bytes);
        gate.allowance = Some(left);
        drop(gate);
        self.0.wake();
        left
    }

    /// Bytes that have come on the stream so far.
    pub fn received(&self) -> u64 {
        self.0.gate.lock().received
    }

    pub fn poll(&self) -> Vec<Report> {
        let mut gate = self.0.gate.lock();
        let reports = gate.reports.take();
        gate.collected = 0;
        if std::mem::take(&mut gate.held) {
            gate.waits_for = 0;
            self.0.advance(gate, true);
        }
        reports
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
        if !due || gate.scheduled || gate.over || gate.held || gate.wanted.is_some() {
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
            work.provided = work.provided.take().or_else(|| gate.provided.take());
            work.room = COLLECTED_LIMIT.saturating_sub(gate.collected);
        }
        let before = work.pending_len;
        let room = work.room;
        let mut reports = Vec::new();
        let mut stop = None;
        let result = work.slice(self.limit, small_only, &mut reports);
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
            work.give_up();
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
        // Who gets little at a time is not kept waiting for much.
        let batch = gate.allowance.map_or(BATCH as u64, |left| left.min(BATCH as u64)) as usize;
        gate.waits_for = work.waits_for(batch);
        gate.small = work.is_small() || work.idle() && gate.items.front().is_some_and(|item| item.is_small());
        gate.collected += room - work.room;
        gate.wanted = work.wanted().copied();
        gate.held = work.is_held() && gate.collected >= COLLECTED_LIMIT;
        gate.reports.extend(reports);
        let news = !gate.items.is_empty() && work.idle()
            || gate.end.is_some() && work.end.is_none()
            || gate.finished && !work.finished;
        // After the end no bytes come that could make a turn worthwhile; the slice may have stopped short of it.
        let ended = work.end.is_some() && (!work.idle() || work.finished);
        let waits = gate.held || gate.wanted.is_some();
        let more = !gate.over && !waits && (gate.queued >= gate.waits_for || news || ended);
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
        let has_room = gate.blocked && gate.allowance != Some(0) && gate.queued <= self.limit_now() / 2;
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
        gate.allowance = gate.allowance.map(|left| left.saturating_sub(len as u64));
        gate.queued += len;
        gate.received += len as u64;
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
        let allowed = gate.allowance.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let room = self.inbound.limit_now().saturating_sub(gate.queued).min(allowed);
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
