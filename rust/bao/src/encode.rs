//! Writing a response: data and outboard in, verified bytes for the wire out.

use crate::decode::HEADER;
use crate::hash::{Hash, Pair, halves, pair, parent, subtree};
use crate::plan::{Plan, Step};
use crate::ranges::ChunkRanges;
use crate::tree::{GROUP_CHUNKS, Node, PAIR, chunks};

/// Where the data and the outboard of a blob are read from.
pub trait Source {
    type Error;

    /// Fills the buffer with the data from a byte offset on.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// The pair at a position of the outboard, counted in pairs.
    fn pair(&mut self, slot: u64) -> Result<Pair, Self::Error>;
}

/// A blob in memory: its data, and its outboard.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    pub data: &'a [u8],
    pub outboard: &'a [u8],
}

/// Data or outboard end too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooShort;

impl Source for Memory<'_> {
    type Error = TooShort;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), TooShort> {
        let start = usize::try_from(offset).map_err(|_| TooShort)?;
        let end = start.checked_add(buffer.len()).ok_or(TooShort)?;
        buffer.copy_from_slice(self.data.get(start..end).ok_or(TooShort)?);
        Ok(())
    }

    fn pair(&mut self, slot: u64) -> Result<Pair, TooShort> {
        let start = usize::try_from(slot).ok().and_then(|slot| slot.checked_mul(PAIR)).ok_or(TooShort)?;
        let pair = self.outboard.get(start..).and_then(|rest| rest.first_chunk()).ok_or(TooShort)?;
        Ok(*pair)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError<E> {
    /// The data or the outboard are not those of the hash, in these chunks.
    Changed { lo: u64, hi: u64 },
    /// The source failed.
    Source(E),
}

impl<E> From<E> for EncodeError<E> {
    fn from(error: E) -> Self {
        Self::Source(error)
    }
}

/// Encodes one blob, item by item; everything is verified before it is handed out.
pub struct Encoder {
    size: u64,
    header: bool,
    plan: Plan,
    next: Option<Step>,
    // Chaining values of the nodes that the plan comes to, next one last.
    expected: Vec<Hash>,
    // A group of which only a part is wanted: read and verified whole, its inner pairs come from its data.
    group: Vec<u8>,
    group_node: Option<Node>,
}

impl Encoder {
    pub fn new(hash: Hash, size: u64, query: &ChunkRanges) -> Self {
        let mut plan = Plan::new(size, query);
        let next = plan.next();
        Self {
            size,
            header: !query.is_empty(),
            plan,
            next,
            expected: vec![hash],
            group: Vec::new(),
            group_node: None,
        }
    }

    /// The chunks that the response carries.
    pub fn selected(&self) -> &ChunkRanges {
        self.plan.selected()
    }

    /// Bytes of the next item (the size header, a pair or a leaf of at most 16 KiB), None after the last one.
    pub fn next_len(&self) -> Option<usize> {
        if self.header {
            return Some(HEADER);
        }
        self.next.map(|step| match step {
            Step::Parent { .. } => PAIR,
            Step::Leaf(node) => {
                let bytes = node.bytes(self.size);
                (bytes.end - bytes.start) as usize
            }
        })
    }

    /// Writes the next item to `out`, which has its length. After an error `out` holds anything, and must not get out.
    pub fn write<S: Source>(
        &mut self,
        source: &mut S,
        out: &mut [u8],
    ) -> Result<Item, EncodeError<S::Error>> {
        debug_assert_eq!(Some(out.len()), self.next_len());
        if self.header {
            self.header = false;
            out.copy_from_slice(&self.size.to_le_bytes());
            return Ok(Item::Header);
        }
        let Some(step) = self.next else { return Ok(Item::Header) };
        let item = match step {
            Step::Parent { node, left, right } => {
                let pair = match node.slot() {
                    Some(slot) => {
                        let pair = source.pair(slot)?;
                        self.expect(&node, parent(&pair, self.is_root(&node)))?;
                        let (left_cv, right_cv) = halves(&pair);
                        if right {
                            self.expected.push(right_cv);
                        }
                        if left {
                            self.expected.push(left_cv);
                        }
                        pair
                    }
                    None => {
                        self.enter(&node, source)?;
                        let (left, right) = node.children();
                        let cv = |child: &Node| subtree(self.in_group(child), child.lo, false);
                        pair(&cv(&left), &cv(&right))
                    }
                };
                out.copy_from_slice(&pair);
                Item::Parent
            }
            Step::Leaf(node) => {
                let bytes = node.bytes(self.size);
                if self.entered(&node) {
                    out.copy_from_slice(self.in_group(&node));
                } else {
                    source.read(bytes.start, out)?;
                    self.expect(&node, subtree(out, node.lo, self.is_root(&node)))?;
                }
                Item::Leaf { end: bytes.end }
            }
        };
        self.next = self.plan.next();
        Ok(item)
    }

    /// Checks the chaining value of the node that the plan came to.
    fn expect<E>(&mut self, node: &Node, cv: Hash) -> Result<(), EncodeError<E>> {
        if self.expected.pop() == Some(cv) {
            return Ok(());
        }
        Err(EncodeError::Changed { lo: node.lo, hi: node.hi })
    }

    fn is_root(&self, node: &Node) -> bool {
        node.lo == 0 && node.hi == chunks(self.size)
    }

    fn entered(&self, node: &Node) -> bool {
        self.group_node.is_some_and(|group| group.lo <= node.lo && node.hi <= group.hi)
    }

    /// The data of a node in the group that was entered.
    fn in_group(&self, node: &Node) -> &[u8] {
        let base = self.group_node.map_or(0, |group| group.bytes(self.size).start);
        let bytes = node.bytes(self.size);
        &self.group[(bytes.start - base) as usize..(bytes.end - base) as usize]
    }

    /// Reads and verifies the group that starts with this node, unless it is the one at hand.
    fn enter<S: Source>(&mut self, node: &Node, source: &mut S) -> Result<(), EncodeError<S::Error>> {
        if self.entered(node) {
            return Ok(());
        }
        debug_assert_eq!(node.lo % GROUP_CHUNKS, 0);
        let bytes = node.bytes(self.size);
        self.group.resize((bytes.end - bytes.start) as usize, 0);
        self.group_node = None;
        source.read(bytes.start, &mut self.group)?;
        self.expect(node, subtree(&self.group, node.lo, self.is_root(node)))?;
        self.group_node = Some(*node);
        Ok(())
    }
}

/// What [`Encoder::write`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Header,
    Parent,
    /// Data up to this byte of the blob.
    Leaf {
        end: u64,
    },
}

/// The whole response for a blob in memory.
pub fn to_vec(
    hash: Hash,
    data: &[u8],
    outboard: &[u8],
    query: &ChunkRanges,
) -> Result<Vec<u8>, EncodeError<TooShort>> {
    let mut encoder = Encoder::new(hash, data.len() as u64, query);
    let mut source = Memory { data, outboard };
    let mut out = Vec::new();
    while let Some(len) = encoder.next_len() {
        let start = out.len();
        out.resize(start + len, 0);
        encoder.write(&mut source, &mut out[start..])?;
    }
    Ok(out)
}
