//! One blob: data, outboard and which chunks of it are here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aioiroh_bao::hash::{EMPTY, Hash};
use aioiroh_bao::ranges::Cover;
use aioiroh_bao::tree::{CHUNK, GROUP, byte_range, chunks, outboard_len};
use aioiroh_bao::{ChunkRanges, Encoder, outboard};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::file::{Begin, FileSlot};
use crate::late::Late;
use crate::output::SMALL;
use crate::session::Session;
use crate::sparse::Sparse;

/// Where bytes are kept.
pub(crate) enum Store {
    Bytes(Bytes),
    Memory(Mutex<Sparse>),
    File(FileSlot),
    /// In memory as long as it is little.
    Late(Late),
    /// Nothing is kept.
    Nowhere,
}

/// A blob that transfers and the application share.
pub struct Blob {
    hash: Hash,
    limit: u64,
    writable: bool,
    pub(crate) data: Store,
    pub(crate) outboard: Store,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    // The latest claim until the last chunk was verified.
    size: Option<u64>,
    verified: bool,
    present: ChunkRanges,
    complete: bool,
}

impl State {
    fn update(&mut self) {
        self.complete =
            self.verified && self.size.is_some_and(|size| self.present.cover(0, chunks(size)) == Cover::All);
    }
}

/// A size was claimed that is not the verified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeConflict {
    pub verified: u64,
    pub claimed: u64,
}

/// The bytes asked for are not all here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPresent;

impl Blob {
    /// A complete blob in memory; hashes the data.
    pub fn from_bytes(data: Bytes) -> Self {
        let (hash, outboard) = outboard::of_bytes(&data);
        let size = data.len() as u64;
        let outboard = Store::Bytes(outboard.into());
        Self::with(hash, size, false, Store::Bytes(data), outboard, Some(size), None)
    }

    /// An empty blob to fill, in memory.
    pub fn memory(hash: Hash, limit: u64) -> Self {
        let store = || Store::Memory(Mutex::default());
        Self::with(hash, limit, true, store(), store(), None, Some(ChunkRanges::empty()))
    }

    /// To receive what nobody wants to keep: verified, and thrown away.
    pub fn discard(hash: Hash, limit: u64) -> Self {
        let present = Some(ChunkRanges::empty());
        Self::with(hash, limit, true, Store::Nowhere, Store::Nowhere, None, present)
    }

    /// A complete blob in memory that was hashed before; None if the outboard has not the length that it must have.
    pub fn inline(hash: Hash, data: Bytes, outboard: Bytes) -> Option<Self> {
        let size = data.len() as u64;
        (outboard.len() as u64 == outboard_len(size)).then(|| {
            Self::with(hash, size, false, Store::Bytes(data), Store::Bytes(outboard), Some(size), None)
        })
    }

    /// An empty blob to fill, in files that are created or emptied at first use.
    pub fn create(hash: Hash, data: PathBuf, outboard: Option<PathBuf>, limit: u64) -> Self {
        let outboard = match outboard {
            Some(path) => Store::Late(Late::new(FileSlot::writable(path, Begin::Empty, 0))),
            None => Store::Memory(Mutex::default()),
        };
        let data = Store::File(FileSlot::writable(data, Begin::Empty, 0));
        Self::with(hash, limit, true, data, outboard, None, Some(ChunkRanges::empty()))
    }

    /// A blob to fill further, in files that hold the chunks `present` of it. `size` is a claim, unless the last chunk
    /// is present; without one nothing is.
    pub fn resume(
        hash: Hash,
        data: PathBuf,
        outboard: PathBuf,
        size: Option<u64>,
        present: ChunkRanges,
        limit: u64,
    ) -> Self {
        let (least, known) = size.map_or((0, 0), |size| (last_byte(&present, size), size));
        // Files that hold something are not made again: what is missing then is an error.
        let begin = |holds: bool| if holds { Begin::Existing } else { Begin::Missing };
        let data = FileSlot::writable(data, begin(least > 0), least);
        let outboard = FileSlot::writable(outboard, begin(least > 0 && known > GROUP as u64), 0);
        Self::with(hash, limit, true, Store::File(data), Store::File(outboard), size, Some(present))
    }

