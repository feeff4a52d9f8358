//! Work on whole files: hash, copy, sync.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aioiroh_bao::Builder;
use aioiroh_bao::hash::{Hash, Pair};
use aioiroh_bao::outboard::PairSink;
use aioiroh_bao::tree::PAIR;
use parking_lot::Mutex;
use std::os::unix::fs::FileExt;

use crate::file::open_regular;
use crate::worker::{Event, SLICE, Shared, Task};

/// What a worker can be asked to do with files.
#[derive(Debug)]
pub enum Job {
    /// Hash and outboard of a file; the outboard goes to memory or to a file that is created or emptied.
    HashFile { path: PathBuf, outboard: Option<PathBuf> },
    /// Hashes and outboards of many files, which should be small: outboards stay in memory.
    HashFiles { paths: Vec<PathBuf> },
    /// Copies a file to one that is created or emptied, sharing blocks where the file system can.
    CopyFile { from: PathBuf, to: PathBuf },
    /// Makes files or directories durable.
    SyncFiles { paths: Vec<PathBuf> },
}

/// What became of it.
#[derive(Debug)]
pub enum JobEvent {
    /// So many bytes are done.
    Progress(u64),
    /// One of many files.
    File {
        index: usize,
        hash: Hash,
        size: u64,
        outboard: Vec<u8>,
    },
    /// One of many files could not be hashed; the job goes on.
    FileError {
        index: usize,
        error: io::Error,
    },
    Hashed {
        hash: Hash,
        size: u64,
        outboard: Option<Vec<u8>>,
    },
    Copied {
        size: u64,
    },
    Done,
    Error(io::Error),
}

/// Bytes of progress that make an event.
const STEP: u64 = 4 * 1024 * 1024;
/// Files of a [`Job::HashFiles`] opened in one turn.
const FILES_A_TURN: usize = 64;

pub(crate) struct JobTask {
    id: u64,
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
    // None during a slice and after the last one.
    state: Mutex<Option<State>>,
    ended: AtomicBool,
}

enum State {
    New(Job),
    Hash(Hashing<Outboard>),
    Many { paths: std::vec::IntoIter<PathBuf>, index: usize, current: Option<Hashing<Vec<u8>>> },
    Copy { from: File, to: File, copied: u64, told: u64 },
    Sync(std::vec::IntoIter<PathBuf>),
}

/// What comes next, or the last event.
type Step = ControlFlow<JobEvent, State>;

impl JobTask {
    pub(crate) fn new(id: u64, job: Job, cancelled: Arc<AtomicBool>, shared: Arc<Shared>) -> Self {
        let state = Mutex::new(Some(State::New(job)));
        Self { id, cancelled, shared, state, ended: AtomicBool::new(false) }
    }

    fn tell(&self, event: JobEvent) {
        self.shared.tell(Event::Job(self.id, event));
    }

    fn end(&self, event: JobEvent) {
        if !self.ended.swap(true, Ordering::SeqCst) {
            self.shared.job_ended(self.id);
            self.tell(event);
        }
    }

    /// One slice.
    fn step(&self, state: State) -> io::Result<Step> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        match state {
            State::New(job) => begin(job).map(Step::Continue),
            State::Hash(mut hashing) => {
                if hashing.step(SLICE)? {
                    let (hash, size, outboard) = hashing.finish()?;
                    let outboard = outboard.finish()?;
                    return Ok(Step::Break(JobEvent::Hashed { hash, size, outboard }));
                }
                if let Some(bytes) = hashing.progress() {
                    self.tell(JobEvent::Progress(bytes));
                }
                Ok(Step::Continue(State::Hash(hashing)))
            }
            State::Many { mut paths, mut index, mut current } => {
                let mut budget = SLICE;
                for _ in 0..FILES_A_TURN {
                    let hashing = match current.take() {
                        Some(hashing) => Ok(hashing),
                        None => match paths.next() {
                            Some(path) => Hashing::open(&path, Vec::new()),
                            None => return Ok(Step::Break(JobEvent::Done)),
                        },
                    };
                    match hashing.and_then(|hashing| hashing.run(&mut budget)) {
                        Ok(Ok((hash, size, outboard))) => {
                            self.tell(JobEvent::File { index, hash, size, outboard });
                            index += 1;
                        }
                        Ok(Err(unfinished)) => current = Some(unfinished),
                        Err(error) => {
                            self.tell(JobEvent::FileError { index, error });
                            index += 1;
                        }
                    }
                    if budget == 0 {
                        break;
                    }
                }
                Ok(Step::Continue(State::Many { paths, index, current }))
            }
            State::Copy { mut from, mut to, mut copied, mut told } => {
                // `io::copy` between files copies in the kernel, or shares blocks.
                let now = io::copy(&mut Read::by_ref(&mut from).take(8 * SLICE as u64), &mut to)?;
                copied += now;
                if now == 0 {
                    return Ok(Step::Break(JobEvent::Copied { size: copied }));
                }
                if copied - told >= STEP {
                    told = copied;
                    self.tell(JobEvent::Progress(copied));
                }
                Ok(Step::Continue(State::Copy { from, to, copied, told }))
            }
            State::Sync(mut paths) => match paths.next() {
                Some(path) => {
                    File::open(path)?.sync_all()?;
                    Ok(Step::Continue(State::Sync(paths)))
                }
                None => Ok(Step::Break(JobEvent::Done)),
            },
        }
    }
}

