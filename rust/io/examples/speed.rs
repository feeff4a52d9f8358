//! Prints how fast blobs go through: `cargo run --release -p aioiroh-io --example speed [MIB] [FOLDER]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use aioiroh_bao::{ChunkRanges, encode, outboard};
use aioiroh_core::stream::{Next, StreamEnd, StreamSink, Waker};
use aioiroh_io::{Blob, Event, Item, Job, JobEvent, OutboardAt, Receiver, Report, Sender, Worker};
use bytes::Bytes;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let data: Vec<u8> = (0..mib << 20).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
    let (path, target) = (folder.join("aioiroh-speed-source"), folder.join("aioiroh-speed-target"));
    std::fs::write(&path, &data).unwrap();

    let start = Start::now();
    let (hash, pairs) = outboard::of_bytes(&data);
    rate("hash, in memory", mib, start);

    let start = Start::now();
    let encoded = encode::to_vec(hash, &data, &pairs, &ChunkRanges::all()).unwrap();
    rate("encode, in memory", mib, start);
    let encoded = Bytes::from(encoded);

    for _ in 0..2 {
        let worker = Worker::new(false).unwrap();
        let start = Start::now();
        worker.start(Job::HashFile { path: path.clone(), outboard: None }).unwrap();
        while !worker.poll().iter().any(|event| matches!(event, Event::Job(_, JobEvent::Hashed { .. }))) {
            std::thread::yield_now();
        }
        rate("hash file", mib, start);

        let open = || {
            let outboard = OutboardAt::Memory(pairs.clone().into());
            Arc::new(Blob::open(hash, path.clone(), data.len() as u64, outboard, None))
        };
        for (what, blob) in [
            ("encode file, worker", open()),
            ("encode memory, worker", Arc::new(Blob::from_bytes(data.clone().into()))),
        ] {
            let start = Start::now();
            let sender = Sender::new(&worker).unwrap();
            sender.push(blob, ChunkRanges::all());
            sender.finish();
            assert_eq!(pull(&sender, drop), encoded.len());
            rate(what, mib, start);
        }
        for (what, target) in [
            ("decode to memory, worker", None),
            ("decode to file, worker", Some(&target)),
            ("decode to file, worker, again", Some(&target)),
        ] {
            for piece in [1408, 64 * 1024] {
                let blob = match target {
                    None => Blob::memory(hash, u64::MAX),
                    Some(path) => Blob::create(hash, path.clone(), None, u64::MAX),
                };
                let start = Start::now();
                let mut feeder = Feeder::new(&worker);
                feeder.expect(Arc::new(blob));
                for at in (0..encoded.len()).step_by(piece) {
                    feeder.push(encoded.slice(at..(at + piece).min(encoded.len())));
                    if at % (16 * piece) == 0 {
                        feeder.look();
                    }
                }
                feeder.end();
                rate(&format!("{what}, pieces of {piece}"), mib, start);
            }
        }
        let start = Start::now();
        let sender = Sender::new(&worker).unwrap();
        sender.push(open(), ChunkRanges::all());
        sender.finish();
        let mut feeder = Feeder::new(&worker);
        feeder.expect(Arc::new(Blob::create(hash, target.clone(), None, u64::MAX)));
        pull(&sender, |data| feeder.feed(data));
        feeder.end();
        rate("file to file, one worker", mib, start);

        let inline = Worker::new(true).unwrap();
        let start = Start::now();
        let mut feeder = Feeder::new(&inline);
        feeder.expect(Arc::new(Blob::create(hash, target.clone(), None, u64::MAX)));
        for at in (0..encoded.len()).step_by(64 * 1024) {
            feeder.feed(encoded.slice(at..(at + 64 * 1024).min(encoded.len())));
        }
        feeder.end();
        rate("decode to file, inline: one core does all", mib, start);
    }
    small(1000);
    small(10_000);
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(target).unwrap();
}

/// Time on the wall and on the processors: on a busy machine only the latter says something.
struct Start {
    wall: Instant,
    cpu: f64,
}

impl Start {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }
}

