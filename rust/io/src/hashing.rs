//! A file that is hashed, and maybe copied in the same pass, and where its outboard goes.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use aioiroh_bao::Builder;
use aioiroh_bao::hash::{Hash, Pair};
use aioiroh_bao::outboard::PairSink;
use aioiroh_bao::tree::PAIR;

use crate::aligned::Aligned;
use crate::file::{Begin, OpenFile};
use crate::worker::SLICE;

/// Bytes of progress that make an event.
pub(crate) const STEP: u64 = 4 * 1024 * 1024;

/// A file being hashed.
pub(crate) struct Hashing<S> {
    file: OpenFile,
    // A second file that gets what was hashed.
    copy: Option<OpenFile>,
    before: Metadata,
    builder: Builder,
    sink: S,
    told: u64,
}

impl<S: PairSink> Hashing<S> {
    pub(crate) fn open(path: &Path, sink: S) -> io::Result<Self> {
        Self::of(OpenFile::read(path)?, None, sink)
    }

    /// Hashes `from` and makes `to` of the same content: sharing blocks if the system can, so that what is hashed cannot
    /// change any more, else by copying what was hashed.
    pub(crate) fn import(from: &Path, to: &Path, sink: S) -> io::Result<Self> {
        let from = OpenFile::read(from)?;
        let to = OpenFile::write(to, Begin::Empty)?;
        if to.clone_from(&from)? { Self::of(to, None, sink) } else { Self::of(from, Some(to), sink) }
    }

    fn of(file: OpenFile, copy: Option<OpenFile>, sink: S) -> io::Result<Self> {
        let before = file.metadata()?;
        let builder = Builder::new(before.len());
        Ok(Self { file, copy, before, builder, sink, told: 0 })
    }

    /// Hashes up to `budget` bytes; true at the end of the file.
    pub(crate) fn step(&mut self, budget: usize) -> io::Result<bool> {
        thread_local!(static BUFFER: std::cell::RefCell<Aligned> = std::cell::RefCell::default());
        let position = self.builder.position();
        let left = self.before.len() - position;
        let want = left.min(budget.min(SLICE) as u64) as usize;
        if want == 0 {
            return Ok(left == 0);
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.reserve(want);
            buffer.set_len(want);
            let buffer = &mut **buffer;
            self.file.read_exact_at(buffer, position).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                _ => error,
            })?;
            self.builder.update(buffer, &mut self.sink).map_err(|_| changed())?;
            match &self.copy {
                Some(copy) => copy.write_all_at(buffer, position),
                None => Ok(()),
            }
        })?;
        Ok(want as u64 == left)
    }

    /// Hashes up to `budget` bytes and takes them from it; itself if the file goes on.
    pub(crate) fn run(mut self, budget: &mut usize) -> io::Result<Result<(Hash, u64, S), Self>> {
        let before = self.builder.position();
        let done = self.step(*budget)?;
        *budget -= (self.builder.position() - before) as usize;
        if done { self.finish().map(Ok) } else { Ok(Err(self)) }
    }

    pub(crate) fn progress(&mut self) -> Option<u64> {
        let position = self.builder.position();
        let due = position - self.told >= STEP;
        if due {
            self.told = position;
        }
        due.then_some(position)
    }

    pub(crate) fn finish(self) -> io::Result<(Hash, u64, S)> {
        let after = self.file.metadata()?;
        if after.len() != self.before.len() || after.modified().ok() != self.before.modified().ok() {
            return Err(changed());
        }
        let hash = self.builder.finish().map_err(|_| changed())?;
        Ok((hash, after.len(), self.sink))
    }
}

pub(crate) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "the file was changed while it was read; try again")
}

/// Where the outboard of a hashed file goes.
pub(crate) enum Outboard {
    Memory(Vec<u8>),
    File { file: OpenFile, pending: Vec<(u64, Pair)>, error: Option<io::Error> },
}

/// Pairs held back to be written in order, in few calls.
const PENDING: usize = 4096;

impl Outboard {
    /// In memory, or in a file that is made or emptied.
    pub(crate) fn at(path: Option<PathBuf>) -> io::Result<Self> {
        Ok(match path {
            None => Self::Memory(Vec::new()),
            Some(path) => {
                let file = OpenFile::write(&path, Begin::Empty)?;
                Self::File { file, pending: Vec::new(), error: None }
            }
        })
    }

    pub(crate) fn finish(self) -> io::Result<Option<Vec<u8>>> {
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
fn write_pairs(file: &OpenFile, pending: &mut Vec<(u64, Pair)>) -> io::Result<()> {
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
        let mut sink = Outboard::at(Some(path.clone())).unwrap();
        let mut builder = Builder::new(data.len() as u64);
        builder.update(&data, &mut sink).unwrap();
        assert_eq!(builder.finish().unwrap(), hash);
        assert!(sink.finish().unwrap().is_none());
        assert!(std::fs::read(&path).unwrap() == expected);
        std::fs::remove_file(path).unwrap();
    }
}
