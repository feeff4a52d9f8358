//! What a transfer tells the application.

use std::io;
use std::path::PathBuf;

use aioiroh_bao::DecodeError;
use bytes::Bytes;

use crate::blob::SizeConflict;
use crate::file::PathError;

/// Items are numbered from 0 in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Sending of an item begins.
    Started {
        item: u64,
        size: u64,
    },
    /// The peer claims this size for an item.
    Size {
        item: u64,
        size: u64,
    },
    /// All of a small blob has come. It is done.
    Whole {
        item: u64,
        data: Bytes,
    },
    /// The next blob is not small: give it somewhere to go.
    Wanted {
        item: u64,
        size: u64,
    },
    /// Receiving: so many bytes of an item are verified and written. Sending: all up to this byte of the blob is sent.
    Progress {
        item: u64,
        bytes: u64,
    },
    Done {
        item: u64,
    },
    Error {
        item: u64,
        kind: &'static str,
        detail: Detail,
    },
    /// The stream is over; so many bytes came after the last item.
    End {
        trailing: u64,
    },
}

/// More about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    None,
    /// An application error code of the peer.
    Code(u64),
    /// The chunks that did not verify.
    Chunks {
        lo: u64,
        hi: u64,
    },
    /// A size, and the limit or the verified size that it contradicts.
    Size {
        claimed: u64,
        other: u64,
    },
    /// A failed system call: errno, what it means and the file.
    Os {
        errno: i32,
        text: String,
        path: Option<PathBuf>,
    },
}

/// Kind and detail of an error report.
pub type Failure = (&'static str, Detail);

pub fn os(error: &io::Error) -> Failure {
    let (errno, text, path) = describe(error);
    ("io", Detail::Os { errno, text, path })
}

/// Errno, text and path of an error; errors that are not the system's get the errno that is nearest.
pub fn describe(error: &io::Error) -> (i32, String, Option<PathBuf>) {
    if let Some(PathError { path, source }) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        let (errno, text, _) = describe(source);
        return (errno, text, Some(path.clone()));
    }
    let text = error.to_string();
    match error.raw_os_error() {
        Some(errno) => (errno, text.split(" (os error").next().unwrap_or(&text).to_owned(), None),
        None => {
            let errno = match error.kind() {
                io::ErrorKind::InvalidInput => libc::EINVAL,
                io::ErrorKind::ResourceBusy => libc::EBUSY,
                _ => libc::EIO,
            };
            (errno, text, None)
        }
    }
}

pub fn decode(error: DecodeError) -> Failure {
    let detail = match error {
        DecodeError::ParentMismatch { lo, hi } | DecodeError::LeafMismatch { lo, hi } => {
            Detail::Chunks { lo, hi }
        }
        DecodeError::SizeLimit { claimed, limit } => Detail::Size { claimed, other: limit },
        _ => Detail::None,
    };
    (error.kind(), detail)
}

pub fn conflict(error: SizeConflict) -> Failure {
    ("size_conflict", Detail::Size { claimed: error.claimed, other: error.verified })
}

/// Reports that wait for the application, and whether it was told that there are some.
#[derive(Default)]
pub struct Reports {
    list: Vec<Report>,
    news: bool,
    // Progress of which the application was told.
    told: u64,
}

/// Bytes of progress that make an event: a sixteenth more, within these bounds, so that small blobs over slow links move
/// visibly and large ones over fast links cost few events.
const STEP: std::ops::RangeInclusive<u64> = 32 * 1024..=1024 * 1024;

impl Reports {
    pub fn push(&mut self, report: Report) {
        let news = match report {
            Report::Progress { bytes, .. } => {
                bytes.abs_diff(self.told) >= (self.told / 16).clamp(*STEP.start(), *STEP.end())
            }
            _ => true,
        };
        if news {
            self.news = true;
            self.told = if let Report::Progress { bytes, .. } = report { bytes } else { 0 };
        }
        match (self.list.last_mut(), &report) {
            (Some(Report::Progress { item, bytes }), Report::Progress { item: same, bytes: more })
                if item == same =>
            {
                *bytes = *more;
            }
            _ => self.list.push(report),
        }
    }

    pub fn extend(&mut self, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            self.push(report);
        }
    }

    /// Whether there is something to tell that was not told of.
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// The same, once.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub fn take(&mut self) -> Vec<Report> {
        self.news = false;
        std::mem::take(&mut self.list)
    }
}
