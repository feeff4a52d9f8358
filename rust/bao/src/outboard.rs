//! Hashing a blob of known size in one pass, with its outboard.

use crate::hash::{Hash, Pair, pair, parent, subtree};
use crate::tree::{CHUNK, GROUP, Node, PAIR, outboard_len};

/// Receives pairs as they are computed: position in the outboard (in pairs), and the pair.
pub trait PairSink {
    fn put(&mut self, slot: u64, pair: &Pair);
}

/// Keeps an outboard in memory; grown as pairs come, not by a claimed size.
impl PairSink for Vec<u8> {
    fn put(&mut self, slot: u64, pair: &Pair) {
        let start = slot as usize * PAIR;
        if self.len() < start + PAIR {
            self.resize(start + PAIR, 0);
        }
        self[start..start + PAIR].copy_from_slice(pair);
    }
}

/// The blob was longer or shorter than announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLength;

/// Hashes a blob of known size from pieces of any length.
///
/// Pairs come out in post-order; their positions are those of the pre-order outboard. Needs memory for one
/// group and one frame per level.
pub struct Builder {
    size: u64,
    position: u64,
    // Bytes of the group begun, fewer than a whole group.
    partial: Vec<u8>,
    // Ancestors of the group that comes next, with the left chaining value where that side is done.
    frames: Vec<(Node, Option<Hash>)>,
    group: Node,
    root: Option<Hash>,
}

impl Builder {
    pub fn new(size: u64) -> Self {
        let root = Node::root(size);
        let mut builder =
            Self { size, position: 0, partial: Vec::new(), frames: Vec::new(), group: root, root: None };
        builder.descend(root);
        builder
    }

    /// Bytes taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn update(&mut self, mut data: &[u8], sink: &mut impl PairSink) -> Result<(), WrongLength> {
        if data.len() as u64 > self.size - self.position {
            return Err(WrongLength);
        }
        self.position += data.len() as u64;
        while !data.is_empty() {
            let bytes = self.group.bytes(self.size);
            let len = (bytes.end - bytes.start) as usize;
            if self.partial.is_empty() && data.len() >= len {
                let (whole, rest) = data.split_at(len);
                data = rest;
                self.complete(subtree(whole, self.group.lo, self.frames.is_empty()), sink);
            } else {
                let (taken, rest) = data.split_at(data.len().min(len - self.partial.len()));
                data = rest;
                self.partial.extend_from_slice(taken);
                if self.partial.len() == len {
                    let cv = subtree(&self.partial, self.group.lo, self.frames.is_empty());
                    self.partial.clear();
                    self.complete(cv, sink);
                }
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Hash, WrongLength> {
        match self.root {
            Some(root) => Ok(root),
            None if self.size == 0 => Ok(subtree(&[], 0, true)),
            None => Err(WrongLength),
        }
    }

    /// Goes down to the first group of a node.
    fn descend(&mut self, mut node: Node) {
        while !node.in_group() {
            self.frames.push((node, None));
            node = node.children().0;
        }
        self.group = node;
    }

    /// Takes the chaining value of the group at hand; goes up as far as nodes become complete.
    fn complete(&mut self, mut cv: Hash, sink: &mut impl PairSink) {
        while let Some((node, left)) = self.frames.pop() {
            let Some(left) = left else {
                self.frames.push((node, Some(cv)));
                self.descend(node.children().1);
                return;
            };
            let pair = pair(&left, &cv);
            // Every node on the frames stack is above group level, so it has a slot.
            if let Some(slot) = node.slot() {
                sink.put(slot, &pair);
            }
            cv = parent(&pair, self.frames.is_empty());
        }
        self.root = Some(cv);
    }
}

/// Hash and outboard of data in memory.
pub fn of_bytes(data: &[u8]) -> (Hash, Vec<u8>) {
    let size = data.len() as u64;
    if size <= GROUP as u64 {
        return (subtree(data, 0, true), Vec::new());
    }
    debug_assert!(size > CHUNK);
    let mut outboard = vec![0; outboard_len(size) as usize];
    let mut builder = Builder::new(size);
    let hash = builder.update(data, &mut outboard).and_then(|()| builder.finish());
    (hash.expect("the size is that of the data"), outboard)
}
