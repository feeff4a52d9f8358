//! The native end of a send stream: reads blobs and writes responses, verified again on the way.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use aioiroh_bao::ChunkRanges;
use aioiroh_core::stream::{Next, StreamSource, Waker};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::bell::Bell;
use crate::blob::Blob;
use crate::output::{Item, Work};
use crate::report::{Detail, Failure, Report, Reports, os};
use crate::worker::{SLICE, Shared, TOTAL_LIMIT, TRANSFER_LIMIT, Task, Worker};

/// What a sender queues when all transfers together queue too much.
const FLOOR: usize = crate::buffer::LARGE;
/// Code of the reset after a failure: "internal", as upstream's provider says for all that is not a refusal.
const INTERNAL: u64 = 3;

/// Sends responses in order on one stream. Clones are the same sender.
#[derive(Clone)]
pub struct Sender(Arc<Outbound>);

struct Outbound {
    me: Weak<Outbound>,
    id: u64,
    worker: Arc<Shared>,
    // As in the receiver: the gate for moments, the work for a slice; work is taken before the gate.
    gate: Mutex<Gate>,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Gate {
    attached: bool,
    bell: Bell,

    items: VecDeque<Item>,
    finished: bool,

    out: VecDeque<Bytes>,
    out_len: usize,
    // Bytes ever encoded and ever handed to the engine, and what is to be reported when the latter gets that far.
    encoded: u64,
    sent: u64,
    // Bytes that it may still hand over; none: as many as there are.
    allowance: Option<u64>,
    marks: VecDeque<(u64, Report)>,
    // The engine was told that nothing is there.
    starved: bool,

    scheduled: bool,
    // All items were encoded.
    drained: bool,
    small: bool,

    // Number of the first item that is not done.
    item: u64,
    reports: Reports,
    reset: Option<u64>,
    failed: bool,
    over: bool,
}

impl Sender {
    pub fn new(worker: &Worker) -> io::Result<Self> {
        worker.check_process()?;
        let worker = worker.shared().clone();
        Ok(Self(Arc::new_cyclic(|me| Outbound {
            me: me.clone(),
            id: worker.next_id(),
            worker,
            gate: Mutex::new(Gate { drained: true, small: true, ..Gate::default() }),
            work: Mutex::default(),
        })))
    }

    /// The number under which the worker tells of reports once the engine has let the stream go.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Appends the response to a query for a blob. Items are numbered in this order.
    pub fn push(&self, blob: Arc<Blob>, query: ChunkRanges) {
        self.0.append(Item::Blob { blob, query });
    }

    /// Appends bytes as they are, an item that is only reported to be done.
    pub fn raw(&self, data: Bytes) {
        self.0.append(Item::Raw(data));
    }

    /// Nothing more will be appended: the stream is finished after the last item.
    pub fn finish(&self) {
        let mut gate = self.0.gate.lock();
        gate.finished = true;
        drop(gate);
        self.0.wake();
    }

    /// Resets the stream at once.
    pub fn reset(&self, code: u64) {
        let mut gate = self.0.gate.lock();
        gate.reset.get_or_insert(code);
        drop(gate);
        self.0.wake();
    }

    /// Lets it hand over so many bytes more. From the first call on it hands over no more than were allowed. Gives
    /// what is left.
    pub fn allow(&self, bytes: u64) -> u64 {
        let mut gate = self.0.gate.lock();
        let left = gate.allowance.unwrap_or(0).saturating_add(bytes);
        gate.allowance = Some(left);
        drop(gate);
        self.0.wake();
        left
    }

    /// Bytes handed to the engine so far.
    pub fn sent(&self) -> u64 {
        self.0.gate.lock().sent
    }

    pub fn poll(&self) -> Vec<Report> {
        self.0.gate.lock().reports.take()
    }

    /// The end to attach to a stream; None the second time.
    pub fn source(&self) -> Option<Box<dyn StreamSource>> {
        let mut gate = self.0.gate.lock();
        if std::mem::replace(&mut gate.attached, true) {
            return None;
        }
        Some(Box::new(Source { outbound: self.0.clone() }))
    }
}

impl Outbound {
    fn append(&self, item: Item) {
        let mut gate = self.gate.lock();
        if gate.over || gate.failed {
            return;
        }
        if gate.drained {
            gate.drained = false;
            gate.small = item.is_small();
        }
        gate.items.push_back(item);
        // What is small is encoded when the engine asks for it.
        let submit = !gate.small && self.claim(&mut gate);
        drop(gate);
        if submit {
            self.submit();
        }
        self.wake();
    }