    /// A blob to read whose data are in a file. Without `present` all of it is there.
    pub fn open(
        hash: Hash,
        data: PathBuf,
        size: u64,
        outboard: OutboardAt,
        present: Option<ChunkRanges>,
    ) -> Self {
        let outboard = match outboard {
            OutboardAt::Memory(bytes) => Store::Bytes(bytes),
            OutboardAt::File(path) => Store::File(FileSlot::existing(path, 0)),
        };
        let least = present.as_ref().map_or(size, |present| last_byte(present, size));
        let data = Store::File(FileSlot::existing(data, least));
        Self::with(hash, size, false, data, outboard, Some(size), present)
    }

    fn with(
        hash: Hash,
        limit: u64,
        writable: bool,
        data: Store,
        outboard: Store,
        size: Option<u64>,
        present: Option<ChunkRanges>,
    ) -> Self {
        let size = if hash == EMPTY { Some(0) } else { size };
        let mut state = State { size, ..State::default() };
        if let Some(size) = size {
            let end = chunks(size);
            let mut all = ChunkRanges::empty();
            all.insert(0..end);
            state.present = match present {
                Some(present) if hash != EMPTY => present.intersection(&all),
                _ => all,
            };
            state.verified = state.present.contains(end - 1);
        }
        state.update();
        Self { hash, limit, writable, data, outboard, state: Mutex::new(state) }
    }

    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// The largest size that is accepted.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The size in bytes: verified, or else the latest claim.
    pub fn size(&self) -> Option<u64> {
        self.state.lock().size
    }

    pub fn verified_size(&self) -> Option<u64> {
        let state = self.state.lock();
        state.size.filter(|_| state.verified)
    }

    /// The chunks whose data are here and verified.
    pub fn present(&self) -> ChunkRanges {
        self.state.lock().present.clone()
    }

    pub fn is_complete(&self) -> bool {
        self.state.lock().complete
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        !matches!((&self.data, &self.outboard), (Store::File(_), _) | (_, Store::File(_)))
    }

    /// The file that has the data, if they are in one.
    pub(crate) fn data_path(&self) -> Option<&Path> {
        match &self.data {
            Store::File(slot) => Some(slot.path()),
            _ => None,
        }
    }

    /// Whether a response for `query` can be given: the groups that it touches are here.
    pub(crate) fn can_encode(&self, query: &ChunkRanges, size: u64) -> bool {
        let state = self.state.lock();
        state.complete || query.truncate(size).round_to_groups(size).is_subset(&state.present)
    }

    /// A transfer claims a size. Until one is verified any claim may be the true one, and what verifies under one
    /// claim has the same place under every other; so only a verified size refuses.
    pub(crate) fn claim(&self, size: u64) -> Result<(), SizeConflict> {
        let mut state = self.state.lock();
        match state.size {
            Some(verified) if state.verified && verified != size => {
                Err(SizeConflict { verified, claimed: size })
            }
            _ => {
                state.size = Some(size);
                Ok(())
            }
        }
    }

    /// Bytes `start..end` and their pairs were verified and written, by a transfer that claims `size`; `proven` if its
    /// last chunk was verified.
    pub(crate) fn commit(&self, start: u64, end: u64, size: u64, proven: bool) -> Result<(), SizeConflict> {
        let mut state = self.state.lock();
        if let Some(verified) = state.size.filter(|known| state.verified && *known != size) {
            return Err(SizeConflict { verified, claimed: size });
        }
        if proven {
            state.size = Some(size);
            state.verified = true;
        }
        state.present.insert(start / CHUNK..end.div_ceil(CHUNK));
        state.update();
        Ok(())
    }

