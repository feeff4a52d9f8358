//! The disk thread: takes transfers and jobs in turn, a slice each. Those that only wait for the disk have a thread of
//! their own, so that nobody waits for them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::job::{Job, JobEvent, JobTask};
use crate::journal::{self, Op};
use crate::signal::Signal;

/// Bytes a transfer or job works on before the next one's turn.
pub(crate) const SLICE: usize = 1024 * 1024;
/// Bytes a transfer queues in either direction.
pub(crate) const TRANSFER_LIMIT: usize = 2 * 1024 * 1024;
/// Bytes all transfers queue; beyond it each gets only [`TRANSFER_FLOOR`].
pub(crate) const TOTAL_LIMIT: usize = 64 * 1024 * 1024;
/// What a transfer may queue in any case: more than the largest item on the wire, so that each goes on.
pub(crate) const TRANSFER_FLOOR: usize = 64 * 1024;
/// Jobs that may wait or run.
const MAX_JOBS: usize = 4096;
/// Job events not yet collected, beyond which jobs pause.
const MAX_EVENTS: usize = 4096;

/// Events that are collected at once.
const EVENTS_AT_ONCE: usize = 64;

/// The lanes.
const WORK: usize = 0;
const WAIT: usize = 1;

/// Something the worker does a slice of at a time.
pub(crate) trait Task: Send + Sync {
    /// One slice. True to get another turn.
    fn run(&self) -> bool;

    /// The worker is closed, or the task panicked: tell its owner.
    fn fail(&self, error: io::Error);

    /// Whether it does nothing but wait for the disk.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Whether it waits while too many events are not collected.
    fn yields_to_events(&self) -> bool {
        false
    }
}

/// What [`Worker::poll`] returns.
#[derive(Debug)]
pub enum Event {
    /// Of a job.
    Job(u64, JobEvent),
    /// A receiver or sender that the engine has let go has reports.
    Transfer(u64),
}

pub(crate) struct Shared {
    inline: bool,
    // For those that work and those that wait.
    lanes: [Lane; 2],
    events: Mutex<VecDeque<Event>>,
    signal: Signal,
    ids: AtomicU64,
    // Unfinished jobs and whether each is cancelled.
    jobs: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    /// Bytes in the queues of all transfers.
    pub(crate) queued: AtomicUsize,
}

/// Tasks that one thread takes in turn.
#[derive(Default)]
struct Lane {
    run: Mutex<Run>,
    wake: Condvar,
}

#[derive(Default)]
struct Run {
    tasks: VecDeque<Arc<dyn Task>>,
    paused: Vec<Arc<dyn Task>>,
    closed: bool,
}

/// The worker. Dropping it lets the threads end by themselves; [`close`](Self::close) waits for that.
pub struct Worker {
    shared: Arc<Shared>,
    // Of each lane; the second is started when there is something to wait for.
    threads: Mutex<[Option<JoinHandle<()>>; 2]>,
    process: u32,
    // Whether the journal of this thread is ours.
    journal: AtomicBool,
}

impl Worker {
    /// An inline worker has no thread: everything is done by the call that makes it possible.
    pub fn new(inline: bool) -> io::Result<Self> {
        Self::with(inline, false)
    }

    /// An inline worker that keeps a [journal](Self::journal), one for each thread, as long as it lives.
    pub fn with_journal() -> io::Result<Self> {
        if !journal::begin() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this thread has a journal already"));
        }
        Self::with(true, true).inspect_err(|_| journal::end())
    }

    fn with(inline: bool, journal: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inline,
            lanes: Default::default(),
            events: Mutex::default(),
            signal: Signal::new()?,
            ids: AtomicU64::new(1),
            jobs: Mutex::default(),
            queued: AtomicUsize::new(0),
        });
        let worker = Self {
            shared,
            threads: Mutex::default(),
            process: std::process::id(),
            journal: AtomicBool::new(journal),
        };
        worker.start_thread(WORK)?;
        Ok(worker)
    }

    fn start_thread(&self, lane: usize) -> io::Result<()> {
        let thread = &mut self.threads.lock()[lane];
        if thread.is_none() && !self.shared.inline {
            let shared = self.shared.clone();
            let name = ["aioiroh-disk", "aioiroh-sync"][lane];
            let run = move || shared.lanes[lane].work(&shared);
            *thread = Some(std::thread::Builder::new().name(name.into()).spawn(run)?);
        }
        Ok(())
    }

    /// Readable when [`poll`](Self::poll) has something.
    pub fn fd(&self) -> RawFd {
        self.shared.signal.fd()
    }

    pub fn poll(&self) -> Vec<Event> {
        self.shared.signal.lower();
        let events = self.shared.take_events();
        for lane in &self.shared.lanes {
            let paused = std::mem::take(&mut lane.run.lock().paused);
            for task in paused {
                self.shared.submit(task);
            }
        }
        events
    }

    /// What native code did to files on this thread since the last call, in order: also what blobs do that are read,
    /// written or made durable without this worker. None without a journal.
    pub fn journal(&self) -> Option<Vec<Op>> {
        self.journal.load(Ordering::Relaxed).then(journal::take)
    }

    /// Starts a job; its events carry the number returned. Error EAGAIN: too many jobs.
    pub fn start(&self, job: Job) -> io::Result<u64> {
        self.check_process()?;
        if matches!(job, Job::SyncFiles { .. }) {
            self.start_thread(WAIT)?;
        }
        let id = self.shared.next_id();
        let cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut jobs = self.shared.jobs.lock();
            if jobs.len() >= MAX_JOBS {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            jobs.insert(id, cancelled.clone());
        }
        self.shared.submit(Arc::new(JobTask::new(id, job, cancelled, self.shared.clone())));
        Ok(id)
    }

    /// Ends a job early; it ends with the error ECANCELED unless it is done before.
    pub fn cancel(&self, job: u64) {
        if let Some(cancelled) = self.shared.jobs.lock().get(&job) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the threads after the slices they are in, and fails what was not done.
    pub fn close(&self) {
        self.end_journal();
        self.shared.close();
        if self.process == std::process::id() {
            for thread in self.threads.lock().iter_mut().filter_map(Option::take) {
                let _ = thread.join();
            }
        }
    }

    fn end_journal(&self) {
        if self.journal.swap(false, Ordering::Relaxed) {
            journal::end();
        }
    }

    /// Bytes that all transfers have queued.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// A child process has the memory of the thread but not the thread.
    pub(crate) fn check_process(&self) -> io::Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(io::Error::other("the disk worker belongs to the parent process; make a new one after fork"))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end_journal();
        // After a fork the locks may be held by a thread that does not exist here.
        if self.process == std::process::id() {
            self.shared.close();
        }
    }
}

