//! Receivers, driven by hand as the engine drives them.

mod common;

use std::path::Path;
use std::sync::Arc;

use aioiroh_bao::{ChunkRanges, outboard};
use aioiroh_core::stream::StreamEnd;
use aioiroh_io::{Blob, Detail, Event, Item, OutboardAt, Receiver, Report, Sender, Worker};
use bytes::Bytes;

use common::*;

#[test]
fn blobs_arrive_in_memory_and_in_files() {
    for worker in workers() {
        let folder = Folder::new(&format!("arrive-{}", worker.fd()));
        for size in [0, 1, 1024, 16384, 16385, 100_000, 3_000_000, 9_000_001] {
            let data = blob(size);
            let (hash, pairs) = outboard::of_bytes(&data);
            let (path, outboard) = (folder.at("data"), folder.at("outboard"));
            let blobs = [
                Arc::new(Blob::memory(hash, 1 << 40)),
                Arc::new(Blob::create(hash, path.clone(), Some(outboard.clone()), 1 << 40)),
                Arc::new(Blob::create(hash, folder.at("data2"), None, 1 << 40)),
            ];
            for piece in [1400, 70_000, 5_000_000] {
                let mut feeder = Feeder::new(&worker, u64::MAX);
                for blob in &blobs {
                    feeder.expect(ChunkRanges::all(), blob);
                }
                feeder.receiver.finish();
                for _ in &blobs {
                    feeder.feed(&encoded(&data, &ChunkRanges::all()), piece);
                }
                let reports = feeder.end(StreamEnd::Finished);
                assert_eq!(reports.last(), Some(&Report::End { trailing: 0 }), "{reports:?}");
                for item in 0..blobs.len() as u64 {
                    let size = size as u64;
                    assert!(reports.contains(&Report::Size { item, size }));
                    assert!(size == 0 || reports.contains(&Report::Progress { item, bytes: size }));
                    assert!(reports.contains(&Report::Done { item }));
                }
                for blob in &blobs {
                    assert!(blob.is_complete());
                    assert_eq!(blob.verified_size(), Some(size as u64));
                    assert!(blob.read(0, size + 1).unwrap().unwrap() == data);
                    assert!(blob.outboard().unwrap() == pairs);
                    blob.spill().unwrap();
                    blob.close();
                }
                assert!(std::fs::read(&path).unwrap() == data);
                assert!(size <= 16384 || std::fs::read(&outboard).unwrap() == pairs);
            }
        }
    }
}

#[test]
fn parts_arrive_from_several_streams() {
    let data = blob(1_000_000);
    let (hash, pairs) = outboard::of_bytes(&data);
    for worker in workers() {
        let folder = Folder::new(&format!("parts-{}", worker.fd()));
        for target in
            [Blob::memory(hash, 1 << 40), Blob::create(hash, folder.at("d"), Some(folder.at("o")), 1 << 40)]
        {
            let target = Arc::new(target);
            let queries = [set(&[0, 1]), set(&[20, 300]), ChunkRanges::last_chunk(), set(&[1, 20, 300])];
            for (i, query) in queries.iter().enumerate() {
                assert_eq!(target.verified_size().is_some(), i > 2);
                let mut feeder = Feeder::new(&worker, u64::MAX);
                feeder.expect(query.clone(), &target);
                feeder.receiver.finish();
                feeder.feed(&encoded(&data, query), 1400);
                assert!(errors(&feeder.end(StreamEnd::Finished)).is_empty());
                assert_eq!(target.is_complete(), i == 3);
            }
            assert!(target.read(0, data.len()).unwrap().unwrap() == data);
            assert!(target.outboard().unwrap() == pairs);
        }
    }
}

#[test]
fn only_verified_bytes_can_be_read() {
    let data = blob(100_000);
    let worker = Worker::new(true).unwrap();
    let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
    assert!(target.read(0, 1).is_err());
    let mut feeder = Feeder::new(&worker, u64::MAX);
    feeder.expect(set(&[2, 5]), &target);
    feeder.feed(&encoded(&data, &set(&[2, 5])), 1400);
    assert_eq!(target.present(), set(&[2, 5]));
    assert_eq!(target.read(2048, 3072).unwrap().unwrap(), data[2048..5120]);
    assert!(target.read(2047, 2).is_err());
    assert!(target.read(5119, 2).is_err());
    assert_eq!(target.read(1 << 50, 10).unwrap().unwrap(), b"");
}

