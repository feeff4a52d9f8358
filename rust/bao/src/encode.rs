//! Writing a response: data and outboard in, verified bytes for the wire out.

use crate::hash::{Hash, Pair, halves, pair, parent, subtree};
use crate::plan::{Plan, Step};
use crate::ranges::ChunkRanges;
use crate::tree::{GROUP_CHUNKS, Node, chunks};

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
        let start = slot as usize * 64;
        self.outboard.get(start..start + 64).and_then(|pair| pair.try_into().ok()).ok_or(TooShort)
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
    // Chaining values of the nodes that the plan comes to, next one last.
    expected: Vec<Hash>,
    // A group of which only a part is wanted: read and verified whole, its inner pairs come from its data.
    group: Vec<u8>,
    group_node: Option<Node>,
}

impl Encoder {
    pub fn new(hash: Hash, size: u64, query: &ChunkRanges) -> Self {
        let plan = Plan::new(size, query);
        Self {
            size,
            header: !query.is_empty(),
            plan,
            expected: vec![hash],
            group: Vec::new(),
            group_node: None,
        }
    }

    /// The chunks that the response carries.
    pub fn selected(&self) -> &ChunkRanges {
        self.plan.selected()
    }

    /// Appends the next item (the size header, a pair or a leaf). Returns the byte offset in the blob up to which
    /// data has been encoded if the item was a leaf; None after the last item.
    pub fn next<S: Source>(
        &mut self,
        source: &mut S,
        out: &mut Vec<u8>,
    ) -> Result<Option<Item>, EncodeError<S::Error>> {
        if self.header {
            self.header = false;
            out.extend_from_slice(&self.size.to_le_bytes());
            return Ok(Some(Item::Header));
        }
        let Some(step) = self.plan.next() else { return Ok(None) };
        match step {
            Step::Parent { node, left, right } => match node.slot() {
                Some(slot) => {
                    let pair = source.pair(slot)?;
                    let is_root = self.is_root(&node);
                    if self.expected.pop() != Some(parent(&pair, is_root)) {
                        return Err(changed(&node));
                    }
                    let (left_cv, right_cv) = halves(&pair);
                    if right {
                        self.expected.push(right_cv);
                    }
                    if left {
                        self.expected.push(left_cv);
                    }
                    out.extend_from_slice(&pair);
                }
                None => {
                    self.enter(&node, source)?;
                    let (left, right) = node.children();
                    let pair = pair(
                        &subtree(self.in_group(&left), left.lo, false),
                        &subtree(self.in_group(&right), right.lo, false),
                    );
                    out.extend_from_slice(&pair);
                }
            },
            Step::Leaf(node) if self.entered(&node) => out.extend_from_slice(self.in_group(&node)),
            Step::Leaf(node) => {
                let bytes = node.bytes(self.size);
                let start = out.len();
                out.resize(start + (bytes.end - bytes.start) as usize, 0);
                let read = source.read(bytes.start, &mut out[start..]);
                let checked = match read {
                    Err(error) => Err(EncodeError::Source(error)),
                    Ok(())
                        if self.expected.pop()
                            == Some(subtree(&out[start..], node.lo, self.is_root(&node))) =>
                    {
                        Ok(())
                    }
                    Ok(()) => Err(changed(&node)),
                };
                if let Err(error) = checked {
                    // What could not be verified must not get out.
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(Some(match step {
            Step::Parent { .. } => Item::Parent,
            Step::Leaf(node) => Item::Leaf { end: node.bytes(self.size).end },
        }))
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
        if self.expected.pop() != Some(subtree(&self.group, node.lo, self.is_root(node))) {
            return Err(changed(node));
        }
        self.group_node = Some(*node);
        Ok(())
    }
}

/// What [`Encoder::next`] appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Header,
    Parent,
    /// Data up to this byte of the blob.
    Leaf {
        end: u64,
    },
}

fn changed<E>(node: &Node) -> EncodeError<E> {
    EncodeError::Changed { lo: node.lo, hi: node.hi }
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
    while encoder.next(&mut source, &mut out)?.is_some() {}
    Ok(out)
}