    /// Up to `len` bytes from `offset` on; fewer at the end of the blob.
    pub fn read(&self, offset: u64, len: usize) -> Result<io::Result<Vec<u8>>, NotPresent> {
        let (start, end) = {
            let state = self.state.lock();
            let size = state.size.ok_or(NotPresent)?;
            let start = offset.min(size);
            let end = offset.saturating_add(len as u64).min(size);
            let here = start == end
                || state.complete
                || state.present.cover(start / CHUNK, end.div_ceil(CHUNK)) == Cover::All;
            if !here {
                return Err(NotPresent);
            }
            (start, end)
        };
        if start >= end {
            return Ok(Ok(Vec::new()));
        }
        let mut buffer = vec![0; (end - start) as usize];
        Ok(self.data.read_kept(start, &mut buffer).map(|()| buffer))
    }

    /// The whole response to a query, if that is quickly made: of a small blob in memory, if it has what it takes.
    pub fn response(self: &Arc<Self>, query: &ChunkRanges) -> Option<Vec<u8>> {
        let size = self.verified_size().filter(|size| *size <= SMALL && self.is_in_memory())?;
        if !self.can_encode(query, size) {
            return None;
        }
        let mut encoder = Encoder::new(self.hash, size, query);
        let mut source = Session::new(self.clone());
        let mut out = Vec::with_capacity(encoder.selected().bytes(size) as usize + GROUP);
        while let Some(len) = encoder.next_len() {
            let start = out.len();
            out.resize(start + len, 0);
            encoder.write(&mut source, &mut out[start..]).ok()?;
        }
        Some(out)
    }

    /// The outboard; zeros where pairs are not here yet.
    pub fn outboard(&self) -> io::Result<Vec<u8>> {
        let (size, complete) = {
            let state = self.state.lock();
            // Memory is taken for a verified size only: nobody proved that the claimed one exists.
            (state.size.filter(|_| state.verified).unwrap_or(0), state.complete)
        };
        let mut buffer = vec![0; outboard_len(size) as usize];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match self.outboard.read_kept(0, &mut buffer) {
            // A partial outboard may end early.
            Err(error) if !complete && error.kind() == io::ErrorKind::UnexpectedEof => Ok(buffer),
            result => result.map(|()| buffer),
        }
    }

    /// The outboard as far as it is here, while it is in memory instead of in its file.
    pub fn loose_outboard(&self) -> Option<Vec<u8>> {
        match &self.outboard {
            Store::Late(late) => late.in_memory(),
            _ => None,
        }
    }

    /// Writes an outboard that is in memory to its file.
    pub fn spill(&self) -> io::Result<()> {
        match &self.outboard {
            Store::Late(late) => late.spill(),
            _ => Ok(()),
        }
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.data.sync()?;
        self.outboard.sync()
    }

    /// Closes files that were opened for [`read`](Self::read); transfers keep theirs.
    pub fn close(&self) {
        self.data.close();
        self.outboard.close();
    }
}

/// Where the last of these chunks ends in a blob of `size` bytes.
fn last_byte(present: &ChunkRanges, size: u64) -> u64 {
    present.iter().last().map_or(0, |range| byte_range(range.start, range.end, size).end)
}

/// Where the outboard of an existing blob is.
pub enum OutboardAt {
    Memory(Bytes),
    File(PathBuf),
}

impl Store {
    fn read_kept(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                let bytes = bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            Self::Memory(sparse) => {
                sparse.lock().read(offset, buffer);
                Ok(())
            }
            Self::File(slot) => slot.open_and_keep()?.read_exact_at(buffer, offset),
            Self::Late(late) if late.read(offset, buffer) => Ok(()),
            Self::Late(late) => late.slot().open_and_keep()?.read_exact_at(buffer, offset),
            Self::Nowhere => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(slot) => slot.sync(),
            Self::Late(late) => late.sync(),
            _ => Ok(()),
        }
    }

    fn close(&self) {
        match self {
            Self::File(slot) => slot.close(),
            Self::Late(late) => late.slot().close(),
            _ => {}
        }
    }
}
