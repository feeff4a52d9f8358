//! The same answers as upstream's crate, in both directions.

use aioiroh_bao::tree::outboard_len;
use aioiroh_bao::{Builder, ChunkRanges, Decoder, Event, encode, outboard};
use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::{DecodeResponseIter, encode_ranges_validated};
use bao_tree::io::{BaoContentItem, Leaf};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges as OracleRanges};
use proptest::prelude::*;

const BLOCK: BlockSize = BlockSize::from_chunk_log(4);

/// Data that differ from chunk to chunk, from a seed.
fn data(size: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn oracle_ranges(query: &ChunkRanges) -> OracleRanges {
    let mut out = OracleRanges::empty();
    let boundaries = query.boundaries();
    for pair in boundaries.chunks(2) {
        out |= match pair {
            [start, end] => OracleRanges::from(ChunkNum(*start)..ChunkNum(*end)),
            _ => OracleRanges::from(ChunkNum(pair[0])..),
        };
    }
    out
}

/// The response by upstream's rules: the size header is added by its blobs crate.
fn oracle_encode(data: &[u8], query: &ChunkRanges) -> Vec<u8> {
    if query.is_empty() {
        return Vec::new();
    }
    let outboard = PreOrderMemOutboard::create(data, BLOCK);
    let mut out = (data.len() as u64).to_le_bytes().to_vec();
    encode_ranges_validated(data, &outboard, &oracle_ranges(query), &mut out).unwrap();
    out
}

/// What upstream's getter makes of a response: verified leaves.
fn oracle_decode(hash: [u8; 32], query: &ChunkRanges, encoded: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let (header, rest) = encoded.split_first_chunk()?;
    let tree = BaoTree::new(u64::from_le_bytes(*header), BLOCK);
    let ranges = oracle_ranges(query);
    let mut leaves = Vec::new();
    let mut rest = std::io::Cursor::new(rest);
    for item in DecodeResponseIter::new(hash.into(), tree, &mut rest, &ranges) {
        if let BaoContentItem::Leaf(Leaf { offset, data }) = item.ok()? {
            leaves.push((offset, data.to_vec()));
        }
    }
    Some(leaves)
}

fn decode(
    hash: [u8; 32],
    query: &ChunkRanges,
    encoded: &[u8],
    pieces: &[usize],
) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut decoder = Decoder::new(hash, query.clone(), u64::MAX);
    let mut leaves = Vec::new();
    let mut pieces = pieces.iter().copied().cycle();
    let mut rest = encoded;
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at(pieces.next()?.min(rest.len()));
        while !piece.is_empty() {
            let (taken, event) = decoder.feed(piece).ok()?;
            if let Some(Event::Leaf { offset, data }) = event {
                leaves.push((offset, data.to_vec()));
            }
            if taken == 0 {
                return None;
            }
            piece = &piece[taken..];
        }
        rest = after;
    }
    decoder.finish().ok().map(|()| leaves)
}

fn sizes() -> impl Strategy<Value = usize> {
    let borders = (0_usize..70, prop::sample::select(vec![1024_usize, 16384]), -2_isize..=2)
        .prop_map(|(n, unit, off)| (n * unit).saturating_add_signed(off));
    prop_oneof![borders, 0_usize..5000, 0_usize..1_200_000]
}

fn queries() -> impl Strategy<Value = ChunkRanges> {
    let boundary = prop_oneof![0_u64..40, 0_u64..1300, (0_u64..80).prop_map(|n| n * 16), Just(u64::MAX)];
    prop::collection::btree_set(boundary, 0..9)
        .prop_map(|set| ChunkRanges::from_boundaries(set.into_iter().collect()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn outboards_are_equal(size in sizes(), seed: u64, pieces in prop::collection::vec(1_usize..40_000, 1..8)) {
        let data = data(size, seed);
        let oracle = PreOrderMemOutboard::create(&data, BLOCK);
        let (hash, outboard) = outboard::of_bytes(&data);
        prop_assert_eq!(hash, *oracle.root.as_bytes());
        prop_assert_eq!(outboard.len() as u64, outboard_len(size as u64));
        prop_assert!(outboard == oracle.data);

        let mut builder = Builder::new(size as u64);
        let mut streamed = Vec::new();
        let (mut rest, mut pieces) = (data.as_slice(), pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
            builder.update(piece, &mut streamed).unwrap();
            rest = after;
        }
        prop_assert!(builder.update(&[0], &mut streamed).is_err());
        prop_assert_eq!(builder.finish(), Ok(hash));
        prop_assert!(streamed == outboard);
    }

    #[test]
    fn responses_are_equal(
        size in sizes(),
        seed: u64,
        query in queries(),
        pieces in prop::collection::vec(1_usize..40_000, 1..8),
    ) {
        let data = data(size, seed);
        let (hash, outboard) = outboard::of_bytes(&data);
        let ours = encode::to_vec(hash, &data, &outboard, &query).unwrap();
        let theirs = oracle_encode(&data, &query);
        prop_assert!(ours == theirs, "{} bytes, {query:?}: {} and {} bytes", size, ours.len(), theirs.len());

        let leaves = decode(hash, &query, &theirs, &pieces).expect("the response verifies");
        let selected: u64 = leaves.iter().map(|(_, leaf)| leaf.len() as u64).sum();
        prop_assert_eq!(selected, query.truncate(size as u64).bytes(size as u64));
        for (offset, leaf) in &leaves {
            prop_assert!(data[*offset as usize..][..leaf.len()] == *leaf);
        }
        if !query.is_empty() && size > 0 {
            prop_assert!(leaves == oracle_decode(hash, &query, &ours).unwrap());
        }
    }

    /// A byte changed anywhere: upstream and we agree on whether it verifies, and it never does, except in a size header
    /// where another size of the same shape may.
    #[test]
    fn damage_is_seen_alike(
        size in 1_usize..120_000,
        seed: u64,
        query in queries(),
        at in any::<prop::sample::Index>(),
        change in 1_u8..=255,
    ) {
        let data = data(size, seed);
        let (hash, outboard) = outboard::of_bytes(&data);
        let mut encoded = encode::to_vec(hash, &data, &outboard, &query).unwrap();
        prop_assume!(!encoded.is_empty());
        let at = at.index(encoded.len());
        encoded[at] ^= change;
        let ours = decode(hash, &query, &encoded, &[usize::MAX]);
        if at >= 8 {
            prop_assert!(ours.is_none());
            prop_assert!(oracle_decode(hash, &query, &encoded).is_none());
        } else if let Some(leaves) = ours {
            prop_assert!(leaves == oracle_decode(hash, &query, &encoded).unwrap());
        }
    }

    #[test]
    fn truncation_is_equal(size in 0_u64..3_000_000, query in queries()) {
        let ours = query.truncate(size);
        let n = size.div_ceil(1024).max(1);
        let ranges = oracle_ranges(&query);
        let past = query.boundaries().last().is_some_and(|last| query.boundaries().len() % 2 == 1 || *last >= n);
        for chunk in 0..n {
            let expected = ranges.contains(&ChunkNum(chunk)) || past && chunk == n - 1;
            prop_assert_eq!(ours.contains(chunk), expected);
        }
        prop_assert!(!ours.contains(n) && !ours.contains(u64::MAX));
    }
}