fn begin(job: Job) -> io::Result<State> {
    Ok(match job {
        Job::HashFile { path, outboard } => {
            let outboard = match outboard {
                None => Outboard::Memory(Vec::new()),
                Some(path) => Outboard::file(path)?,
            };
            State::Hash(Hashing::open(&path, outboard)?)
        }
        Job::HashFiles { paths } => State::Many { paths: paths.into_iter(), index: 0, current: None },
        Job::CopyFile { from, to } => {
            let from = open_regular(&from)?;
            let to = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
            State::Copy { from, to, copied: 0, told: 0 }
        }
        Job::SyncFiles { paths } => State::Sync(paths.into_iter()),
    })
}

impl Task for JobTask {
    fn run(&self) -> bool {
        let mut state = self.state.lock();
        let Some(now) = state.take() else { return false };
        match self.step(now) {
            Ok(Step::Continue(next)) => {
                *state = Some(next);
                true
            }
            Ok(Step::Break(event)) => {
                self.end(event);
                false
            }
            Err(error) => {
                self.end(JobEvent::Error(error));
                false
            }
        }
    }

    fn fail(&self, error: io::Error) {
        self.end(JobEvent::Error(error));
    }

    fn yields_to_events(&self) -> bool {
        true
    }
}

/// A file being hashed.
struct Hashing<S> {
    file: File,
    before: Metadata,
    builder: Builder,
    sink: S,
    told: u64,
}

impl<S: PairSink> Hashing<S> {
    fn open(path: &std::path::Path, sink: S) -> io::Result<Self> {
        let file = open_regular(path)?;
        let before = file.metadata()?;
        let builder = Builder::new(before.len());
        Ok(Self { file, before, builder, sink, told: 0 })
    }

    /// Hashes up to `budget` bytes; true at the end of the file.
    fn step(&mut self, budget: usize) -> io::Result<bool> {
        thread_local!(static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
        let left = self.before.len() - self.builder.position();
        let want = left.min(budget.min(SLICE) as u64) as usize;
        if want == 0 {
            return Ok(left == 0);
        }
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < want {
                buffer.resize(want, 0);
            }
            let buffer = &mut buffer[..want];
            self.file.read_exact_at(buffer, self.builder.position()).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                _ => error,
            })?;
            self.builder.update(buffer, &mut self.sink).map_err(|_| changed())
        })?;
        Ok(want as u64 == left)
    }

    /// Hashes up to `budget` bytes and takes them from it; itself if the file goes on.
    fn run(mut self, budget: &mut usize) -> io::Result<Result<(Hash, u64, S), Self>> {
        let before = self.builder.position();
        let done = self.step(*budget)?;
        *budget -= (self.builder.position() - before) as usize;
        if done { self.finish().map(Ok) } else { Ok(Err(self)) }
    }

    fn progress(&mut self) -> Option<u64> {
        let position = self.builder.position();
        let due = position - self.told >= STEP;
        if due {
            self.told = position;
        }
        due.then_some(position)
    }

    fn finish(self) -> io::Result<(Hash, u64, S)> {
        let after = self.file.metadata()?;
        if after.len() != self.before.len() || after.modified().ok() != self.before.modified().ok() {
            return Err(changed());
        }
        let hash = self.builder.finish().map_err(|_| changed())?;
        Ok((hash, after.len(), self.sink))
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "the file was changed while it was hashed; try again")
}

/// Where the outboard of a hashed file goes.
enum Outboard {
    Memory(Vec<u8>),
    File { file: File, pending: Vec<(u64, Pair)>, error: Option<io::Error> },
}

/// Pairs held back to be written in order, in few calls.
const PENDING: usize = 4096;

impl Outboard {
    fn file(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Self::File { file, pending: Vec::new(), error: None })
    }

    fn finish(self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Memory(bytes) => Ok(Some(bytes)),
            Self::File { file, mut pending, error } => match error {
                Some(error) => Err(error),
                None => write_pairs(&file, &mut pending).map(|()| None),
            },
        }
    }
}

impl PairSink for Outboard {
    fn put(&mut self, slot: u64, pair: &Pair) {
        match self {
            Self::Memory(bytes) => bytes.put(slot, pair),
            Self::File { file, pending, error } => {
                pending.push((slot, *pair));
                if pending.len() >= PENDING && error.is_none() {
                    *error = write_pairs(file, pending).err();
                }
            }
        }
    }
}

/// Writes pairs at their places, runs of consecutive ones together.
fn write_pairs(file: &File, pending: &mut Vec<(u64, Pair)>) -> io::Result<()> {
    pending.sort_unstable_by_key(|(slot, _)| *slot);
    let mut run = Vec::with_capacity(pending.len() * PAIR);
    let mut pairs = pending.iter().peekable();
    let mut start = None;
    while let Some((slot, pair)) = pairs.next() {
        let first = *start.get_or_insert(*slot);
        run.extend_from_slice(pair);
        if pairs.peek().is_none_or(|(next, _)| *next != slot + 1) {
            file.write_all_at(&run, first * PAIR as u64)?;
            run.clear();
            start = None;
        }
    }
    pending.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use aioiroh_bao::tree::outboard_len;

    use super::*;

    #[test]
    fn an_outboard_file_has_its_pairs_in_place() {
        let data: Vec<u8> = (0..300_u32 * 16384 + 5).map(|i| (i % 251) as u8).collect();
        let (hash, expected) = aioiroh_bao::outboard::of_bytes(&data);
        assert_eq!(expected.len() as u64, outboard_len(data.len() as u64));
        let path = std::env::temp_dir().join(format!("aioiroh-outboard-{}", std::process::id()));
        let mut sink = Outboard::file(path.clone()).unwrap();
        let mut builder = Builder::new(data.len() as u64);
        builder.update(&data, &mut sink).unwrap();
        assert_eq!(builder.finish().unwrap(), hash);
        assert!(sink.finish().unwrap().is_none());
        assert!(std::fs::read(&path).unwrap() == expected);
        std::fs::remove_file(path).unwrap();
    }
}
