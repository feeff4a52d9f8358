//! Reading a response: bytes from the wire in, verified data and pairs out.

use std::fmt;

use crate::hash::{EMPTY, Hash, Pair, halves, parent, subtree};
use crate::plan::{Plan, Step};
use crate::ranges::ChunkRanges;
use crate::tree::{Node, PAIR, chunks};

/// Bytes of the size header.
pub const HEADER: usize = 8;

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Size zero for a hash that is not that of no bytes.
    SizeInvalid,
    /// The claimed size is above the limit.
    SizeLimit { claimed: u64, limit: u64 },
    /// A pair does not hash to what its parent says, for these chunks.
    ParentMismatch { lo: u64, hi: u64 },
    /// Data do not hash to what their parent says, for these chunks.
    LeafMismatch { lo: u64, hi: u64 },
    /// The end came before a whole size header.
    MissingHeader,
    /// The end came where an item should begin.
    MissingItem,
    /// The end came within an item.
    Truncated,
}

impl DecodeError {
    /// One word for the kind of error.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SizeInvalid => "size_invalid",
            Self::SizeLimit { .. } => "size_limit",
            Self::ParentMismatch { .. } => "parent_mismatch",
            Self::LeafMismatch { .. } => "leaf_mismatch",
            Self::MissingHeader => "missing_header",
            Self::MissingItem => "missing_item",
            Self::Truncated => "truncated",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeInvalid => f.write_str("size 0 for a hash that is not that of no bytes"),
            Self::SizeLimit { claimed, limit } => {
                write!(f, "size {claimed} is above the limit of {limit} bytes")
            }
            Self::ParentMismatch { lo, hi } => write!(f, "hash pair of chunks {lo}..{hi} does not verify"),
            Self::LeafMismatch { lo, hi } => write!(f, "data of chunks {lo}..{hi} do not verify"),
            Self::MissingHeader => f.write_str("ended before a size header"),
            Self::MissingItem => f.write_str("ended before all requested chunks"),
            Self::Truncated => f.write_str("ended within an item"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The size that a header claims, unless it cannot be or is above the limit.
pub fn checked_size(hash: &Hash, size: u64, limit: u64) -> Result<u64, DecodeError> {
    if size > limit {
        return Err(DecodeError::SizeLimit { claimed: size, limit });
    }
    if size == 0 && *hash != EMPTY {
        return Err(DecodeError::SizeInvalid);
    }
    Ok(size)
}

/// What comes next on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The size header.
    Header,
    /// A pair, and its position in the outboard if it is stored there.
    Pair { slot: Option<u64> },
    /// Data: byte offset and length.
    Leaf { offset: u64, len: usize },
    /// Nothing, the response is complete.
    Done,
}

impl Need {
    /// Bytes of the item.
    pub const fn len(&self) -> usize {
        match self {
            Self::Header => HEADER,
            Self::Pair { .. } => PAIR,
            Self::Leaf { len, .. } => *len,
            Self::Done => 0,
        }
    }

    /// Whether no bytes belong to it: the end, or the leaf of an empty blob.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Verifies a response item by item; the caller brings each item in one piece.
pub struct Verifier {
    hash: Hash,
    query: ChunkRanges,
    limit: u64,
    // None until the header was read.
    size: Option<u64>,
    plan: Plan,
    next: Option<Step>,
    expected: Vec<Hash>,
    proven: bool,
}

impl Verifier {
    /// For the chunks `query` of the blob `hash`; sizes above `limit` bytes are refused.
    pub fn new(hash: Hash, query: ChunkRanges, limit: u64) -> Self {
        let plan = Plan::new(0, &ChunkRanges::empty());
        Self { hash, query, limit, size: None, plan, next: None, expected: Vec::new(), proven: false }
    }

    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// The size that the header claims.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether the last chunk was verified: only the true size gets that far.
    pub fn size_proven(&self) -> bool {
        self.proven
    }

    /// The chunks that the response carries, once the size is known.
    pub fn selected(&self) -> &ChunkRanges {
        self.plan.selected()
    }

    pub fn need(&self) -> Need {
        match (self.size, self.next) {
            (None, _) if self.query.is_empty() => Need::Done,
            (None, _) => Need::Header,
            (Some(_), None) => Need::Done,
            (Some(_), Some(Step::Parent { node, .. })) => Need::Pair { slot: node.slot() },
            (Some(size), Some(Step::Leaf(node))) => {
                let bytes = node.bytes(size);
                Need::Leaf { offset: bytes.start, len: (bytes.end - bytes.start) as usize }
            }
        }
    }

