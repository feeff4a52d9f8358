//! Responses from peers that lie.

use aioiroh_bao::{ChunkRanges, DecodeError, Decoder, EncodeError, Encoder, Event, Memory, encode, outboard};
use proptest::prelude::*;

fn blob(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

fn set(boundaries: &[u64]) -> ChunkRanges {
    ChunkRanges::from_boundaries(boundaries.to_vec()).unwrap()
}

/// The verified leaves, or what was wrong; the latter also for bytes that are too many.
fn decode(
    hash: [u8; 32],
    query: &ChunkRanges,
    limit: u64,
    mut rest: &[u8],
) -> Result<(Vec<u8>, bool), DecodeError> {
    let mut decoder = Decoder::new(hash, query.clone(), limit);
    let mut out = Vec::new();
    while !rest.is_empty() && !decoder.is_done() {
        let (taken, event) = decoder.feed(rest)?;
        if let Some(Event::Leaf { data, .. }) = event {
            out.extend_from_slice(data);
        }
        rest = &rest[taken..];
    }
    decoder.finish()?;
    if rest.is_empty() { Ok((out, decoder.verifier().size_proven())) } else { Err(DecodeError::Truncated) }
}

/// Every change of every single byte after the header is seen, and before any wrong byte gets out.
#[test]
fn every_changed_byte_is_seen() {
    for (size, query) in [
        (1, set(&[0])),
        (1025, set(&[0])),
        (1025, set(&[1])),
        (5000, set(&[1, 3])),
        (16385, set(&[16, 17])),
        (40_000, set(&[3, 4, 38])),
    ] {
        let data = blob(size);
        let (hash, outboard) = outboard::of_bytes(&data);
        let good = encode::to_vec(hash, &data, &outboard, &query).unwrap();
        let (expected, _) = decode(hash, &query, u64::MAX, &good).unwrap();
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                match decode(hash, &query, u64::MAX, &bad) {
                    Err(_) => {}
                    // A size that gives the same tree for this query: the data are right all the same.
                    Ok((got, proven)) => assert!(at < 8 && got == expected && !proven),
                }
            }
        }
        for cut in 0..good.len() {
            let error = decode(hash, &query, u64::MAX, &good[..cut]).unwrap_err();
            let kind = if cut < 8 { "missing_header" } else { error.kind() };
            assert_eq!(error.kind(), kind);
            assert!(["missing_header", "missing_item", "truncated"].contains(&kind));
        }
    }
}

/// Sizes that are not the true one: for the last chunk none verifies, for others only within the same power of two, and
/// then the size is not taken for proven.
#[test]
fn sizes_that_lie_are_never_proven() {
    for chunks in 1..=299_u64 {
        for short in [0, 1000] {
            let size = chunks * 1024 - short;
            let data = blob(size as usize);
            let (hash, outboard) = outboard::of_bytes(&data);
            for query in [
                ChunkRanges::last_chunk(),
                ChunkRanges::all(),
                set(&[0, 1]),
                set(&[chunks / 2, chunks / 2 + 1]),
            ] {
                let mut encoded = encode::to_vec(hash, &data, &outboard, &query).unwrap();
                assert_eq!(
                    decode(hash, &query, u64::MAX, &encoded).unwrap().1,
                    query.truncate(size).contains(chunks - 1)
                );
                for claim in (0..300 * 1024).step_by(1024).chain([size - 1, size + 1, u64::MAX, 1 << 63]) {
                    if claim == size {
                        continue;
                    }
                    encoded[..8].copy_from_slice(&claim.to_le_bytes());
                    if let Ok((_, proven)) = decode(hash, &query, u64::MAX, &encoded) {
                        assert!(!proven, "{size} {claim} {query:?}");
                        let claimed = claim.div_ceil(1024).max(1);
                        assert!(!query.truncate(size).contains(chunks - 1) || claimed > chunks);
                        assert_eq!(claimed.next_power_of_two(), chunks.next_power_of_two());
                    }
                }
            }
        }
    }
}

#[test]
fn sizes_are_limited() {
    let data = blob(100_000);
    let (hash, outboard) = outboard::of_bytes(&data);
    let encoded = encode::to_vec(hash, &data, &outboard, &ChunkRanges::all()).unwrap();
    assert!(decode(hash, &ChunkRanges::all(), 100_000, &encoded).is_ok());
    let error = decode(hash, &ChunkRanges::all(), 99_999, &encoded).unwrap_err();
    assert_eq!(error, DecodeError::SizeLimit { claimed: 100_000, limit: 99_999 });
    assert_eq!(decode(hash, &ChunkRanges::all(), 9, &[0; 8]).unwrap_err(), DecodeError::SizeInvalid);
    let empty = blake3::hash(b"");
    assert_eq!(decode(*empty.as_bytes(), &ChunkRanges::all(), 9, &[0; 8]).unwrap(), (vec![], true));
    // For the empty hash every other size is a lie, too.
    let one = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[7]].concat();
    assert!(decode(*empty.as_bytes(), &ChunkRanges::all(), 9, &one).is_err());
}

