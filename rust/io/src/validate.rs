//! What of a blob's files is what its hash says.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aioiroh_bao::ChunkRanges;
use aioiroh_bao::encode::Source;
use aioiroh_bao::hash::{Hash, halves, parent, subtree};
use aioiroh_bao::ranges::Cover;
use aioiroh_bao::tree::{CHUNK, GROUP, Node};

use crate::blob::{Blob, OutboardAt};
use crate::hashing::STEP;
use crate::session::Session;

/// What looking at a hash pair counts for, in bytes of data that are hashed in that time.
const PAIR_COST: usize = 1024;

/// A walk over data and outboard, from the root down to the groups.
pub(crate) struct Validating {
    session: Session,
    size: u64,
    // Bytes that the data file has.
    len: u64,
    trusted: ChunkRanges,
    // Nodes to visit with the hash that each should have, next one last: at most one per level.
    stack: Vec<(Node, Hash)>,
    present: ChunkRanges,
    group: Vec<u8>,
    position: u64,
    told: u64,
}

impl Validating {
    pub(crate) fn open(
        hash: Hash,
        data: PathBuf,
        outboard: OutboardAt,
        size: u64,
        trusted: ChunkRanges,
    ) -> io::Result<Self> {
        let blob = Blob::open(hash, data, size, outboard, Some(ChunkRanges::empty()));
        let mut session = Session::new(Arc::new(blob));
        let len = session.data_len()?;
        Ok(Self {
            session,
            size,
            len,
            trusted,
            stack: vec![(Node::root(size), hash)],
            present: ChunkRanges::empty(),
            group: Vec::new(),
            position: 0,
            told: 0,
        })
    }

    /// Looks at about `budget` bytes; true at the end.
    pub(crate) fn step(&mut self, mut budget: usize) -> io::Result<bool> {
        while budget > 0 {
            let Some((node, expected)) = self.stack.pop() else { return Ok(true) };
            let is_root = node.lo == 0 && node == Node::root(self.size);
            if let Some(slot) = node.slot() {
                budget = budget.saturating_sub(PAIR_COST);
                // An outboard may end early; what it lacks does not verify.
                if let Some(pair) = unless_short(self.session.pair(slot))?
                    && parent(&pair, is_root) == expected
                {
                    let ((left, right), (left_cv, right_cv)) = (node.children(), halves(&pair));
                    self.stack.push((right, right_cv));
                    self.stack.push((left, left_cv));
                }
            } else {
                budget = budget.saturating_sub(GROUP);
                self.look(&node, expected, is_root)?;
            }
            self.position = node.bytes(self.size).start;
        }
        Ok(self.stack.is_empty())
    }

    /// A group whose hash is known from its pairs.
    fn look(&mut self, node: &Node, expected: Hash, is_root: bool) -> io::Result<()> {
        let bytes = node.bytes(self.size);
        let here = self.len >= bytes.end;
        if self.trusted.cover(node.lo, node.hi) == Cover::All && here {
            self.present.insert(node.lo..node.hi);
            return Ok(());
        }
        if here {
            self.group.resize((bytes.end - bytes.start) as usize, 0);
            let read = self.session.read(bytes.start, &mut self.group);
            if unless_short(read)?.is_some() && subtree(&self.group, node.lo, is_root) == expected {
                self.present.insert(node.lo..node.hi);
                return Ok(());
            }
        }
        // The hashes inside a group are not kept: a part of one can be trusted, but not verified.
        let mut within = ChunkRanges::empty();
        let hi = if self.len >= self.size { node.hi } else { node.hi.min(self.len / CHUNK) };
        within.insert(node.lo..hi);
        for part in self.trusted.intersection(&within).iter() {
            self.present.insert(part);
        }
        Ok(())
    }

    /// Bytes passed, when it is time to tell.
    pub(crate) fn progress(&mut self) -> Option<u64> {
        let due = self.position - self.told >= STEP;
        if due {
            self.told = self.position;
        }
        due.then_some(self.position)
    }

    /// The chunks that verify.
    pub(crate) fn finish(self) -> ChunkRanges {
        self.present
    }
}

fn unless_short<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
