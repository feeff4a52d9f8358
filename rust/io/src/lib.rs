//! Everything that touches file contents: verify and write, read and encode, hash, copy, sync.
//!
//! One thread does it, for all transfers and jobs in turn, a slice each; it holds nothing of Python's. An inline
//! worker runs the same code where it is called, for simulations and for places without threads.
#![forbid(unsafe_code)]

mod aligned;
mod bell;
mod blob;
mod buffer;
mod copying;
mod file;
mod hashing;
mod intake;
mod job;
mod journal;
mod late;
mod output;
mod receive;
mod report;
mod send;
mod session;
mod signal;
mod sparse;
mod validate;
mod worker;
mod writing;

pub use blob::{Blob, NotPresent, OutboardAt, SizeConflict};
pub use intake::Item;
pub use job::{Job, JobEvent};
pub use journal::{Op, OpKind};
pub use receive::{NotWanted, NotWritable, Receiver};
pub use report::{Detail, Report, describe};
pub use send::Sender;
pub use worker::{Event, Worker};
