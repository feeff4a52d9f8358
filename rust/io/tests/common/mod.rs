//! What tests of transfers share: contents, a folder, an engine's hands.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Channel, channel};
use std::time::Duration;

use aioiroh_bao::{ChunkRanges, encode, outboard};
use aioiroh_core::stream::{Next, StreamEnd, StreamSink, Waker};
use aioiroh_io::{Blob, Detail, Item, OutboardAt, Receiver, Report, Sender, Worker};
use bytes::Bytes;

pub const LONG: Duration = Duration::from_secs(20);

pub fn blob(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

pub fn set(boundaries: &[u64]) -> ChunkRanges {
    ChunkRanges::from_boundaries(boundaries.to_vec()).unwrap()
}

pub fn encoded(data: &[u8], query: &ChunkRanges) -> Vec<u8> {
    let (hash, outboard) = outboard::of_bytes(data);
    encode::to_vec(hash, data, &outboard, query).unwrap()
}

/// A folder that goes away.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("aioiroh-io-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn waker() -> (Waker, Channel<()>) {
    let (send, wakes) = channel();
    (
        Arc::new(move || {
            let _ = send.send(());
        }),
        wakes,
    )
}

/// Gives a stream to a sink as the engine does: never more than it takes, waiting for the waker else.
pub struct Feeder {
    pub receiver: Receiver,
    pub sink: Box<dyn StreamSink>,
    pub wakes: Channel<()>,
    pub reports: Vec<Report>,
    pub stopped: Option<u64>,
}

impl Feeder {
    pub fn new(worker: &Worker, limit: u64) -> Self {
        let receiver = Receiver::new(worker, limit, None, 7).unwrap();
        let mut sink = receiver.sink().unwrap();
        assert!(receiver.sink().is_none());
        let (waker, wakes) = waker();
        sink.attach(waker);
        Self { receiver, sink, wakes, reports: Vec::new(), stopped: None }
    }

    pub fn expect(&self, query: ChunkRanges, blob: &Arc<Blob>) {
        self.receiver.expect(vec![Item::Part { query, blob: blob.clone() }]).unwrap();
    }

    pub fn look(&mut self) {
        if self.sink.notify() {
            self.reports.extend(self.receiver.poll());
        }
        self.stopped = self.stopped.or(self.sink.stopped());
    }

    pub fn feed(&mut self, mut data: &[u8], piece: usize) {
        while !data.is_empty() && self.stopped.is_none() {
            let room = self.sink.capacity();
            if room == 0 {
                self.wakes.recv_timeout(LONG).unwrap();
                self.look();
                continue;
            }
            let (now, rest) = data.split_at(data.len().min(piece).min(room));
            self.sink.push(Bytes::copy_from_slice(now));
            data = rest;
            self.look();
        }
    }

    /// Ends the stream and waits for the last report.
    pub fn end(mut self, end: StreamEnd) -> Vec<Report> {
        if self.stopped.is_none() {
            self.sink.end(end);
        }
        loop {
            self.look();
            if matches!(self.reports.last(), Some(Report::End { .. } | Report::Error { .. })) {
                return std::mem::take(&mut self.reports);
            }
            self.wakes.recv_timeout(LONG).unwrap();
        }
    }
}

pub fn errors(reports: &[Report]) -> Vec<(u64, &'static str, Detail)> {
    reports
        .iter()
        .filter_map(|report| match report {
            Report::Error { item, kind, detail } => Some((*item, *kind, detail.clone())),
            _ => None,
        })
        .collect()
}

pub fn workers() -> [Worker; 2] {
    [Worker::new(false).unwrap(), Worker::new(true).unwrap()]
}

/// What the engine takes from a source until it ends: the bytes, how it ended, and the reports.
pub fn drain(sender: &Sender, max: usize) -> (Vec<u8>, Option<u64>, Vec<Report>) {
    let mut source = sender.source().unwrap();
    let (waker, wakes) = waker();
    source.attach(waker);
    let (mut bytes, mut reports) = (Vec::new(), Vec::new());
    let end = loop {
        let next = source.next(max);
        if source.notify() {
            reports.extend(sender.poll());
        }
        match next {
            Next::Data(data) => {
                assert!(!data.is_empty() && data.len() <= max);
                bytes.extend_from_slice(&data);
            }
            Next::Pending => wakes.recv_timeout(LONG).unwrap(),
            Next::Finish => break None,
            Next::Reset(code) => break Some(code),
        }
    };
    drop(source);
    reports.extend(sender.poll());
    (bytes, end, reports)
}

pub fn file_blob(folder: &Folder, data: &[u8], outboard_file: bool) -> Blob {
    let (hash, pairs) = outboard::of_bytes(data);
    let (path, outboard) = (folder.at("data"), folder.at("outboard"));
    std::fs::write(&path, data).unwrap();
    std::fs::write(&outboard, &pairs).unwrap();
    let outboard = if outboard_file { OutboardAt::File(outboard) } else { OutboardAt::Memory(pairs.into()) };
    Blob::open(hash, path, data.len() as u64, outboard, None)
}