#[test]
fn what_verified_before_a_failure_is_kept() {
    let data = blob(3_000_000);
    let hash = outboard::of_bytes(&data).0;
    let good = encoded(&data, &ChunkRanges::all());
    for worker in workers() {
        let folder = Folder::new(&format!("failure-{}", worker.fd()));
        let cases: [(&str, StreamEnd, Detail); 4] = [
            ("leaf_mismatch", StreamEnd::Finished, Detail::Chunks { lo: 1456, hi: 1472 }),
            ("truncated", StreamEnd::Finished, Detail::None),
            ("reset", StreamEnd::Reset(9), Detail::Code(9)),
            ("lost", StreamEnd::Lost, Detail::None),
        ];
        for (kind, end, detail) in cases {
            let target = Arc::new(Blob::create(hash, folder.at("data"), None, 1 << 40));
            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.expect(ChunkRanges::all(), &target);
            let mut bytes = good[..1_500_000].to_vec();
            if kind == "leaf_mismatch" {
                // Somewhere in the leaf that the cut would have hit.
                bytes[1_499_000] ^= 1;
                bytes.extend_from_slice(&good[1_500_000..1_600_000]);
            }
            feeder.feed(&bytes, 50_000);
            let reports = feeder.end(end);
            assert_eq!(errors(&reports), [(0, kind, detail)]);
            assert_eq!(target.present(), set(&[0, 1456]));
            assert_eq!(target.read(0, 1456 * 1024).unwrap().unwrap(), data[..1456 * 1024]);
            assert!(!target.is_complete());
        }
    }
}

/// A slice that ends just before the stream does: what is left is too little to be worth a turn, but nothing follows.
#[test]
fn the_end_is_seen_wherever_a_slice_stops() {
    let data = blob(3_000_000);
    let hash = outboard::of_bytes(&data).0;
    let good = encoded(&data, &ChunkRanges::all());
    for worker in workers() {
        // A slice takes 1 MiB, in whole leaves, and the pairs between them.
        for len in (1_040_000..1_130_000).step_by(7_000) {
            let target = Arc::new(Blob::memory(hash, 1 << 40));
            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.feed(&good[..len], 50_000);
            feeder.sink.end(StreamEnd::Finished);
            feeder.expect(ChunkRanges::all(), &target);
            assert_eq!(errors(&feeder.end(StreamEnd::Finished)), [(0, "truncated", Detail::None)], "{len}");
        }
    }
}

#[test]
fn an_error_stops_the_stream() {
    let data = blob(40_000);
    let worker = Worker::new(false).unwrap();
    let wrong = Arc::new(Blob::memory([3; 32], 1 << 40));
    let mut feeder = Feeder::new(&worker, u64::MAX);
    feeder.expect(ChunkRanges::all(), &wrong);
    feeder.feed(&encoded(&data, &ChunkRanges::all()), 1400);
    while feeder.stopped.is_none() {
        feeder.wakes.recv_timeout(LONG).unwrap();
        feeder.look();
    }
    assert_eq!(feeder.stopped, Some(7));
    assert_eq!(errors(&feeder.reports), [(0, "parent_mismatch", Detail::Chunks { lo: 0, hi: 40 })]);
}