impl Shared {
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.inline
    }

    /// Gives a task its turns until it wants no more. Not to be called twice for a task that has turns.
    pub(crate) fn submit(&self, task: Arc<dyn Task>) {
        let lane = &self.lanes[if task.is_waiting() { WAIT } else { WORK }];
        if self.inline {
            while !lane.run.lock().closed {
                match turn(&*task) {
                    true if task.yields_to_events() && self.events_are_full() => {
                        lane.run.lock().paused.push(task);
                        return;
                    }
                    true => {}
                    false => return,
                }
            }
            task.fail(closed());
            return;
        }
        let mut run = lane.run.lock();
        if run.closed {
            drop(run);
            task.fail(closed());
            return;
        }
        run.tasks.push_back(task);
        lane.wake.notify_one();
    }

    /// For the application, by way of the file descriptor.
    pub(crate) fn tell(&self, event: Event) {
        let mut events = self.events.lock();
        // An event that says the same again, or more of the same, takes the place of the one before.
        let told = match (&event, events.back_mut()) {
            (Event::Job(id, JobEvent::Progress(more)), Some(Event::Job(last, JobEvent::Progress(bytes))))
                if last == id =>
            {
                *bytes = *more;
                true
            }
            (Event::Transfer(id), _) => events.iter().any(|e| matches!(e, Event::Transfer(x) if x == id)),
            _ => false,
        };
        if !told {
            events.push_back(event);
        }
        drop(events);
        self.signal.raise();
    }

    pub(crate) fn job_ended(&self, id: u64) {
        self.jobs.lock().remove(&id);
    }

    /// Not more than are quickly dealt with; the file descriptor stays readable for the rest.
    fn take_events(&self) -> Vec<Event> {
        let mut events = self.events.lock();
        let most = if self.inline { events.len() } else { events.len().min(EVENTS_AT_ONCE) };
        let taken = events.drain(..most).collect();
        if !events.is_empty() {
            self.signal.raise();
        }
        taken
    }

    fn events_are_full(&self) -> bool {
        self.events.lock().len() >= MAX_EVENTS
    }

    fn close(&self) {
        for lane in &self.lanes {
            let (tasks, paused) = {
                let mut run = lane.run.lock();
                run.closed = true;
                (std::mem::take(&mut run.tasks), std::mem::take(&mut run.paused))
            };
            lane.wake.notify_one();
            for task in tasks.into_iter().chain(paused) {
                task.fail(closed());
            }
        }
    }
}

impl Lane {
    fn work(&self, shared: &Shared) {
        loop {
            let task = {
                let mut run = self.run.lock();
                loop {
                    if run.closed {
                        return;
                    }
                    if let Some(task) = run.tasks.pop_front() {
                        break task;
                    }
                    self.wake.wait(&mut run);
                }
            };
            if turn(&*task) {
                let mut run = self.run.lock();
                if run.closed {
                    drop(run);
                    task.fail(closed());
                } else if task.yields_to_events() && shared.events_are_full() {
                    run.paused.push(task);
                } else {
                    run.tasks.push_back(task);
                }
            }
        }
    }
}

/// One slice; a panic ends the task, not the thread.
fn turn(task: &dyn Task) -> bool {
    catch_unwind(AssertUnwindSafe(|| task.run())).unwrap_or_else(|_| {
        task.fail(io::Error::other("internal error in the disk worker"));
        false
    })
}

fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}