/// Seconds that this process has run, in hundredths.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time; the state is field 0 here.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn rate(what: &str, mib: usize, start: Start) {
    let (wall, cpu) = (start.wall.elapsed().as_secs_f64(), cpu() - start.cpu);
    println!("{what:48} {:6.0} MiB/s, {:6.0} MiB per CPU second", mib as f64 / wall, mib as f64 / cpu);
}

/// Many blobs in memory on one stream.
fn small(size: usize) {
    const COUNT: usize = 50_000;
    let worker = Worker::new(false).unwrap();
    let blobs: Vec<_> = (0..COUNT).map(|i| Arc::new(Blob::from_bytes(vec![i as u8; size].into()))).collect();
    let start = Start::now();
    let sender = Sender::new(&worker).unwrap();
    for blob in &blobs {
        sender.push(blob.clone(), ChunkRanges::all());
    }
    sender.finish();
    let mut pieces = Vec::new();
    pull(&sender, |data| pieces.push(data));
    println!("send blobs of {size} bytes {:29.0} /s", COUNT as f64 / start.wall.elapsed().as_secs_f64());
    let start = Start::now();
    let mut feeder = Feeder::new(&worker);
    for blob in &blobs {
        feeder.expect(Arc::new(Blob::memory(*blob.hash(), u64::MAX)));
    }
    for piece in pieces {
        feeder.feed(piece);
    }
    feeder.end();
    println!("receive blobs of {size} bytes {:26.0} /s", COUNT as f64 / start.wall.elapsed().as_secs_f64());
}

fn waker() -> (Waker, std::sync::mpsc::Receiver<()>) {
    let (send, wakes) = channel();
    let waker = Arc::new(move || {
        let _ = send.send(());
    });
    (waker, wakes)
}

fn pull(sender: &Sender, mut take: impl FnMut(Bytes)) -> usize {
    let mut source = sender.source().unwrap();
    let (waker, wakes) = waker();
    source.attach(waker);
    let mut len = 0;
    loop {
        match source.next(64 * 1024) {
            Next::Data(data) => {
                len += data.len();
                take(data);
            }
            Next::Pending => wakes.recv().unwrap(),
            Next::Finish => return len,
            Next::Reset(code) => panic!("reset {code}: {:?}", sender.poll()),
        }
        if source.notify() {
            sender.poll();
        }
    }
}

struct Feeder {
    receiver: Receiver,
    sink: Box<dyn StreamSink>,
    wakes: std::sync::mpsc::Receiver<()>,
    room: usize,
}

impl Feeder {
    fn new(worker: &Worker) -> Self {
        let receiver = Receiver::new(worker, u64::MAX, None, 0).unwrap();
        let mut sink = receiver.sink().unwrap();
        let (waker, wakes) = waker();
        sink.attach(waker);
        Self { receiver, sink, wakes, room: 0 }
    }

    fn expect(&self, blob: Arc<Blob>) {
        self.receiver.expect(vec![Item::Part { query: ChunkRanges::all(), blob }]).unwrap();
    }

    fn feed(&mut self, data: Bytes) {
        self.push(data);
        self.look();
    }

    fn push(&mut self, mut data: Bytes) {
        if data.len() <= self.room {
            self.room -= data.len();
            return self.sink.push(data);
        }
        while !data.is_empty() {
            self.room = self.sink.capacity();
            if self.room == 0 {
                self.wakes.recv().unwrap();
            } else {
                let now = data.split_to(data.len().min(self.room));
                self.room -= now.len();
                self.sink.push(now);
            }
        }
    }

    fn look(&mut self) {
        if self.sink.notify() {
            self.receiver.poll();
        }
    }

    fn end(mut self) {
        self.receiver.finish();
        self.sink.end(StreamEnd::Finished);
        loop {
            self.sink.notify();
            match self.receiver.poll().last() {
                Some(Report::End { .. }) => return,
                Some(Report::Error { kind, .. }) => panic!("{kind}"),
                _ => self.wakes.recv().unwrap(),
            }
        }
    }
}