#[test]
fn claims_are_limited_and_must_not_contradict_what_is_verified() {
    let data = blob(100_000);
    let hash = outboard::of_bytes(&data).0;
    let worker = Worker::new(true).unwrap();
    let claim = |target: &Arc<Blob>, limit, query: ChunkRanges, size: u64| {
        let mut feeder = Feeder::new(&worker, limit);
        feeder.expect(query.clone(), target);
        let mut bytes = encoded(&data, &query);
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        feeder.feed(&bytes, 1 << 20);
        feeder.receiver.finish();
        errors(&feeder.end(StreamEnd::Finished))
    };
    let target = Arc::new(Blob::memory(hash, 200_000));
    let too_large = |claimed, other| vec![(0, "size_limit", Detail::Size { claimed, other })];
    assert_eq!(claim(&target, 99_999, ChunkRanges::all(), 100_000), too_large(100_000, 99_999));
    assert_eq!(claim(&target, 1 << 40, ChunkRanges::all(), 200_001), too_large(200_001, 200_000));
    assert_eq!(claim(&target, 1 << 40, ChunkRanges::all(), 0), [(0, "size_invalid", Detail::None)]);
    // A lie that verifies, for a part on the left; the next one may say something else.
    assert_eq!(claim(&target, 1 << 40, set(&[0, 1]), 120_000), []);
    assert_eq!((target.size(), target.verified_size()), (Some(120_000), None));
    assert_eq!(claim(&target, 1 << 40, set(&[0, 16]), 80_000), []);
    assert_eq!(claim(&target, 1 << 40, set(&[0, 20]), 100_000), []);
    assert_eq!(target.verified_size(), None);
    assert_eq!(claim(&target, 1 << 40, ChunkRanges::last_chunk(), 100_000), []);
    assert_eq!(target.verified_size(), Some(100_000));
    let conflict = Detail::Size { claimed: 120_000, other: 100_000 };
    assert_eq!(claim(&target, 1 << 40, set(&[0, 1]), 120_000), [(0, "size_conflict", conflict)]);
    assert_eq!(claim(&target, 1 << 40, set(&[20]), 100_000), []);
    assert!(target.is_complete());
    assert!(target.outboard().unwrap() == outboard::of_bytes(&data).1);
}

#[test]
fn bytes_wait_for_items_and_hold_the_peer() {
    for worker in workers() {
        let data = blob(5_000_000);
        let bytes = encoded(&data, &ChunkRanges::all());
        let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
        let mut feeder = Feeder::new(&worker, u64::MAX);
        let mut pushed = 0;
        loop {
            let room = feeder.sink.capacity();
            if room == 0 {
                break;
            }
            let now = room.min(100_000);
            feeder.sink.push(Bytes::copy_from_slice(&bytes[pushed..pushed + now]));
            pushed += now;
        }
        assert_eq!(pushed, 2 * 1024 * 1024);
        assert!(feeder.receiver.poll().is_empty());
        feeder.expect(ChunkRanges::all(), &target);
        feeder.wakes.recv_timeout(LONG).unwrap();
        feeder.feed(&bytes[pushed..], 100_000);
        feeder.receiver.finish();
        assert_eq!(feeder.end(StreamEnd::Finished).last(), Some(&Report::End { trailing: 0 }));
        assert!(target.is_complete());
    }
}

#[test]
fn no_more_is_taken_than_was_allowed() {
    for worker in workers() {
        let data = blob(300_000);
        let bytes = encoded(&data, &ChunkRanges::all());
        let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
        let mut feeder = Feeder::new(&worker, u64::MAX);
        feeder.expect(ChunkRanges::all(), &target);
        assert_eq!(feeder.receiver.allow(0), 0);
        assert_eq!(feeder.sink.capacity(), 0);
        let mut pushed = 0;
        while pushed < bytes.len() {
            assert_eq!(feeder.receiver.allow(4_000), 4_000);
            assert_eq!(feeder.receiver.allow(3_000), 7_000);
            // The peer goes on as soon as it may.
            feeder.wakes.recv_timeout(LONG).unwrap();
            let room = feeder.sink.capacity();
            assert_eq!(room, 7_000);
            let now = room.min(bytes.len() - pushed);
            feeder.sink.push(Bytes::copy_from_slice(&bytes[pushed..pushed + now]));
            feeder.look();
            assert_eq!(feeder.sink.capacity(), room - now);
            pushed += now;
            feeder.wakes.try_iter().for_each(drop);
        }
        feeder.receiver.finish();
        assert_eq!(feeder.end(StreamEnd::Finished).last(), Some(&Report::End { trailing: 0 }));
        assert!(target.is_complete());
    }
}

