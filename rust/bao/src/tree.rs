//! The shape of the tree over a blob: which chunks a node covers and where its pair is stored.

use std::ops::Range;

/// Bytes in a chunk, BLAKE3's leaf and the unit of every range on the wire.
pub const CHUNK: u64 = 1024;
/// Chunks in a group, the unit of outboard storage and the largest leaf on the wire.
pub const GROUP_CHUNKS: u64 = 16;
/// Bytes in a group.
pub const GROUP: usize = (CHUNK * GROUP_CHUNKS) as usize;
/// Bytes of the two chaining values of a parent.
pub const PAIR: usize = 64;

/// Leaves of the tree; an empty blob has one empty leaf.
pub const fn chunks(size: u64) -> u64 {
    if size == 0 { 1 } else { size.div_ceil(CHUNK) }
}

/// Chunk groups of a blob, at least one.
pub const fn groups(size: u64) -> u64 {
    if size == 0 { 1 } else { size.div_ceil(GROUP as u64) }
}

/// Bytes of the outboard of a blob.
pub const fn outboard_len(size: u64) -> u64 {
    PAIR as u64 * (groups(size) - 1)
}

/// A node: the chunks `lo..hi`, and how many stored pairs come before its own in pre-order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub lo: u64,
    pub hi: u64,
    slot: u64,
}

impl Node {
    /// The root of the tree over `size` bytes.
    pub const fn root(size: u64) -> Self {
        Self { lo: 0, hi: chunks(size), slot: 0 }
    }

    pub const fn chunks(&self) -> u64 {
        self.hi - self.lo
    }

    /// Whether the node lies within one chunk group, so that its pair is not stored.
    pub const fn in_group(&self) -> bool {
        self.chunks() <= GROUP_CHUNKS
    }

    /// Position of the node's pair in the outboard, in pairs.
    pub const fn slot(&self) -> Option<u64> {
        if self.in_group() { None } else { Some(self.slot) }
    }

    /// The two children; the left one covers the largest power of two smaller than the whole.
    pub const fn children(&self) -> (Node, Node) {
        debug_assert!(self.chunks() > 1);
        let left = 1 << (u64::BITS - 1 - (self.chunks() - 1).leading_zeros());
        let middle = self.lo + left;
        (
            Node { lo: self.lo, hi: middle, slot: self.slot + 1 },
            // A left child of k chunks has k/16 - 1 pairs of its own.
            Node { lo: middle, hi: self.hi, slot: self.slot + 1 + (left / GROUP_CHUNKS).saturating_sub(1) },
        )
    }

    /// The bytes of the node in a blob of `size` bytes.
    pub fn bytes(&self, size: u64) -> Range<u64> {
        byte_range(self.lo, self.hi, size)
    }
}

/// The bytes of the chunks `lo..hi` in a blob of `size` bytes.
pub fn byte_range(lo: u64, hi: u64, size: u64) -> Range<u64> {
    lo.saturating_mul(CHUNK).min(size)..hi.saturating_mul(CHUNK).min(size)
}
