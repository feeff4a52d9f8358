//! Bytes that begin in memory and go to a file when they are many: a file for each small outboard costs more than all
//! else that is done for its blob.

use std::io;

use parking_lot::Mutex;

use crate::file::FileSlot;

/// Bytes that stay in memory: the outboard of a blob of 1 MiB.
const MOST: usize = 4096;

pub struct Late {
    slot: FileSlot,
    // None: all is in the file.
    waiting: Mutex<Option<Vec<u8>>>,
}

impl Late {
    pub fn new(slot: FileSlot) -> Self {
        Self { slot, waiting: Mutex::new(Some(Vec::new())) }
    }

    /// The file, which has the bytes if they are not in memory.
    pub fn slot(&self) -> &FileSlot {
        &self.slot
    }

    /// What is in memory, if all is.
    pub fn in_memory(&self) -> Option<Vec<u8>> {
        self.waiting.lock().clone()
    }

    /// Whether it could be written to memory; otherwise to the file, which has all that was written before.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        let mut waiting = self.waiting.lock();
        let Some(bytes) = &mut *waiting else { return Ok(false) };
        let end = offset.saturating_add(data.len() as u64);
        if end > MOST as u64 {
            self.move_out(&mut waiting)?;
            return Ok(false);
        }
        let (start, end) = (offset as usize, end as usize);
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(data);
        Ok(true)
    }

    /// Fills the buffer from memory; false: it is not there. What was not written reads as zeros.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let waiting = self.waiting.lock();
        let Some(bytes) = &*waiting else { return false };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let known = buffer.len().min(bytes.len() - start);
        buffer[..known].copy_from_slice(&bytes[start..start + known]);
        buffer[known..].fill(0);
        true
    }

    /// Writes all to the file and makes it durable.
    pub fn sync(&self) -> io::Result<()> {
        self.spill()?;
        self.slot.sync()
    }

    /// Writes to the file what is in memory.
    pub fn spill(&self) -> io::Result<()> {
        self.move_out(&mut self.waiting.lock())
    }

    fn move_out(&self, waiting: &mut Option<Vec<u8>>) -> io::Result<()> {
        if let Some(bytes) = waiting {
            if !bytes.is_empty() {
                self.slot.open()?.write_all_at(bytes, 0)?;
            }
            *waiting = None;
        }
        Ok(())
    }
}
