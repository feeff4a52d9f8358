//! Sets of chunks.

use std::ops::Range;

use crate::tree::{GROUP_CHUNKS, byte_range, chunks};

/// A set of chunk numbers, as a strictly increasing list of boundaries that toggle membership: `[]` is
/// empty, `[0]` everything, `[a, b]` is `a..b`, `[a]` is `a..`.
///
/// All operations are linear in the number of boundaries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ChunkRanges(Vec<u64>);

/// How a node relates to a set of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    None,
    Some,
    All,
}

impl ChunkRanges {
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    pub fn all() -> Self {
        Self(vec![0])
    }

    /// The set by which a size proof is asked for: whatever the size, it selects the last chunk.
    pub fn last_chunk() -> Self {
        Self(vec![u64::MAX])
    }

    /// None unless the boundaries increase strictly.
    pub fn from_boundaries(boundaries: Vec<u64>) -> Option<Self> {
        boundaries.is_sorted_by(|a, b| a < b).then_some(Self(boundaries))
    }

    pub fn boundaries(&self) -> &[u64] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_all(&self) -> bool {
        self.0 == [0]
    }

    pub fn contains(&self, chunk: u64) -> bool {
        self.0.partition_point(|b| *b <= chunk) % 2 == 1
    }

    /// Whether none, some or all of the chunks `lo..hi` are in the set; `lo < hi`.
    pub fn cover(&self, lo: u64, hi: u64) -> Cover {
        let next = self.0.partition_point(|b| *b <= lo);
        if self.0.get(next).is_some_and(|b| *b < hi) {
            Cover::Some
        } else if next % 2 == 1 {
            Cover::All
        } else {
            Cover::None
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    pub fn complement(&self) -> Self {
        Self(match self.0.split_first() {
            Some((0, rest)) => rest.to_vec(),
            _ => std::iter::once(0).chain(self.0.iter().copied()).collect(),
        })
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        other.is_all() || self.difference(other).is_empty()
    }

    /// Merges two boundary lists; `keep(false, false)` must be false.
    fn combine(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        let (mut in_a, mut in_b, mut inside) = (false, false, false);
        let mut out = Vec::new();
        loop {
            let at = match (a.first(), b.first()) {
                (Some(x), Some(y)) => *x.min(y),
                (Some(x), None) | (None, Some(x)) => *x,
                (None, None) => return Self(out),
            };
            if a.first() == Some(&at) {
                in_a = !in_a;
                a = &a[1..];
            }
            if b.first() == Some(&at) {
                in_b = !in_b;
                b = &b[1..];
            }
            if keep(in_a, in_b) != inside {
                inside = !inside;
                out.push(at);
            }
        }
    }

    /// Adds the chunks of a range; nothing if it is empty.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Boundaries inside start..=end go away; the ends stay where membership changes there.
        let first = self.0.partition_point(|b| *b < range.start);
        let last = self.0.partition_point(|b| *b <= range.end);
        let opens = (first % 2 == 0).then_some(range.start);
        let closes = (last % 2 == 0).then_some(range.end);
        self.0.splice(first..last, opens.into_iter().chain(closes));
    }

    /// The chunks that a query selects in a blob of `size` bytes: those that exist, and the last one if
    /// the query reaches it or past it.
    pub fn truncate(&self, size: u64) -> Self {
        let end = chunks(size);
        let reaches_end = match self.0.last() {
            None => false,
            Some(last) if self.0.len().is_multiple_of(2) => *last >= end,
            Some(_) => true,
        };
        let kept = self.0.partition_point(|b| *b < end);
        let mut out = Self(self.0[..kept].to_vec());
        if kept % 2 == 1 {
            out.0.push(end);
        }
        if reaches_end {
            out.insert(end - 1..end);
        }
        out
    }

    /// For a set within a blob of `size` bytes: every group of which a chunk is in the set, whole.
    pub fn round_to_groups(&self, size: u64) -> Self {
        let end = chunks(size);
        let mut out = Self::empty();
        for range in self.iter() {
            let hi = range.end.min(end);
            if range.start < hi {
                let lo = range.start - range.start % GROUP_CHUNKS;
                out.insert(lo..hi.next_multiple_of(GROUP_CHUNKS).min(end));
            }
        }
        out
    }

    /// The spans in order; an open one ends at `u64::MAX`.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.chunks(2).map(|pair| pair[0]..pair.get(1).copied().unwrap_or(u64::MAX))
    }