    /// Whether a turn is due and nobody takes it; then the caller has to.
    fn claim(&self, gate: &mut Gate) -> bool {
        let due = !gate.scheduled
            && !gate.drained
            && !gate.over
            && !gate.failed
            && gate.reset.is_none()
            && gate.out_len <= self.limit_now() / 2;
        if due {
            gate.scheduled = true;
        }
        due
    }

    fn submit(&self) {
        if let Some(me) = self.me.upgrade() {
            self.worker.submit(me);
        }
    }

    fn limit_now(&self) -> usize {
        if self.worker.queued.load(Ordering::Relaxed) < TOTAL_LIMIT { TRANSFER_LIMIT } else { FLOOR }
    }

    /// One slice of work. True if it wants another.
    fn turn(&self, work: &mut Work, small_only: bool) -> bool {
        let room = {
            let mut gate = self.gate.lock();
            work.items.append(&mut gate.items);
            if gate.over || gate.reset.is_some() {
                work.items.clear();
                work.current = None;
                gate.scheduled = false;
                gate.drained = true;
                return false;
            }
            self.limit_now().saturating_sub(gate.out_len)
        };
        let result = self.process(work, room.min(SLICE), small_only);
        if let Err((kind, detail)) = &result {
            let item = work.current.as_ref().map_or(work.next_item, |current| current.item);
            work.mark(Report::Error { item, kind, detail: detail.clone() });
            work.current = None;
            work.items.clear();
        }
        self.publish(work);

        let mut gate = self.gate.lock();
        gate.failed |= result.is_err();
        if work.current.is_none() && work.items.is_empty() {
            work.buffer.forget();
        }
        gate.drained =
            gate.failed || work.current.is_none() && work.items.is_empty() && gate.items.is_empty();
        gate.small = match (&work.current, work.items.front().or(gate.items.front())) {
            (Some(current), _) => current.is_small(),
            (None, Some(item)) => item.is_small(),
            (None, None) => true,
        };
        let more = !gate.drained && !gate.small && gate.out_len < self.limit_now();
        gate.scheduled = more;
        more
    }

    /// Moves what was encoded to the queue for the engine.
    fn publish(&self, work: &mut Work) {
        let mut gate = self.gate.lock();
        let base = gate.encoded;
        gate.marks.extend(work.marks.drain(..).map(|(at, report)| (base + at as u64, report)));
        if let Some(piece) = work.raw.take().or_else(|| work.buffer.take()) {
            gate.encoded += piece.len() as u64;
            gate.out_len += piece.len();
            self.worker.queued.fetch_add(piece.len(), Ordering::Relaxed);
            gate.out.push_back(piece);
        }
        if gate.over {
            self.discard(&mut gate);
        }
    }

    fn discard(&self, gate: &mut Gate) {
        gate.out.clear();
        self.worker.queued.fetch_sub(gate.out_len, Ordering::Relaxed);
        gate.out_len = 0;
        gate.items.clear();
        gate.marks.clear();
    }

    /// Encodes about `room` bytes.
    fn process(&self, work: &mut Work, mut room: usize, small_only: bool) -> Result<(), Failure> {
        while work.fill(&mut room, small_only)? {
            self.publish(work);
            self.wake_starved();
        }
        Ok(())
    }

    /// As [`wake`](Self::wake), in the middle of a slice; the engine may be asked to come for the first bytes.
    fn wake_starved(&self) {
        if !self.worker.is_inline() {
            self.wake();
        }
    }

    /// Tells the engine or the application that there is something to look at. Not to be called under the gate: the waker
    /// may call into the engine. The engine never waits for the work while a turn is scheduled.
    fn wake(&self) {
        let mut guard = self.gate.lock();
        let gate = &mut *guard;
        let ready = gate.starved
            && (!gate.out.is_empty() && gate.allowance != Some(0)
                || gate.reset.is_some()
                || gate.failed
                || gate.drained && gate.finished
                || !gate.drained && gate.small && !gate.scheduled);
        let ring = gate.bell.ring(ready, &mut gate.reports);
        drop(guard);
        ring.go(&self.worker, self.id);
    }
}

impl Task for Outbound {
    fn run(&self) -> bool {
        let mut work = self.work.lock();
        let more = self.turn(&mut work, false);
        drop(work);
        self.wake();
        more
    }