#[test]
fn what_is_thrown_away_is_verified_all_the_same() {
    for worker in workers() {
        for size in [0, 5_000, 300_000] {
            let data = blob(size);
            let hash = outboard::of_bytes(&data).0;
            let wanted = Arc::new(Blob::memory(hash, 1 << 40));
            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.expect(ChunkRanges::all(), &Arc::new(Blob::discard(hash, 1 << 40)));
            feeder.expect(ChunkRanges::all(), &wanted);
            feeder.receiver.finish();
            let bytes = encoded(&data, &ChunkRanges::all()).repeat(2);
            feeder.feed(&bytes, 7_000);
            let receiver = feeder.receiver.clone();
            assert!(errors(&feeder.end(StreamEnd::Finished)).is_empty());
            assert!(wanted.is_complete());
            assert_eq!(receiver.received(), bytes.len() as u64);

            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.expect(ChunkRanges::all(), &Arc::new(Blob::discard(hash, 1 << 40)));
            feeder.receiver.finish();
            let mut wrong = encoded(&data, &ChunkRanges::all());
            *wrong.last_mut().unwrap() ^= 1;
            feeder.feed(&wrong, 7_000);
            assert_eq!(errors(&feeder.end(StreamEnd::Finished)).len(), 1);
        }
    }
}

#[test]
fn empty_queries_take_no_bytes_and_trailing_bytes_are_counted() {
    for worker in workers() {
        let data = blob(20_000);
        let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
        let mut feeder = Feeder::new(&worker, u64::MAX);
        feeder.expect(ChunkRanges::empty(), &target);
        feeder.look();
        assert_eq!(feeder.reports, [Report::Done { item: 0 }]);
        feeder.expect(ChunkRanges::all(), &target);
        feeder.expect(ChunkRanges::empty(), &target);
        feeder.receiver.finish();
        feeder.feed(&encoded(&data, &ChunkRanges::all()), 1400);
        feeder.feed(&[1, 2, 3], 2);
        let reports = feeder.end(StreamEnd::Finished);
        assert_eq!(reports[reports.len() - 2..], [Report::Done { item: 2 }, Report::End { trailing: 3 }]);

        // Not for ever.
        let mut feeder = Feeder::new(&worker, u64::MAX);
        feeder.receiver.finish();
        for _ in 0..100 {
            feeder.feed(&[0; 1000], 1000);
        }
        assert_eq!(feeder.stopped, Some(0));
    }
}

#[test]
fn missing_ends_have_names() {
    let data = blob(40_000);
    let bytes = encoded(&data, &ChunkRanges::all());
    for worker in workers() {
        for (len, kind) in
            [(0, "missing_header"), (5, "missing_header"), (8, "missing_item"), (30, "truncated")]
        {
            let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
            let mut feeder = Feeder::new(&worker, u64::MAX);
            feeder.expect(ChunkRanges::all(), &target);
            feeder.feed(&bytes[..len], 1);
            assert_eq!(errors(&feeder.end(StreamEnd::Finished)), [(0, kind, Detail::None)]);
        }
    }
}