    /// Takes the item that [`need`](Self::need) names; `item` must have its length.
    pub fn accept(&mut self, item: &[u8]) -> Result<(), DecodeError> {
        debug_assert_eq!(item.len(), self.need().len());
        let Some(size) = self.size else {
            let mut header = [0; HEADER];
            header.copy_from_slice(item);
            return self.begin(u64::from_le_bytes(header));
        };
        match self.next {
            None => return Ok(()),
            Some(Step::Parent { node, left, right }) => {
                let mut pair: Pair = [0; PAIR];
                pair.copy_from_slice(item);
                if self.expected.pop() != Some(parent(&pair, is_root(&node, size))) {
                    return Err(DecodeError::ParentMismatch { lo: node.lo, hi: node.hi });
                }
                let (left_cv, right_cv) = halves(&pair);
                if right {
                    self.expected.push(right_cv);
                }
                if left {
                    self.expected.push(left_cv);
                }
            }
            Some(Step::Leaf(node)) => {
                if self.expected.pop() != Some(subtree(item, node.lo, is_root(&node, size))) {
                    return Err(DecodeError::LeafMismatch { lo: node.lo, hi: node.hi });
                }
                self.proven |= node.hi == chunks(size);
            }
        }
        self.next = self.plan.next();
        Ok(())
    }

    /// The error of a stream that ends here with `pending` bytes of the next item, or nothing if it may end.
    pub fn ended(&self, pending: usize) -> Result<(), DecodeError> {
        match self.need() {
            need if need.is_empty() => Ok(()),
            Need::Header => Err(DecodeError::MissingHeader),
            _ if pending == 0 => Err(DecodeError::MissingItem),
            _ => Err(DecodeError::Truncated),
        }
    }

    fn begin(&mut self, size: u64) -> Result<(), DecodeError> {
        self.size = Some(checked_size(&self.hash, size, self.limit)?);
        self.plan = Plan::new(size, &self.query);
        self.expected.push(self.hash);
        self.next = self.plan.next();
        if size == 0 {
            // The one leaf has no bytes, and the hash said so already.
            self.next = None;
            self.proven = true;
        }
        Ok(())
    }
}

fn is_root(node: &Node, size: u64) -> bool {
    node.lo == 0 && node.hi == chunks(size)
}

/// Something verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The claimed size.
    Size(u64),
    /// A pair, and its position in the outboard if it is stored there.
    Pair { slot: Option<u64>, pair: &'a [u8] },
    /// Data at a byte offset.
    Leaf { offset: u64, data: &'a [u8] },
}

/// Verifies a response from pieces of any length; buffers less than one item.
pub struct Decoder {
    verifier: Verifier,
    buffer: Vec<u8>,
    // The buffer holds an item that was handed out.
    spent: bool,
}

impl Decoder {
    pub fn new(hash: Hash, query: ChunkRanges, limit: u64) -> Self {
        Self { verifier: Verifier::new(hash, query, limit), buffer: Vec::new(), spent: false }
    }

    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    pub fn is_done(&self) -> bool {
        self.verifier.need() == Need::Done
    }

    /// Takes bytes from the front of `data` up to the end of the next item. Returns how many, and the verified item;
    /// no item when the data did not reach that far, or when the response is complete.
    pub fn feed<'a>(&'a mut self, data: &'a [u8]) -> Result<(usize, Option<Event<'a>>), DecodeError> {
        if self.spent {
            self.buffer.clear();
            self.spent = false;
        }
        let need = self.verifier.need();
        if need == Need::Done {
            return Ok((0, None));
        }
        let taken = data.len().min(need.len() - self.buffer.len());
        let item: &[u8] = if taken == need.len() {
            &data[..taken]
        } else {
            self.buffer.extend_from_slice(&data[..taken]);
            if self.buffer.len() < need.len() {
                return Ok((taken, None));
            }
            self.spent = true;
            &self.buffer
        };
        self.verifier.accept(item)?;
        let event = match need {
            Need::Pair { slot } => Event::Pair { slot, pair: item },
            Need::Leaf { offset, .. } => Event::Leaf { offset, data: item },
            Need::Header | Need::Done => Event::Size(self.verifier.size().unwrap_or(0)),
        };
        Ok((taken, Some(event)))
    }

    /// Checks that the response may end here.
    pub fn finish(&self) -> Result<(), DecodeError> {
        self.verifier.ended(if self.spent { 0 } else { self.buffer.len() })
    }
}