    fn fail(&self, error: io::Error) {
        let mut gate = self.gate.lock();
        if gate.over {
            return;
        }
        self.discard(&mut gate);
        gate.scheduled = false;
        gate.drained = true;
        gate.failed = true;
        let (kind, detail) = os(&error);
        let item = gate.item;
        gate.reports.push(Report::Error { item, kind, detail });
        drop(gate);
        self.wake();
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let gate = self.gate.get_mut();
        self.worker.queued.fetch_sub(gate.out_len, Ordering::Relaxed);
    }
}

impl Gate {
    /// Reports what lies before the bytes that the engine takes next.
    fn pass_marks(&mut self) {
        while self.marks.front().is_some_and(|(at, _)| *at <= self.sent) {
            if let Some((_, report)) = self.marks.pop_front() {
                if let Report::Done { item } = report {
                    self.item = item + 1;
                }
                self.reports.push(report);
            }
        }
    }
}

/// What the engine holds.
struct Source {
    outbound: Arc<Outbound>,
}

impl StreamSource for Source {
    fn attach(&mut self, waker: Waker) {
        let mut gate = self.outbound.gate.lock();
        gate.bell.attach(waker);
    }

    fn next(&mut self, max: usize) -> Next {
        let outbound = &self.outbound;
        loop {
            let mut gate = outbound.gate.lock();
            gate.bell.looked();
            gate.starved = false;
            gate.pass_marks();
            if let Some(code) = gate.reset {
                gate.over = true;
                outbound.discard(&mut gate);
                return Next::Reset(code);
            }
            let allowed =
                gate.allowance.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            if allowed == 0 && !gate.out.is_empty() {
                gate.starved = true;
                return Next::Pending;
            }
            if let Some(front) = gate.out.front_mut() {
                let data = front.split_to(front.len().min(max).min(allowed));
                if front.is_empty() {
                    gate.out.pop_front();
                }
                gate.out_len -= data.len();
                gate.sent += data.len() as u64;
                gate.allowance = gate.allowance.map(|left| left - data.len() as u64);
                outbound.worker.queued.fetch_sub(data.len(), Ordering::Relaxed);
                gate.pass_marks();
                if !gate.small && !outbound.worker.is_inline() && outbound.claim(&mut gate) {
                    drop(gate);
                    outbound.submit();
                }
                return Next::Data(data);
            }
            if gate.failed {
                gate.over = true;
                return Next::Reset(INTERNAL);
            }
            if gate.drained && gate.finished {
                gate.over = true;
                gate.reports.push(Report::End { trailing: 0 });
                return Next::Finish;
            }
            let inline = gate.small || outbound.worker.is_inline();
            if !outbound.claim(&mut gate) {
                gate.starved = true;
                return Next::Pending;
            }
            if !inline {
                gate.starved = true;
                drop(gate);
                outbound.submit();
                return Next::Pending;
            }
            drop(gate);
            let mut work = outbound.work.lock();
            let more = outbound.turn(&mut work, !outbound.worker.is_inline());
            drop(work);
            if more {
                // Not small any more, or an inline worker that has a full queue's room left.
                if outbound.worker.is_inline() {
                    outbound.gate.lock().scheduled = false;
                } else {
                    outbound.submit();
                }
            }
        }
    }

    fn notify(&mut self) -> bool {
        let mut gate = self.outbound.gate.lock();
        gate.bell.looked();
        gate.reports.take_news()
    }

    fn abort(&mut self, code: Option<u64>) {
        self.outbound.aborted(code);
    }
}

impl Outbound {
    fn aborted(&self, code: Option<u64>) {
        let mut gate = self.gate.lock();
        if gate.over {
            return;
        }
        gate.over = true;
        self.discard(&mut gate);
        let item = gate.item;
        gate.reports.push(match code {
            Some(code) => Report::Error { item, kind: "stopped", detail: Detail::Code(code) },
            None => Report::Error { item, kind: "lost", detail: Detail::None },
        });
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.outbound.aborted(None);
        self.outbound.gate.lock().bell.let_go();
        // What the engine did not ask for any more.
        self.outbound.wake();
    }
}
