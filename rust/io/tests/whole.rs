//! Receiving all of blobs: small ones are reported with their data, others ask for somewhere to go.

mod common;

use std::sync::Arc;

use aioiroh_bao::{ChunkRanges, outboard};
use aioiroh_core::stream::StreamEnd;
use aioiroh_io::{Blob, Detail, Item, Report, Worker};
use proptest::prelude::*;

use common::*;

/// What came of each item: its data, of small ones from the report.
fn collect(
    feeder: &mut Feeder,
    blobs: &mut Vec<Option<Arc<Blob>>>,
    got: &mut Vec<Vec<u8>>,
    contents: &[Vec<u8>],
) {
    feeder.look();
    for report in std::mem::take(&mut feeder.reports) {
        match report {
            Report::Whole { item, data } => {
                assert_eq!(item as usize, got.len());
                got.push(data.to_vec());
                blobs.push(None);
            }
            Report::Wanted { item, size } => {
                let data = &contents[item as usize];
                assert_eq!((item as usize, size), (got.len(), data.len() as u64));
                let blob = Arc::new(Blob::memory(outboard::of_bytes(data).0, 1 << 40));
                let other = Arc::new(Blob::memory([7; 32], 1 << 40));
                assert!(feeder.receiver.provide(other).is_err());
                feeder.receiver.provide(blob.clone()).unwrap();
                blobs.push(Some(blob));
            }
            Report::Done { item } => {
                assert_eq!(item as usize, got.len());
                let blob = blobs[item as usize].as_ref().unwrap();
                assert!(blob.is_complete());
                got.push(blob.read(0, usize::MAX).unwrap().unwrap());
            }
            Report::Error { .. } | Report::End { .. } => feeder.reports.push(report),
            _ => {}
        }
    }
}

fn transfer(worker: &Worker, contents: &[Vec<u8>], piece: usize, ahead: usize) {
    let bytes: Vec<u8> = contents.iter().flat_map(|data| encoded(data, &ChunkRanges::all())).collect();
    let mut items: std::collections::VecDeque<_> =
        contents.iter().map(|data| Item::Whole(outboard::of_bytes(data).0)).collect();
    let mut feeder = Feeder::new(worker, u64::MAX);
    let (mut blobs, mut got) = (Vec::new(), Vec::new());
    let start = std::time::Instant::now();
    let mut at = 0;
    let mut finished = false;
    while !matches!(feeder.reports.last(), Some(Report::End { .. } | Report::Error { .. })) {
        assert!(start.elapsed() < LONG, "{} of {} came", got.len(), contents.len());
        let mut moved = false;
        while !items.is_empty() && contents.len() - items.len() < got.len() + ahead {
            feeder.receiver.expect(vec![items.pop_front().unwrap()]).unwrap();
            moved = true;
        }
        if items.is_empty() && !finished {
            feeder.receiver.finish();
            finished = true;
        }
        let room = feeder.sink.capacity().min(piece).min(bytes.len() - at);
        if room > 0 {
            feeder.feed(&bytes[at..at + room], piece);
            at += room;
            moved = true;
            if at == bytes.len() {
                feeder.sink.end(StreamEnd::Finished);
            }
        }
        let before = got.len();
        collect(&mut feeder, &mut blobs, &mut got, contents);
        if !moved && got.len() == before {
            let _ = feeder.wakes.recv_timeout(std::time::Duration::from_millis(10));
        }
    }
    assert_eq!(feeder.reports, [Report::End { trailing: 0 }]);
    assert!(got == contents);
}

#[test]
fn small_blobs_are_reported_and_others_asked_for() {
    let sizes = [0, 1, 1023, 1024, 5000, 16383, 16384, 16385, 70_000, 3, 3_000_000, 0, 16384, 20_000, 9];
    let contents: Vec<_> = sizes.map(blob).into();
    for worker in workers() {
        for piece in [7000, 1_000_000] {
            for ahead in [1, 3, 100] {
                transfer(&worker, &contents, piece, ahead);
            }
        }
        transfer(&worker, &contents[..7], 1, 100);
    }
}

