//! Blobs whose files were there before: resumed, validated, imported, and what is done to files in which order.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use aioiroh_bao::{ChunkRanges, hash, outboard};
use aioiroh_core::stream::StreamEnd;
use aioiroh_io::{Blob, Detail, Event, Job, JobEvent, Op, OpKind, OutboardAt, Report, Sender, Worker};
use bytes::Bytes;
use proptest::prelude::*;

use common::*;

/// The last event of a job.
fn outcome(worker: &Worker, job: Job) -> JobEvent {
    let id = worker.start(job).unwrap();
    let start = std::time::Instant::now();
    loop {
        for event in worker.poll() {
            if let Event::Job(same, event) = event
                && !matches!(event, JobEvent::Progress(_))
            {
                assert_eq!(same, id);
                return event;
            }
        }
        assert!(start.elapsed() < LONG, "the job does not end");
        std::thread::yield_now();
    }
}

fn receive(worker: &Worker, target: &Arc<Blob>, query: &ChunkRanges, data: &[u8]) -> Vec<Report> {
    let mut feeder = Feeder::new(worker, u64::MAX);
    feeder.expect(query.clone(), target);
    feeder.receiver.finish();
    feeder.feed(&encoded(data, query), 1400);
    feeder.end(StreamEnd::Finished)
}

