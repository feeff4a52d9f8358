//! Senders, driven by hand as the engine drives them, and what is so at both ends.

mod common;

use std::sync::Arc;

use aioiroh_bao::{ChunkRanges, outboard};
use aioiroh_core::stream::Next;
use aioiroh_io::{Blob, Detail, Item, OutboardAt, Receiver, Report, Sender, Worker};
use bytes::Bytes;

use common::*;

#[test]
fn responses_leave_memory_and_files() {
    for worker in workers() {
        let folder = Folder::new(&format!("leave-{}", worker.fd()));
        for size in [0, 1, 1024, 16384, 16385, 100_000, 7_000_001] {
            let data = blob(size);
            for query in [ChunkRanges::all(), ChunkRanges::last_chunk(), set(&[3, 4, 90, 500]), set(&[])] {
                for blob in [
                    Blob::from_bytes(data.clone().into()),
                    file_blob(&folder, &data, true),
                    file_blob(&folder, &data, false),
                ] {
                    let blob = Arc::new(blob);
                    let sender = Sender::new(&worker).unwrap();
                    sender.raw(Bytes::from_static(b"head"));
                    sender.push(blob.clone(), query.clone());
                    sender.raw(Bytes::from_static(b"middle"));
                    sender.push(blob, ChunkRanges::last_chunk());
                    sender.finish();
                    let (bytes, end, reports) = drain(&sender, 40_000);
                    let mut expected = b"head".to_vec();
                    expected.extend(encoded(&data, &query));
                    expected.extend(b"middle");
                    expected.extend(encoded(&data, &ChunkRanges::last_chunk()));
                    assert!(bytes == expected, "{size} {query:?}");
                    assert_eq!(end, None);
                    let size = size as u64;
                    assert!(query.is_empty() || reports.contains(&Report::Started { item: 1, size }));
                    assert!(reports.contains(&Report::Started { item: 3, size }));
                    for item in 0..3 {
                        assert!(reports.contains(&Report::Done { item }));
                    }
                    assert!(reports.contains(&Report::Progress { item: 3, bytes: size }));
                    assert_eq!(
                        reports[reports.len() - 2..],
                        [Report::Done { item: 3 }, Report::End { trailing: 0 }]
                    );
                }
            }
        }
    }
}

#[test]
fn no_more_is_sent_than_was_allowed() {
    for worker in workers() {
        let folder = Folder::new(&format!("allowed-{}", worker.fd()));
        // Small enough to be encoded on demand, and too large for that.
        for size in [20_000, 3_000_000] {
            let data = blob(size);
            let sender = Sender::new(&worker).unwrap();
            assert_eq!(sender.allow(0), 0);
            sender.push(Arc::new(file_blob(&folder, &data, true)), ChunkRanges::all());
            sender.push(Arc::new(Blob::from_bytes(data.clone().into())), ChunkRanges::all());
            sender.finish();
            let mut source = sender.source().unwrap();
            let (waker, wakes) = waker();
            source.attach(waker);
            let mut bytes = Vec::new();
            let mut allowed = 0;
            loop {
                match source.next(3_000) {
                    Next::Data(piece) => bytes.extend_from_slice(&piece),
                    Next::Finish => break,
                    Next::Pending if bytes.len() == allowed && sender.allow(0) == 0 => {
                        allowed += 500_000;
                        assert_eq!(sender.allow(400_000), 400_000);
                        assert_eq!(sender.allow(100_000), 500_000);
                    }
                    Next::Pending => wakes.recv_timeout(LONG).unwrap(),
                    Next::Reset(code) => panic!("{code}"),
                }
                assert!(bytes.len() <= allowed);
            }
            assert_eq!(sender.sent(), bytes.len() as u64);
            assert!(bytes == encoded(&data, &ChunkRanges::all()).repeat(2));
        }
    }
}