#[test]
fn more_than_is_kept_waits_to_be_collected() {
    let contents: Vec<Vec<u8>> = (0..400_u32).map(|i| i.to_le_bytes().repeat(4096)).collect();
    let bytes: Vec<u8> = contents.iter().flat_map(|data| encoded(data, &ChunkRanges::all())).collect();
    for worker in workers() {
        let mut feeder = Feeder::new(&worker, u64::MAX);
        let items = contents.iter().map(|data| Item::Whole(outboard::of_bytes(data).0)).collect();
        feeder.receiver.expect(items).unwrap();
        let mut at = 0;
        loop {
            let room = feeder.sink.capacity().min(100_000).min(bytes.len() - at);
            if room == 0 {
                break;
            }
            feeder.sink.push(bytes::Bytes::copy_from_slice(&bytes[at..at + room]));
            at += room;
        }
        // A megabyte is kept, two wait, and the peer is held.
        assert!((2_900_000..3_300_000).contains(&at), "{at}");
        let kept = feeder.receiver.poll();
        assert!((62..=64).contains(&kept.len()), "{}", kept.len());
        assert!(feeder.sink.capacity() > 0);
    }
    for worker in workers() {
        transfer(&worker, &contents, 50_000, 1000);
    }
}

#[test]
fn wrong_blobs_are_refused() {
    let data = blob(5000);
    let hash = outboard::of_bytes(&data).0;
    let good = encoded(&data, &ChunkRanges::all());
    let mut wrong = good.clone();
    wrong[4000] ^= 1;
    let mut longer = good.clone();
    longer[0] = longer[0].wrapping_add(1);
    longer.push(0);
    let over = 2_000_000_u64.to_le_bytes();
    let chunks = |lo, hi| Detail::Chunks { lo, hi };
    let cases: [(&[u8], StreamEnd, &str, Detail); 9] = [
        (&wrong, StreamEnd::Finished, "leaf_mismatch", chunks(0, 5)),
        (&longer, StreamEnd::Finished, "leaf_mismatch", chunks(0, 5)),
        (&[0; 8], StreamEnd::Finished, "size_invalid", Detail::None),
        (&over, StreamEnd::Finished, "size_limit", Detail::Size { claimed: 2_000_000, other: 1_000_000 }),
        (&good[..5], StreamEnd::Finished, "missing_header", Detail::None),
        (&good[..8], StreamEnd::Finished, "missing_item", Detail::None),
        (&good[..700], StreamEnd::Finished, "truncated", Detail::None),
        (&good[..700], StreamEnd::Reset(9), "reset", Detail::Code(9)),
        (&good[..3], StreamEnd::Lost, "lost", Detail::None),
    ];
    for worker in workers() {
        for (bytes, end, kind, detail) in &cases {
            let mut feeder = Feeder::new(&worker, 1_000_000);
            feeder.receiver.expect(vec![Item::Whole(hash), Item::Whole(hash)]).unwrap();
            feeder.feed(&good, 1400);
            feeder.feed(bytes, 1400);
            let reports = feeder.end(*end);
            assert!(matches!(reports[0], Report::Whole { item: 0, .. }));
            assert_eq!(errors(&reports), [(1, *kind, detail.clone())]);
        }
    }
}

#[test]
fn a_stream_that_ends_before_the_blob_is_given() {
    let data = blob(100_000);
    let hash = outboard::of_bytes(&data).0;
    for worker in workers() {
        for (cut, kind) in [(100_000, "truncated"), (8, "missing_item")] {
            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.receiver.expect(vec![Item::Whole(hash)]).unwrap();
            feeder.feed(&encoded(&data, &ChunkRanges::all())[..cut], 1400);
            feeder.sink.end(StreamEnd::Finished);
            feeder.look();
            assert_eq!(feeder.reports, [Report::Wanted { item: 0, size: 100_000 }]);
            let target = Arc::new(Blob::memory(hash, 1 << 40));
            feeder.receiver.provide(target.clone()).unwrap();
            assert!(feeder.receiver.provide(target.clone()).is_err());
            let reports = feeder.end(StreamEnd::Finished);
            assert_eq!(errors(&reports), [(0, kind, Detail::None)]);
            assert_eq!(target.present().is_empty(), cut == 8);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_arrives(
        sizes in prop::collection::vec(prop_oneof![0..3000_usize, 16_000..17_000_usize, 30_000..80_000_usize], 1..40),
        piece in prop_oneof![1..2000_usize, 10_000..200_000_usize],
        ahead in 1..50_usize,
        inline in any::<bool>(),
    ) {
        let contents: Vec<_> = sizes.into_iter().map(blob).collect();
        transfer(&Worker::new(inline).unwrap(), &contents, piece.max(if contents.len() > 5 { 500 } else { 1 }), ahead);
    }
}
