//! Blobs that are written to files of somebody else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::Blob;
use crate::copying::Copying;
use crate::file::{Begin, OpenFile};
use crate::hashing::{STEP, changed};
use crate::worker::SLICE;

/// Files begun in a turn.
const FILES_A_TURN: usize = 16;

/// Complete blobs on their way to files that are made or emptied, one after the other.
pub(crate) struct Writing {
    items: std::vec::IntoIter<(Arc<Blob>, PathBuf)>,
    current: Option<Current>,
    done: u64,
    told: u64,
}

enum Current {
    // What is in a file: copied in the kernel, or by sharing blocks.
    Copy { copying: Copying, size: u64 },
    Write { blob: Arc<Blob>, size: u64, to: OpenFile, at: u64 },
}

impl Writing {
    pub(crate) fn new(items: Vec<(Arc<Blob>, PathBuf)>) -> Self {
        Self { items: items.into_iter(), current: None, done: 0, told: 0 }
    }

    /// Writes on; true at the end.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let before = self.done;
        for _ in 0..FILES_A_TURN {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => match self.items.next() {
                    Some((blob, path)) => Current::begin(blob, &path)?,
                    None => return Ok(true),
                },
            };
            let (moved, ended) = current.step()?;
            self.done += moved;
            if !ended {
                self.current = Some(current);
            }
            if self.done - before >= SLICE as u64 {
                break;
            }
        }
        Ok(false)
    }

    pub(crate) fn written(&self) -> u64 {
        self.done
    }

    /// Bytes written, when it is time to tell.
    pub(crate) fn progress(&mut self) -> Option<u64> {
        let due = self.done - self.told >= STEP;
        if due {
            self.told = self.done;
        }
        due.then_some(self.done)
    }
}

impl Current {
    fn begin(blob: Arc<Blob>, path: &Path) -> io::Result<Self> {
        let size = blob.size().filter(|_| blob.is_complete()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(match blob.data_path() {
            Some(from) => Self::Copy { copying: Copying::open(from, path)?, size },
            None => Self::Write { blob, size, to: OpenFile::write(path, Begin::Empty)?, at: 0 },
        })
    }

    /// Bytes moved, and whether those were the last.
    fn step(&mut self) -> io::Result<(u64, bool)> {
        match self {
            Self::Copy { copying, size } => {
                let before = copying.copied();
                let ended = copying.step()?;
                if ended && copying.copied() != *size {
                    return Err(changed());
                }
                Ok((copying.copied() - before, ended))
            }
            Self::Write { blob, size, to, at } => {
                let data = blob.read(*at, SLICE).map_err(|_| io::ErrorKind::UnexpectedEof)??;
                to.write_all_at(&data, *at)?;
                *at += data.len() as u64;
                Ok((data.len() as u64, at >= size))
            }
        }
    }
}