#[test]
fn a_changed_file_is_an_error_and_never_wrong_bytes() {
    let data = blob(3_000_000);
    let good = encoded(&data, &ChunkRanges::all());
    for worker in workers() {
        let folder = Folder::new(&format!("changed-{}", worker.fd()));
        for change in ["data", "outboard"] {
            let blob = file_blob(&folder, &data, true);
            let mut changed = data.clone();
            changed[2_000_000] ^= 1;
            match change {
                "data" => std::fs::write(folder.at("data"), &changed).unwrap(),
                _ => std::fs::write(folder.at("outboard"), outboard::of_bytes(&changed).1).unwrap(),
            }
            let sender = Sender::new(&worker).unwrap();
            sender.push(Arc::new(blob), ChunkRanges::all());
            sender.finish();
            let (bytes, end, reports) = drain(&sender, 40_000);
            assert_eq!(end, Some(3));
            assert_eq!(errors(&reports).iter().map(|e| (e.0, e.1)).collect::<Vec<_>>(), [(0, "changed")]);
            assert!(good.starts_with(&bytes));
            assert!(change == "outboard" || bytes.len() > 1_900_000);
        }
    }
}

#[test]
fn what_is_missing_is_refused_before_the_first_byte() {
    let data = blob(100_000);
    let (hash, pairs) = outboard::of_bytes(&data);
    for worker in workers() {
        let folder = Folder::new(&format!("missing-{}", worker.fd()));
        std::fs::write(folder.at("data"), &data).unwrap();
        let open = |present: &[u64]| {
            let outboard = OutboardAt::Memory(pairs.clone().into());
            Arc::new(Blob::open(hash, folder.at("data"), 100_000, outboard, Some(set(present))))
        };
        let cases: [(&[u64], &[u64], bool); 6] = [
            (&[0, 20, 96, 98], &[0, 16], true),
            (&[0, 20, 96, 98], &[3, 4], true),
            // Part of a group that is not here whole.
            (&[0, 20, 96, 98], &[16, 17], false),
            (&[0, 20, 96, 98], &[3, 40], false),
            (&[0, 20, 96, 98], &[u64::MAX], true),
            // The size is not proven.
            (&[0, 20], &[0, 16], false),
        ];
        for (present, query, served) in cases {
            let sender = Sender::new(&worker).unwrap();
            sender.push(open(present), set(query));
            sender.finish();
            let (bytes, end, reports) = drain(&sender, 40_000);
            if served {
                assert_eq!((bytes, end), (encoded(&data, &set(query)), None));
            } else {
                assert_eq!((bytes.len(), end), (0, Some(3)));
                assert_eq!(errors(&reports), [(0, "missing", Detail::None)]);
            }
        }
        let nothing = Sender::new(&worker).unwrap();
        nothing.push(Arc::new(Blob::memory(hash, 1 << 40)), ChunkRanges::all());
        assert_eq!(errors(&drain(&nothing, 1).2), [(0, "missing", Detail::None)]);
        let nowhere = Sender::new(&worker).unwrap();
        let outboard = OutboardAt::Memory(pairs.clone().into());
        let blob = Blob::open(hash, folder.at("nowhere"), 100_000, outboard, None);
        nowhere.push(Arc::new(blob), ChunkRanges::all());
        assert_eq!(errors(&drain(&nowhere, 1).2)[0].1, "io");
    }
}

