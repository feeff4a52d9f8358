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
    outboard: Window,
}

/// An outboard file, read a piece at a time.
#[derive(Default)]
struct Window {
    file: Option<Arc<OpenFile>>,
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    fn read(&mut self, slot: &FileSlot, offset: u64, pair: &mut Pair) -> io::Result<()> {
        let inside = offset
            .checked_sub(self.at)
            .and_then(|at| usize::try_from(at).ok())
            .filter(|at| at + PAIR <= self.bytes.len());
        let at = match inside {
            Some(at) => at,
            None => {
                let file = opened(slot, &mut self.file)?;
                self.bytes.resize(WINDOW, 0);
                let read = file.read_at(&mut self.bytes, offset);
                self.bytes.truncate(*read.as_ref().unwrap_or(&0));
                self.at = offset;
                read?;
                0
            }
        };
        match copy(&self.bytes, at as u64, pair) {
            Ok(()) => Ok(()),
            Err(_) => Err(opened(slot, &mut self.file)?.too_short()),
        }
    }
}

impl Session {
    /// Files are opened when they are needed.
    pub fn new(blob: Arc<Blob>) -> Self {
        Self { blob, data: None, outboard: Window::default() }
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
            Store::Memory(_) | Store::Late(_) | Store::Nowhere => Ok(self.blob.size().unwrap_or(0)),
        }
    }

    pub fn write_data(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        write(&self.blob.data, &mut self.data, offset, data)
    }

    /// Writes consecutive pairs from a position in the outboard on.
    pub fn write_pairs(&mut self, slot: u64, pairs: &[u8]) -> io::Result<()> {
        write(&self.blob.outboard, &mut self.outboard.file, slot * PAIR as u64, pairs)
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
        Store::Late(late) if late.write(offset, data)? => Ok(()),
        Store::Late(late) => opened(late.slot(), file)?.write_all_at(data, offset),
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
            Store::Late(_) | Store::Nowhere => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn pair(&mut self, slot: u64) -> io::Result<Pair> {
        let offset = slot * PAIR as u64;
        let mut pair = [0; PAIR];
        match &self.blob.outboard {
            Store::Memory(sparse) => sparse.lock().read(offset, &mut pair),
            Store::Bytes(bytes) => copy(bytes, offset, &mut pair)?,
            Store::File(slot) => self.outboard.read(slot, offset, &mut pair)?,
            Store::Late(late) if late.read(offset, &mut pair) => {}
            Store::Late(late) => self.outboard.read(late.slot(), offset, &mut pair)?,
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