#[test]
fn system_errors_are_reported() {
    let data = blob(40_000);
    for worker in workers() {
        let path = Path::new("/nonexistent/data").to_path_buf();
        let target = Arc::new(Blob::create(outboard::of_bytes(&data).0, path.clone(), None, 1 << 40));
        let mut feeder = Feeder::new(&worker, u64::MAX);
        feeder.expect(ChunkRanges::all(), &target);
        feeder.feed(&encoded(&data, &ChunkRanges::all()), 1400);
        let text = "No such file or directory".to_owned();
        let detail = Detail::Os { errno: 2, text, path: Some(path) };
        assert_eq!(errors(&feeder.end(StreamEnd::Finished)), [(0, "io", detail)]);
        assert_eq!(target.present(), ChunkRanges::empty());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_that_says_so() {
    let data = blob(3_000_000);
    for worker in workers() {
        let full = Arc::new(Blob::create(outboard::of_bytes(&data).0, "/dev/full".into(), None, 1 << 40));
        let mut feeder = Feeder::new(&worker, u64::MAX);
        feeder.expect(ChunkRanges::all(), &full);
        feeder.feed(&encoded(&data, &ChunkRanges::all()), 100_000);
        let text = "No space left on device".to_owned();
        let detail = Detail::Os { errno: 28, text, path: Some("/dev/full".into()) };
        assert_eq!(errors(&feeder.end(StreamEnd::Finished)), [(0, "io", detail)]);
        assert_eq!(full.present(), ChunkRanges::empty());
    }
}

#[test]
fn a_file_that_was_moved_is_not_made_again() {
    let data = blob(40_000);
    let folder = Folder::new("moved");
    let worker = Worker::new(true).unwrap();
    let hash = outboard::of_bytes(&data).0;
    let target = Arc::new(Blob::create(hash, folder.at("data"), None, 1 << 40));
    let mut feeder = Feeder::new(&worker, u64::MAX);
    feeder.expect(ChunkRanges::all(), &target);
    feeder.receiver.finish();
    feeder.feed(&encoded(&data, &ChunkRanges::all()), 1400);
    assert!(errors(&feeder.end(StreamEnd::Finished)).is_empty());
    target.sync().unwrap();
    std::fs::rename(folder.at("data"), folder.at("placed")).unwrap();
    assert_eq!(target.sync().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(target.read(0, 1).unwrap().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(!folder.at("data").exists());
}

/// Blobs that wait need no descriptors.
#[test]
#[cfg(target_os = "linux")]
fn a_thousand_files_do_not_need_a_thousand_descriptors() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let folder = Folder::new("descriptors");
    let data = blob(20_000);
    let pairs = outboard::of_bytes(&data).1;
    std::fs::write(folder.at("data"), &data).unwrap();
    for worker in workers() {
        let sender = Sender::new(&worker).unwrap();
        let mut feeder = Feeder::new(&worker, u64::MAX);
        let targets: Vec<_> = (0..1000)
            .map(|i| {
                let hash = outboard::of_bytes(&data).0;
                let outboard = OutboardAt::Memory(pairs.clone().into());
                let source = Blob::open(hash, folder.at("data"), 20_000, outboard, None);
                sender.push(Arc::new(source), ChunkRanges::all());
                let target = Blob::create(hash, folder.at(&i.to_string()), None, 1 << 40);
                Arc::new(target)
            })
            .collect();
        let before = open();
        for target in &targets {
            feeder.expect(ChunkRanges::all(), target);
        }
        sender.finish();
        feeder.receiver.finish();
        let (bytes, end, _) = drain(&sender, 40_000);
        assert_eq!(end, None);
        feeder.feed(&bytes, 40_000);
        // Other tests run meanwhile.
        assert!(open() < before + 300, "{before} {}", open());
        assert!(errors(&feeder.end(StreamEnd::Finished)).is_empty());
        assert!(targets.iter().all(|target| target.is_complete()));
        assert!(open() < before + 300);
    }
}

/// After the engine has let a sink go, reports go by way of the worker.
#[test]
fn reports_after_the_end_of_the_stream_are_not_lost() {
    for worker in workers() {
        let folder = Folder::new(&format!("after-{}", worker.fd()));
        let data = blob(1_900_000);
        let hash = outboard::of_bytes(&data).0;
        let target = Arc::new(Blob::create(hash, folder.at("data"), None, 1 << 40));
        let receiver = Receiver::new(&worker, u64::MAX, None, 0).unwrap();
        receiver.expect(vec![Item::Part { query: ChunkRanges::all(), blob: target.clone() }]).unwrap();
        receiver.finish();
        let mut sink = receiver.sink().unwrap();
        sink.attach(waker().0);
        sink.push(encoded(&data, &ChunkRanges::all()).into());
        sink.end(StreamEnd::Finished);
        drop(sink);
        let mut reports = Vec::new();
        let start = std::time::Instant::now();
        while reports.last() != Some(&Report::End { trailing: 0 }) {
            assert!(start.elapsed() < LONG, "{reports:?}");
            for event in worker.poll() {
                assert!(matches!(event, Event::Transfer(id) if id == receiver.id()));
                reports.extend(receiver.poll());
            }
        }
        assert!(target.is_complete());
    }
}