#[test]
fn a_sender_is_stopped_reset_or_lost() {
    let folder = Folder::new("stopped");
    let data = blob(9_000_000);
    let blob = Arc::new(file_blob(&folder, &data, true));
    for worker in workers() {
        for code in [Some(5), None] {
            let sender = Sender::new(&worker).unwrap();
            sender.push(blob.clone(), ChunkRanges::last_chunk());
            sender.push(blob.clone(), ChunkRanges::all());
            let mut source = sender.source().unwrap();
            let (waker, wakes) = waker();
            source.attach(waker);
            let mut got = 0;
            while got < 10_000 {
                match source.next(1 << 20) {
                    Next::Data(data) => got += data.len(),
                    Next::Pending => wakes.recv_timeout(LONG).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            source.abort(code);
            assert!(source.notify());
            let (kind, detail) = match code {
                Some(code) => ("stopped", Detail::Code(code)),
                None => ("lost", Detail::None),
            };
            assert_eq!(errors(&sender.poll()), [(1, kind, detail)]);
        }
        let sender = Sender::new(&worker).unwrap();
        sender.push(blob.clone(), ChunkRanges::all());
        sender.reset(1);
        assert_eq!(drain(&sender, 1 << 20).1, Some(1));
    }
}

#[test]
fn items_may_be_pushed_while_the_engine_waits() {
    for worker in workers() {
        let folder = Folder::new(&format!("later-{}", worker.fd()));
        let large = blob(5_000_000);
        let small = blob(1000);
        let blobs = [
            (Arc::new(Blob::from_bytes(small.clone().into())), encoded(&small, &ChunkRanges::all())),
            (Arc::new(file_blob(&folder, &large, true)), encoded(&large, &ChunkRanges::all())),
            (Arc::new(Blob::from_bytes(large.clone().into())), encoded(&large, &ChunkRanges::all())),
        ];
        let sender = Sender::new(&worker).unwrap();
        let mut source = sender.source().unwrap();
        let (waker, wakes) = waker();
        source.attach(waker);
        for i in [0, 0, 1, 0, 2, 1, 0, 2] {
            assert!(matches!(source.next(1), Next::Pending));
            sender.push(blobs[i].0.clone(), ChunkRanges::all());
            let mut got = Vec::new();
            while got.len() < blobs[i].1.len() {
                match source.next(1 << 16) {
                    Next::Data(data) => got.extend_from_slice(&data),
                    Next::Pending => wakes.recv_timeout(LONG).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            assert!(got == blobs[i].1);
            while wakes.try_recv().is_ok() {}
        }
        assert!(matches!(source.next(1), Next::Pending));
        sender.finish();
        wakes.recv_timeout(LONG).unwrap();
        assert!(matches!(source.next(1), Next::Finish));
    }
}

/// A stream that is let go without an end is lost.
#[test]
fn letting_go_of_a_stream_early_is_an_error() {
    let data = blob(100_000);
    for worker in workers() {
        let target = Arc::new(Blob::memory(outboard::of_bytes(&data).0, 1 << 40));
        let receiver = Receiver::new(&worker, u64::MAX, None, 0).unwrap();
        receiver.expect(vec![Item::Part { query: ChunkRanges::all(), blob: target }]).unwrap();
        drop(receiver.sink());
        assert_eq!(errors(&receiver.poll()), [(0, "lost", Detail::None)]);

        let sender = Sender::new(&worker).unwrap();
        sender.push(Arc::new(Blob::from_bytes(data.clone().into())), ChunkRanges::all());
        drop(sender.source());
        assert_eq!(errors(&sender.poll()), [(0, "lost", Detail::None)]);
    }
}

#[test]
fn a_closed_worker_fails_its_transfers() {
    let data = blob(3_000_000);
    let folder = Folder::new("closed");
    let worker = Worker::new(false).unwrap();
    worker.close();
    let target = Arc::new(Blob::create(outboard::of_bytes(&data).0, folder.at("x"), None, 1 << 40));
    let mut feeder = Feeder::new(&worker, u64::MAX);
    feeder.expect(ChunkRanges::all(), &target);
    feeder.feed(&encoded(&data, &ChunkRanges::all()), 100_000);
    assert_eq!(errors(&feeder.reports)[0].1, "io");
    let sender = Sender::new(&worker).unwrap();
    sender.push(Arc::new(file_blob(&folder, &data, true)), ChunkRanges::all());
    let (bytes, end, reports) = drain(&sender, 100);
    assert_eq!((bytes.len(), end, errors(&reports)[0].1), (0, Some(3), "io"));
}
