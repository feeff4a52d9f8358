//! Work on whole files: hash, import, validate, write, sync.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aioiroh_bao::ChunkRanges;
use aioiroh_bao::hash::Hash;
use parking_lot::Mutex;

use crate::blob::{Blob, OutboardAt};
use crate::file::OpenFile;
use crate::hashing::{Hashing, Outboard};
use crate::validate::Validating;
use crate::worker::{Event, SLICE, Shared, Task};
use crate::writing::Writing;

/// What a worker can be asked to do with files.
pub enum Job {
    /// Hash and outboard of a file; the outboard goes to memory or to a file that is created or emptied.
    HashFile { path: PathBuf, outboard: Option<PathBuf> },
    /// Hashes and outboards of many files, which should be small: outboards stay in memory.
    HashFiles { paths: Vec<PathBuf> },
    /// Copies a file to one that is created or emptied and hashes what is copied, in one pass.
    ImportFile { from: PathBuf, to: PathBuf, outboard: Option<PathBuf> },
    /// Which chunks of a blob's files verify. Whole groups of `trusted` are not read, but their pairs are checked.
    Validate { hash: Hash, data: PathBuf, outboard: OutboardAt, size: u64, trusted: ChunkRanges },
    /// Writes complete blobs to files that are created or emptied, sharing blocks where the file system can.
    WriteBlobs { blobs: Vec<(Arc<Blob>, PathBuf)> },
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
    Validated {
        present: ChunkRanges,
    },
    Written {
        size: u64,
    },
    Done,
    Error(io::Error),
}

/// Files of a [`Job::HashFiles`] opened in one turn.
const FILES_A_TURN: usize = 64;

pub(crate) struct JobTask {
    id: u64,
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
    // None during a slice and after the last one.
    state: Mutex<Option<State>>,
    ended: AtomicBool,
    is_waiting: bool,
}

enum State {
    New(Job),
    Hash(Hashing<Outboard>),
    Many { paths: std::vec::IntoIter<PathBuf>, index: usize, current: Option<Hashing<Vec<u8>>> },
    Validate(Validating),
    Write(Writing),
    Sync(std::vec::IntoIter<PathBuf>),
}

/// What comes next, or the last event.
type Step = ControlFlow<JobEvent, State>;

impl JobTask {
    pub(crate) fn new(id: u64, job: Job, cancelled: Arc<AtomicBool>, shared: Arc<Shared>) -> Self {
        let is_waiting = matches!(job, Job::SyncFiles { .. });
        let state = Mutex::new(Some(State::New(job)));
        Self { id, cancelled, shared, state, ended: AtomicBool::new(false), is_waiting }
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
            State::Validate(mut validating) => {
                if validating.step(SLICE)? {
                    return Ok(Step::Break(JobEvent::Validated { present: validating.finish() }));
                }
                if let Some(bytes) = validating.progress() {
                    self.tell(JobEvent::Progress(bytes));
                }
                Ok(Step::Continue(State::Validate(validating)))
            }
            State::Write(mut writing) => {
                if writing.step()? {
                    return Ok(Step::Break(JobEvent::Written { size: writing.written() }));
                }
                if let Some(bytes) = writing.progress() {
                    self.tell(JobEvent::Progress(bytes));
                }
                Ok(Step::Continue(State::Write(writing)))
            }
            State::Sync(mut paths) => match paths.next() {
                Some(path) => {
                    OpenFile::sync_path(&path)?;
                    Ok(Step::Continue(State::Sync(paths)))
                }
                None => Ok(Step::Break(JobEvent::Done)),
            },
        }
    }
}

fn begin(job: Job) -> io::Result<State> {
    Ok(match job {
        Job::HashFile { path, outboard } => State::Hash(Hashing::open(&path, Outboard::at(outboard)?)?),
        Job::ImportFile { from, to, outboard } => {
            State::Hash(Hashing::import(&from, &to, Outboard::at(outboard)?)?)
        }
        Job::Validate { hash, data, outboard, size, trusted } => {
            State::Validate(Validating::open(hash, data, outboard, size, trusted)?)
        }
        Job::HashFiles { paths } => State::Many { paths: paths.into_iter(), index: 0, current: None },
        Job::WriteBlobs { blobs } => State::Write(Writing::new(blobs)),
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

    fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}