fn io_error(reports: &[Report]) -> (i32, Option<PathBuf>) {
    match errors(reports).as_slice() {
        [(_, "io", Detail::Os { errno, path, .. })] => (*errno, path.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_resumed_blob_keeps_what_its_files_hold() {
    let data = blob(1_000_000);
    let (hash, pairs) = outboard::of_bytes(&data);
    for worker in workers() {
        let folder = Folder::new(&format!("resume-{}", worker.fd()));
        let (path, outboard) = (folder.at("d"), folder.at("o"));
        let first = Arc::new(Blob::create(hash, path.clone(), Some(outboard.clone()), 1 << 40));
        receive(&worker, &first, &set(&[0, 320]), &data);
        let (size, present) = (first.size(), first.present());
        assert_eq!(present, set(&[0, 320]));
        // It is small, and needs no file before somebody relies on it.
        assert!(first.loose_outboard().is_some() && !outboard.exists());
        first.spill().unwrap();
        assert!(first.loose_outboard().is_none() && outboard.exists());
        drop(first);

        let resume = |size, present| {
            Arc::new(Blob::resume(hash, path.clone(), outboard.clone(), size, present, 1 << 40))
        };
        let blob = resume(size, present);
        assert_eq!((blob.verified_size(), blob.is_complete()), (None, false));
        assert!(blob.read(0, 320 * 1024).unwrap().unwrap() == data[..320 * 1024]);
        assert!(errors(&receive(&worker, &blob, &ChunkRanges::last_chunk(), &data)).is_empty());
        assert_eq!(blob.verified_size(), Some(1_000_000));
        let (size, present) = (blob.size(), blob.present());
        drop(blob);

        let blob = resume(size, present);
        assert_eq!(blob.verified_size(), Some(1_000_000));
        assert!(errors(&receive(&worker, &blob, &set(&[320]), &data)).is_empty());
        blob.sync().unwrap();
        assert!(blob.is_complete());
        assert!(std::fs::read(&path).unwrap() == data);
        assert!(std::fs::read(&outboard).unwrap() == pairs);
    }
}

#[test]
fn a_small_outboard_is_in_memory_and_a_large_one_in_its_file() {
    for (size, is_loose) in [(16_384, true), (1 << 20, true), ((1 << 20) + 32_768, false), (3_000_000, false)]
    {
        let data = blob(size);
        let (hash, pairs) = outboard::of_bytes(&data);
        for worker in workers() {
            let folder = Folder::new(&format!("loose-{size}-{}", worker.fd()));
            let outboard = folder.at("o");
            let target = Arc::new(Blob::create(hash, folder.at("d"), Some(outboard.clone()), 1 << 40));
            // Also if it comes in parts, the later ones first.
            for part in [ChunkRanges::last_chunk(), set(&[500, 900]), ChunkRanges::all()] {
                receive(&worker, &target, &part, &data);
            }
            assert!(target.is_complete());
            assert_eq!(target.outboard().unwrap(), pairs);
            assert_eq!(target.loose_outboard(), is_loose.then(|| pairs.clone()));
            assert_eq!(outboard.exists(), !is_loose);
            if !is_loose {
                assert_eq!(std::fs::read(&outboard).unwrap(), pairs);
            }
        }
    }
}

#[test]
fn a_blob_of_which_nothing_is_here_is_resumed_in_new_files() {
    for size in [10_000, 100_000] {
        let data = blob(size);
        let (hash, pairs) = outboard::of_bytes(&data);
        for worker in workers() {
            let folder = Folder::new(&format!("fresh-{size}-{}", worker.fd()));
            let (path, outboard) = (folder.at("d"), folder.at("o"));
            let resumed =
                Blob::resume(hash, path.clone(), outboard.clone(), None, ChunkRanges::empty(), 1 << 40);
            assert!(errors(&receive(&worker, &Arc::new(resumed), &ChunkRanges::all(), &data)).is_empty());
            assert!(std::fs::read(&path).unwrap() == data);
            assert_eq!(std::fs::read(&outboard).ok(), (size > 16384).then_some(pairs.clone()));
        }
    }
}

#[test]
fn a_file_that_vanished_or_shrank_is_named() {
    let data = blob(1_000_000);
    let (hash, pairs) = outboard::of_bytes(&data);
    for worker in workers() {
        let folder = Folder::new(&format!("vanished-{}", worker.fd()));
        let (path, outboard) = (folder.at("d"), folder.at("o"));
        for shrunk in [false, true] {
            let _ = std::fs::remove_file(&path);
            if shrunk {
                std::fs::write(&path, &data[..300_000]).unwrap();
            }
            let errno = if shrunk { 5 } else { 2 };
            std::fs::write(&outboard, &pairs).unwrap();
            let resumed = Arc::new(Blob::resume(
                hash,
                path.clone(),
                outboard.clone(),
                Some(1_000_000),
                set(&[0, 320]),
                1 << 40,
            ));
            let reports = receive(&worker, &resumed, &set(&[320]), &data);
            assert_eq!(io_error(&reports), (errno, Some(path.clone())));
            assert_eq!(resumed.present(), set(&[0, 320]));
            let error = resumed.read(0, 1000).unwrap().unwrap_err();
            assert_eq!(aioiroh_io::describe(&error).2.as_deref(), Some(path.as_path()));

            let at = || OutboardAt::File(outboard.clone());
            let opened = Blob::open(hash, path.clone(), 1_000_000, at(), None);
            let sender = Sender::new(&worker).unwrap();
            sender.push(Arc::new(opened), ChunkRanges::all());
            let (bytes, end, reports) = drain(&sender, 40_000);
            // The size and the first pairs were good.
            assert!(bytes.len() < 1000 && end == Some(3));
            assert_eq!(io_error(&reports), (errno, Some(path.clone())));
        }
        std::fs::write(&path, &data).unwrap();
        std::fs::write(&outboard, &pairs[..1000]).unwrap();
        let opened = Blob::open(hash, path.clone(), 1_000_000, OutboardAt::File(outboard.clone()), None);
        let sender = Sender::new(&worker).unwrap();
        sender.push(Arc::new(opened), ChunkRanges::all());
        assert_eq!(io_error(&drain(&sender, 40_000).2), (5, Some(outboard.clone())));
    }
}

#[test]
fn what_is_inline_is_verified_when_it_is_sent() {
    for size in [0, 700, 16384, 40_000] {
        let data = blob(size);
        let (hash, pairs) = outboard::of_bytes(&data);
        let pairs = Bytes::from(pairs);
        let inline = |data: Vec<u8>| Blob::inline(hash, data.into(), pairs.clone());
        assert!(Blob::inline(hash, data.clone().into(), Bytes::from_static(b"x")).is_none());
        let good = inline(data.clone()).unwrap();
        assert!(good.is_complete() && good.verified_size() == Some(size as u64));
        assert!(good.read(0, size + 1).unwrap().unwrap() == data);
        let mut wrong = data.clone();
        wrong.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        for worker in workers() {
            let sender = Sender::new(&worker).unwrap();
            sender.push(Arc::new(inline(data.clone()).unwrap()), ChunkRanges::all());
            sender.finish();
            assert!(drain(&sender, 5000).0 == encoded(&data, &ChunkRanges::all()));
            if size > 0 {
                let sender = Sender::new(&worker).unwrap();
                sender.push(Arc::new(inline(wrong.clone()).unwrap()), ChunkRanges::all());
                let (_, end, reports) = drain(&sender, 5000);
                assert_eq!((end, errors(&reports)[0].1), (Some(3), "changed"));
            }
        }
    }
}

#[test]
fn several_writers_fill_one_blob() {
    let data = blob(3_000_000);
    let (hash, pairs) = outboard::of_bytes(&data);
    for worker in workers() {
        let folder = Folder::new(&format!("writers-{}", worker.fd()));
        let (path, outboard) = (folder.at("d"), folder.at("o"));
        let target = Arc::new(Blob::create(hash, path.clone(), Some(outboard.clone()), 1 << 40));
        // Every second kilobyte of one is in the other, too.
        let queries = [set(&[0, 900, 1800]), set(&[500, 1500, 2000]), set(&[1400, 2200, 2930])];
        let mut feeders = Vec::new();
        for query in &queries {
            let feeder = Feeder::new(&worker, u64::MAX);
            feeder.expect(query.clone(), &target);
            feeder.receiver.finish();
            feeders.push((feeder, encoded(&data, query), 0));
        }
        let mut left = true;
        while left {
            left = false;
            for (feeder, bytes, at) in &mut feeders {
                let end = (*at + 50_000).min(bytes.len());
                feeder.feed(&bytes[*at..end], 1400);
                *at = end;
                left |= end < bytes.len();
            }
        }
        for (feeder, ..) in feeders {
            assert!(errors(&feeder.end(StreamEnd::Finished)).is_empty());
        }
        assert!(target.is_complete(), "{:?}", target.present());
        assert!(std::fs::read(&path).unwrap() == data);
        assert!(std::fs::read(&outboard).unwrap() == pairs);
    }
}

#[test]
fn an_import_copies_and_hashes() {
    for worker in workers() {
        let folder = Folder::new(&format!("import-{}", worker.fd()));
        for size in [0, 1, 16384, 16385, 5_000_000] {
            let data = blob(size);
            let (expected, pairs) = outboard::of_bytes(&data);
            std::fs::write(folder.at("from"), &data).unwrap();
            std::fs::write(folder.at("to"), vec![9; 6_000_000]).unwrap();
            for target in [None, Some(folder.at("outboard"))] {
                let job = Job::ImportFile {
                    from: folder.at("from"),
                    to: folder.at("to"),
                    outboard: target.clone(),
                };
                let JobEvent::Hashed { hash, size: hashed, outboard } = outcome(&worker, job) else {
                    panic!()
                };
                assert_eq!((hash, hashed), (expected, size as u64));
                assert!(std::fs::read(folder.at("to")).unwrap() == data);
                let outboard = outboard.or_else(|| std::fs::read(target?).ok());
                assert!(outboard == Some(pairs.clone()));
            }
        }
        let job = Job::ImportFile { from: folder.at("nowhere"), to: folder.at("to"), outboard: None };
        let JobEvent::Error(error) = outcome(&worker, job) else { panic!() };
        assert_eq!(aioiroh_io::describe(&error).2, Some(folder.at("nowhere")));
    }
}

#[test]
fn an_import_of_a_file_that_changes_is_refused() {
    let worker = Worker::new(false).unwrap();
    let folder = Folder::new("import-changed");
    let file = std::fs::File::create(folder.at("from")).unwrap();
    file.set_len(1 << 40).unwrap();
    let id = worker
        .start(Job::ImportFile { from: folder.at("from"), to: folder.at("to"), outboard: None })
        .unwrap();
    // It is large enough that it cannot be done before this.
    while !worker.poll().iter().any(|event| matches!(event, Event::Job(_, JobEvent::Progress(_)))) {
        std::thread::yield_now();
    }
    file.set_len(5_000_000).unwrap();
    let error = loop {
        let ended = worker.poll().into_iter().find_map(|event| match event {
            Event::Job(same, JobEvent::Error(error)) if same == id => Some(error),
            _ => None,
        });
        if let Some(error) = ended {
            break error;
        }
    };
    assert_eq!(aioiroh_io::describe(&error).0, 16, "{error}");
}

/// The chunks of a blob that a walk from the root finds, by the definition.
fn verified(
    expected: &hash::Hash,
    size: u64,
    data: &[u8],
    pairs: &[u8],
    trusted: &ChunkRanges,
) -> ChunkRanges {
    fn walk(
        node: aioiroh_bao::tree::Node,
        cv: hash::Hash,
        (size, data, pairs, trusted): (u64, &[u8], &[u8], &ChunkRanges),
        found: &mut ChunkRanges,
    ) {
        let root = node.lo == 0 && node.hi == aioiroh_bao::tree::chunks(size);
        if let Some(slot) = node.slot() {
            let at = slot as usize * 64;
            let Some(pair) = pairs.get(at..at + 64) else { return };
            let pair = pair.try_into().unwrap();
            if hash::parent(&pair, root) == cv {
                let ((left, right), (left_cv, right_cv)) = (node.children(), hash::halves(&pair));
                walk(left, left_cv, (size, data, pairs, trusted), found);
                walk(right, right_cv, (size, data, pairs, trusted), found);
            }
            return;
        }
        let bytes = node.bytes(size);
        let whole = data.get(bytes.start as usize..bytes.end as usize);
        let good = whole.is_some_and(|whole| hash::subtree(whole, node.lo, root) == cv);
        for chunk in node.lo..node.hi {
            let end = ((chunk + 1) * 1024).min(size);
            if good || trusted.contains(chunk) && data.len() as u64 >= end {
                found.insert(chunk..chunk + 1);
            }
        }
    }
    let mut found = ChunkRanges::empty();
    walk(aioiroh_bao::tree::Node::root(size), *expected, (size, data, pairs, trusted), &mut found);
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is damaged, what is found is what the definition finds; undamaged it is everything.
    #[test]
    fn validation_finds_what_verifies(
        size in prop_oneof![Just(0_usize), 1..20_000_usize, 100_000..600_000_usize],
        flips in prop::collection::vec((any::<bool>(), any::<u32>()), 0..6),
        cut in prop::option::of(any::<u32>()),
        outboard_cut in prop::option::of(any::<u32>()),
        trusted in prop::collection::btree_set(0..620_u64, 0..8),
        in_file in any::<bool>(),
    ) {
        let whole = blob(size);
        let (hash, outboard) = outboard::of_bytes(&whole);
        let (mut data, mut pairs) = (whole.clone(), outboard.clone());
        for (in_data, at) in &flips {
            let bytes = if *in_data { &mut data } else { &mut pairs };
            if !bytes.is_empty() {
                let at = *at as usize % bytes.len();
                bytes[at] ^= 1;
            }
        }
        if let Some(cut) = cut {
            data.truncate(cut as usize % (size + 1));
        }
        if let Some(cut) = outboard_cut {
            let len = pairs.len();
            pairs.truncate(cut as usize % (len + 1));
        }
        let trusted = set(&trusted.into_iter().collect::<Vec<_>>());
        let worker = Worker::new(true).unwrap();
        let folder = Folder::new(&format!("validate-{}", worker.fd()));
        std::fs::write(folder.at("d"), &data).unwrap();
        std::fs::write(folder.at("o"), &pairs).unwrap();
        let at = if in_file { OutboardAt::File(folder.at("o")) } else { OutboardAt::Memory(pairs.clone().into()) };
        let size = size as u64;
        let job = Job::Validate { hash, data: folder.at("d"), outboard: at, size, trusted: trusted.clone() };
        let JobEvent::Validated { present } = outcome(&worker, job) else { panic!() };
        prop_assert_eq!(&present, &verified(&hash, size, &data, &pairs, &trusted));
        if data == whole && pairs == outboard {
            prop_assert_eq!(present, ChunkRanges::all().truncate(size));
        }
    }

    /// Replaying the journal makes the files that are there; nothing that was done is missing in it.
    #[test]
    fn the_journal_has_everything_in_order(
        size in prop_oneof![1..20_000_usize, 100_000..400_000_usize],
        parts in prop::collection::vec(prop::collection::btree_set(0..400_u64, 1..5), 1..4),
    ) {
        let data = blob(size);
        let (hash, _) = outboard::of_bytes(&data);
        let worker = Worker::with_journal().unwrap();
        prop_assert!(Worker::with_journal().is_err());
        let folder = Folder::new(&format!("journal-{}", worker.fd()));
        let (path, outboard) = (folder.at("d"), folder.at("o"));
        std::fs::write(&path, b"old").unwrap();
        let target = Arc::new(Blob::create(hash, path.clone(), Some(outboard.clone()), 1 << 40));
        for part in parts {
            receive(&worker, &target, &set(&part.into_iter().collect::<Vec<_>>()), &data);
        }
        target.sync().unwrap();
        let import = Job::ImportFile { from: path.clone(), to: folder.at("i"), outboard: Some(folder.at("io")) };
        if path.exists() {
            let size = std::fs::metadata(&path).unwrap().len();
            let at = OutboardAt::Memory(Default::default());
            let whole = Arc::new(Blob::open(hash, path.clone(), size, at, None));
            outcome(&worker, Job::WriteBlobs { blobs: vec![(whole, folder.at("c"))] });
            outcome(&worker, import);
        }
        let ops = worker.journal().unwrap();
        prop_assert!(worker.journal().unwrap().is_empty());
        let mut files: HashMap<PathBuf, Vec<u8>> = HashMap::from([(path.clone(), b"old".to_vec())]);
        for Op { kind, path, offset, data } in &ops {
            match kind {
                OpKind::Create => prop_assert!(files.insert(path.clone(), Vec::new()).is_none()),
                OpKind::Truncate => files.get_mut(path).unwrap().clear(),
                OpKind::Sync => prop_assert!(files.contains_key(path)),
                OpKind::Write => {
                    let file = files.get_mut(path).unwrap();
                    let end = *offset as usize + data.len();
                    file.resize(file.len().max(end), 0);
                    file[*offset as usize..end].copy_from_slice(data);
                }
            }
        }
        for entry in std::fs::read_dir(&folder.0).unwrap() {
            let path = entry.unwrap().path();
            prop_assert!(files.get(&path) == std::fs::read(&path).ok().as_ref(), "{path:?}");
        }
        if !target.present().is_empty() {
            prop_assert!(ops.iter().any(|op| op.kind == OpKind::Sync && op.path == path));
        }
    }
}

#[test]
fn there_is_no_journal_unless_asked_for() {
    let worker = Worker::new(true).unwrap();
    assert!(worker.journal().is_none());
    let other = std::thread::spawn(|| Worker::with_journal().unwrap().journal()).join().unwrap();
    assert_eq!(other, Some(Vec::new()));
}
