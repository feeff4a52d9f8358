//! A file that is copied in the kernel, or by sharing blocks.

use std::io;
use std::path::Path;

use crate::file::{Begin, OpenFile};
use crate::worker::SLICE;

/// Bytes copied in a turn: nothing is hashed, so it takes no longer than a slice of other work.
const TURN: usize = 8 * SLICE;

pub(crate) struct Copying {
    from: OpenFile,
    to: OpenFile,
    copied: u64,
}

impl Copying {
    pub(crate) fn open(from: &Path, to: &Path) -> io::Result<Self> {
        let from = OpenFile::read(from)?;
        let to = OpenFile::write(to, Begin::Empty)?;
        Ok(Self { from, to, copied: 0 })
    }

    /// Copies on; true at the end.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let now = self.to.append_from(&mut self.from, self.copied, TURN)?;
        self.copied += now;
        Ok(now == 0)
    }

    pub(crate) fn copied(&self) -> u64 {
        self.copied
    }
}
