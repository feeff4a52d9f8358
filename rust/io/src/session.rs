//! A transfer's use of a blob: its files are open as long as the session lasts.

use std::io;
use std::sync::Arc;

use aioiroh_bao::encode::Source;
use aioiroh_bao::hash::Pair;
use aioiroh_bao::tree::PAIR;

use crate::blob::{Blob, Store};
use crate::file::{FileSlot, OpenFile};

/// How much of an outboard file is read at once.
const WINDOW: usize = 16 * 1024;

pub struct Session {
    blob: Arc<Blob>,
    data: Option<Arc<OpenFile>>,
    outboard: Option<Arc<OpenFile>>,
    window: Vec<u8>,
    window_at: u64,
}

impl Session {
    /// Files are opened when they are needed.
    pub fn new(blob: Arc<Blob>) -> Self {
        Self { blob, data: None, outboard: None, window: Vec::new(), window_at: 0 }
    }

    /// Makes the data file exist, if there is to be one.
    pub fn create(&mut self) -> io::Result<()> {
        self.write_data(0, &[])
    }

    pub fn blob(&self) -> &Arc<Blob> {
        &self.blob
    }

    /// Bytes that the data file has now.
    pub fn data_len(&mut self) -> io::Result<u64> {
        match &self.blob.data {
            Store::File(slot) => Ok(opened(slot, &mut self.data)?.metadata()?.len()),
            Store::Bytes(bytes) => Ok(bytes.len() as u64),
            Store::Memory(_) | Store::Nowhere => Ok(self.blob.size().unwrap_or(0)),
        }
    }

    pub fn write_data(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        write(&self.blob.data, &mut self.data, offset, data)
    }

    /// Writes consecutive pairs from a position in the outboard on.
    pub fn write_pairs(&mut self, slot: u64, pairs: &[u8]) -> io::Result<()> {
        write(&self.blob.outboard, &mut self.outboard, slot * PAIR as u64, pairs)
    }
}

fn write(store: &Store, file: &mut Option<Arc<OpenFile>>, offset: u64, data: &[u8]) -> io::Result<()> {
    match store {
        Store::Bytes(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        Store::Memory(sparse) => {
            sparse.lock().write(offset, data);
            Ok(())
        }
        Store::File(slot) => opened(slot, file)?.write_all_at(data, offset),
        Store::Nowhere => Ok(()),
    }
}

fn opened<'a>(slot: &FileSlot, file: &'a mut Option<Arc<OpenFile>>) -> io::Result<&'a OpenFile> {
    Ok(match file {
        Some(file) => file,
        none => none.insert(slot.open()?),
    })
}

impl Source for Session {
    type Error = io::Error;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.blob.data {
            Store::Memory(sparse) => {
                sparse.lock().read(offset, buffer);
                Ok(())
            }
            Store::Bytes(bytes) => copy(bytes, offset, buffer),
            Store::File(slot) => opened(slot, &mut self.data)?.read_exact_at(buffer, offset),
            Store::Nowhere => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn pair(&mut self, slot: u64) -> io::Result<Pair> {
        let offset = slot * PAIR as u64;
        let mut pair = [0; PAIR];
        match &self.blob.outboard {
            Store::Memory(sparse) => sparse.lock().read(offset, &mut pair),
            Store::Bytes(bytes) => copy(bytes, offset, &mut pair)?,
            Store::File(slot) => {
                let inside = offset
                    .checked_sub(self.window_at)
                    .filter(|at| usize::try_from(*at).is_ok_and(|at| at + PAIR <= self.window.len()));
                let at = match inside {
                    Some(at) => at as usize,
                    None => {
                        let file = opened(slot, &mut self.outboard)?;
                        self.window.resize(WINDOW, 0);
                        let read = file.read_at(&mut self.window, offset);
                        self.window.truncate(*read.as_ref().unwrap_or(&0));
                        self.window_at = offset;
                        read?;
                        0
                    }
                };
                if copy(&self.window, at as u64, &mut pair).is_err() {
                    return Err(opened(slot, &mut self.outboard)?.too_short());
                }
            }
            Store::Nowhere => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(pair)
    }
}

/// InvalidData: it does not reach that far.
fn copy(from: &[u8], offset: u64, to: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let bytes = from.get(start..start.saturating_add(to.len())).ok_or(io::ErrorKind::InvalidData)?;
    to.copy_from_slice(bytes);
    Ok(())
}