/// Data and outboard of a provider that were changed: an error, and nothing but right bytes before it.
#[test]
fn an_encoder_does_not_pass_on_what_was_changed() {
    let data = blob(150_000);
    let (hash, outboard) = outboard::of_bytes(&data);
    for query in [ChunkRanges::all(), set(&[3, 4, 60, 62, 100])] {
        let good = encode::to_vec(hash, &data, &outboard, &query).unwrap();
        let check = |data: &[u8], outboard: &[u8]| {
            let mut encoder = Encoder::new(hash, 150_000, &query);
            let mut out = Vec::new();
            let result = loop {
                let Some(len) = encoder.next_len() else { break Ok(()) };
                let mut item = vec![0; len];
                match encoder.write(&mut Memory { data, outboard }, &mut item) {
                    Ok(_) => out.extend(item),
                    Err(error) => break Err(error),
                }
            };
            assert!(good.starts_with(&out));
            match result {
                Ok(_) => assert!(out == good),
                Err(EncodeError::Changed { lo, hi }) => assert!(lo < hi && hi <= 147),
                Err(EncodeError::Source(_)) => assert!(data.len() < 150_000 || outboard.len() < 576),
            }
            out.len() < good.len()
        };
        for at in (0..data.len()).step_by(997) {
            let mut changed = data.clone();
            changed[at] ^= 0x10;
            // Only what is read can be seen to be changed.
            let group = at as u64 / 16384;
            let read = query.round_to_groups(150_000).contains(group * 16);
            assert_eq!(check(&changed, &outboard), read);
            check(&data[..at], &outboard);
        }
        for at in 0..outboard.len() {
            let mut changed = outboard.clone();
            changed[at] ^= 0x10;
            check(&data, &changed);
            check(&data, &outboard[..at]);
        }
        let mut changed = outboard.clone();
        changed[0] ^= 1;
        assert!(check(&data, &changed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Anything at all: a verdict, no panic, and never more memory than an item.
    #[test]
    fn noise_is_refused(
        hash: [u8; 32],
        size in prop_oneof![0_u64..200_000, any::<u64>()],
        boundaries in prop::collection::btree_set(any::<u64>(), 0..6),
        small in prop::collection::btree_set(0_u64..200, 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        pieces in prop::collection::vec(1_usize..700, 1..5),
    ) {
        for query in [boundaries, small] {
            let query = ChunkRanges::from_boundaries(query.into_iter().collect()).unwrap();
            let encoded = [&size.to_le_bytes()[..], &bytes].concat();
            let mut decoder = Decoder::new(hash, query.clone(), u64::MAX);
            let (mut rest, mut pieces) = (encoded.as_slice(), pieces.iter().cycle());
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(*pieces.next().unwrap())];
                match decoder.feed(piece) {
                    Ok((0, None)) => break,
                    Ok((taken, event)) => {
                        let is_data = matches!(event, Some(Event::Leaf { .. } | Event::Pair { .. }));
                        prop_assert!(!is_data, "noise verified");
                        rest = &rest[taken..];
                    }
                    Err(_) => break,
                }
            }
            prop_assert!(decoder.finish().is_err() || query.is_empty() || decoder.is_done());
        }
    }

    /// A good response with a few bytes changed, added or taken away.
    #[test]
    fn mutations_never_give_wrong_bytes(
        size in 0_usize..60_000,
        boundaries in prop::collection::btree_set(0_u64..70, 0..6),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4),
    ) {
        let data = blob(size);
        let query = ChunkRanges::from_boundaries(boundaries.into_iter().collect()).unwrap();
        let (hash, outboard) = outboard::of_bytes(&data);
        let mut bytes = encode::to_vec(hash, &data, &outboard, &query).unwrap();
        for (at, value, edit) in edits {
            let at = at.index(bytes.len() + 1);
            match edit {
                0 => bytes.insert(at, value),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = value,
                _ => {}
            }
        }
        let mut decoder = Decoder::new(hash, query, u64::MAX);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && !decoder.is_done() {
            let Ok((taken, event)) = decoder.feed(rest) else { break };
            if let Some(Event::Leaf { offset, data: leaf }) = event {
                prop_assert!(data[offset as usize..].starts_with(leaf));
            }
            rest = &rest[taken..];
        }
        if decoder.verifier().size_proven() {
            prop_assert_eq!(decoder.verifier().size(), Some(size as u64));
        }
    }
}