    /// How many bytes of a blob of `size` bytes are in the set.
    pub fn bytes(&self, size: u64) -> u64 {
        self.iter()
            .map(|range| {
                let bytes = byte_range(range.start, range.end, size);
                bytes.end - bytes.start
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(boundaries: &[u64]) -> ChunkRanges {
        ChunkRanges::from_boundaries(boundaries.to_vec()).unwrap()
    }

    #[test]
    fn boundaries_must_increase() {
        assert!(ChunkRanges::from_boundaries(vec![1, 1]).is_none());
        assert!(ChunkRanges::from_boundaries(vec![2, 1]).is_none());
        assert!(ChunkRanges::from_boundaries(vec![]).unwrap().is_empty());
    }

    /// Every pair of sets over eight chunks, closed and open, against bit masks.
    #[test]
    fn algebra_is_that_of_bit_sets() {
        const N: u64 = 6;
        // Bit N stands for everything from chunk N on.
        let from_mask = |mask: u64| {
            let mut out = Vec::new();
            let mut inside = false;
            for i in 0..=N {
                if (mask >> i & 1 == 1) != inside {
                    inside = !inside;
                    out.push(i);
                }
            }
            set(&out)
        };
        for a in 0..1 << (N + 1) {
            let x = from_mask(a);
            assert_eq!(x.complement(), from_mask(!a));
            for i in 0..=N {
                assert_eq!(x.contains(i), a >> i & 1 == 1);
            }
            for b in 0..1 << (N + 1) {
                let y = from_mask(b);
                assert_eq!(x.union(&y), from_mask(a | b));
                assert_eq!(x.intersection(&y), from_mask(a & b));
                assert_eq!(x.difference(&y), from_mask(a & !b));
                assert_eq!(x.is_subset(&y), a & !b == 0);
            }
            for lo in 0..N {
                for hi in lo..=N {
                    let bits = (1 << hi) - (1 << lo);
                    let mut inserted = x.clone();
                    inserted.insert(lo..hi);
                    assert_eq!(inserted, from_mask(a | bits), "{x:?} + {lo}..{hi}");
                    if lo < hi {
                        let cover = match a & bits {
                            0 => Cover::None,
                            some if some == bits => Cover::All,
                            _ => Cover::Some,
                        };
                        assert_eq!(x.cover(lo, hi), cover);
                    }
                }
            }
            // Truncation by its definition.
            for n in 1..=N {
                let mut selected = a & ((1 << n) - 1);
                if a >> (n - 1) != 0 {
                    selected |= 1 << (n - 1);
                }
                assert_eq!(x.truncate(n * 1024), from_mask(selected), "{x:?} to {n}");
                assert_eq!(x.truncate(n * 1024 - 1023), from_mask(selected));
            }
        }
    }

    #[test]
    fn last_chunk_selects_the_last_chunk_of_any_size() {
        for size in [0, 1, 1024, 1025, 100_000, u64::MAX] {
            let n = chunks(size);
            assert_eq!(ChunkRanges::last_chunk().truncate(size), set(&[n - 1, n]));
        }
    }

    #[test]
    fn groups_are_rounded_outwards_within_the_blob() {
        assert_eq!(set(&[3, 4]).round_to_groups(100_000), set(&[0, 16]));
        assert_eq!(set(&[15, 17]).round_to_groups(100_000), set(&[0, 32]));
        assert_eq!(set(&[97]).round_to_groups(100_000), set(&[96, 98]));
        assert_eq!(set(&[3, 4, 5, 6, 40, 41]).round_to_groups(100_000), set(&[0, 16, 32, 48]));
    }

    #[test]
    fn bytes_counts_the_short_last_chunk() {
        assert_eq!(ChunkRanges::all().bytes(100_000), 100_000);
        assert_eq!(set(&[97, 98]).bytes(100_000), 672);
        assert_eq!(set(&[0, 1, 97]).bytes(100_000), 1024 + 672);
        assert_eq!(set(&[0, 1]).bytes(0), 0);
    }
}
