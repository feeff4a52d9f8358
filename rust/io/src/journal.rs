//! What native code did to files, in order, for tests that enumerate the points at which a machine may stop.
//!
//! An inline worker does everything on the thread that calls it, so the journal belongs to a thread. While there is
//! none, an operation costs a look at a thread-local variable.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// One operation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub kind: OpKind,
    pub path: PathBuf,
    /// Of a write; else 0.
    pub offset: u64,
    /// Of a write; else empty.
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// A file that was not there was made.
    Create,
    /// A file was emptied.
    Truncate,
    Write,
    Sync,
}

impl OpKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

thread_local! {
    static JOURNAL: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
}

/// Begins the journal of this thread; false if it has one.
pub(crate) fn begin() -> bool {
    JOURNAL.with_borrow_mut(|journal| {
        let fresh = journal.is_none();
        journal.get_or_insert_default();
        fresh
    })
}

pub(crate) fn end() {
    JOURNAL.with_borrow_mut(|journal| *journal = None);
}

/// The operations since the last call.
pub(crate) fn take() -> Vec<Op> {
    JOURNAL.with_borrow_mut(|journal| journal.as_mut().map(std::mem::take).unwrap_or_default())
}

pub(crate) fn is_kept() -> bool {
    JOURNAL.with_borrow(Option::is_some)
}

pub(crate) fn note(kind: OpKind, path: &Path, offset: u64, data: &[u8]) {
    JOURNAL.with_borrow_mut(|journal| {
        if let Some(list) = journal {
            list.push(Op { kind, path: path.to_owned(), offset, data: data.to_owned() });
        }
    });
}
