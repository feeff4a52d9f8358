//! Many transfers at once, with an engine on another thread: nothing is lost, nothing waits for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Channel, Sender as Post, channel};
use std::time::Duration;

use aioiroh_bao::{ChunkRanges, outboard};
use aioiroh_core::stream::{Next, StreamEnd, StreamSink, StreamSource, Waker};
use aioiroh_io::{Blob, Item, OutboardAt, Receiver, Report, Sender, Worker};
use bytes::Bytes;

const LONG: Duration = Duration::from_secs(30);

/// A repeatable source of choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// One stream: what a source gives goes through a wire of bounded length into a sink.
struct Stream {
    source: Option<Box<dyn StreamSource>>,
    sink: Option<Box<dyn StreamSink>>,
    wire: VecDeque<Bytes>,
    wired: usize,
    window: usize,
    finished: bool,
    news: (Post<()>, Post<()>),
}

impl Stream {
    /// As the engine: goes on until neither end can.
    fn pump(&mut self, dice: &mut Dice) {
        loop {
            let mut moved = false;
            if let Some(source) = &mut self.source {
                while self.wired < self.window {
                    let most = [3000, 100_000][dice.roll(2) as usize];
                    let max = 1 + dice.roll(most) as usize;
                    match source.next(max) {
                        Next::Data(data) => {
                            assert!(data.len() <= max);
                            self.wired += data.len();
                            self.wire.push_back(data);
                            moved = true;
                        }
                        Next::Pending => break,
                        Next::Finish => {
                            self.finished = true;
                            break;
                        }
                        Next::Reset(code) => panic!("reset {code}"),
                    }
                }
                if source.notify() {
                    let _ = self.news.0.send(());
                }
            }
            if self.finished {
                self.source = None;
            }
            let Some(sink) = &mut self.sink else { return };
            while let Some(front) = self.wire.front_mut() {
                let room = sink.capacity();
                if room == 0 {
                    break;
                }
                let now = front.split_to(front.len().min(room));
                if front.is_empty() {
                    self.wire.pop_front();
                }
                self.wired -= now.len();
                sink.push(now);
                moved = true;
            }
            assert_eq!(sink.stopped(), None);
            let ended = self.finished && self.wire.is_empty();
            if ended {
                sink.end(StreamEnd::Finished);
            }
            if sink.notify() {
                let _ = self.news.1.send(());
            }
            if ended {
                self.sink = None;
                return;
            }
            if !moved {
                return;
            }
        }
    }
}

fn wait<T>(news: &Channel<()>, worker: &Worker, over: &mut dyn FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = over() {
            return value;
        }
        assert!(start.elapsed() < LONG, "nothing happens any more");
        // Reports of what the engine let go come by way of the worker; this does not sort them by transfer.
        let _ = news.recv_timeout(Duration::from_millis(1));
        worker.poll();
    }
}

#[test]
fn many_transfers_at_once() {
    const STREAMS: usize = 24;
    let folder = std::env::temp_dir().join(format!("aioiroh-stress-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let contents: Vec<Vec<u8>> = [0, 1, 900, 16384, 16385, 70_000, 300_000, 3_000_000]
        .iter()
        .map(|size| (0..*size).map(|i| (i % 251) as u8).collect())
        .collect();

    for round in 0..3 {
        let worker = Arc::new(Worker::new(false).unwrap());
        let (wake, wakes) = channel::<usize>();
        let mut streams = Vec::new();
        let mut applications = Vec::new();
        for number in 0..STREAMS {
            let sender = Sender::new(&worker).unwrap();
            let receiver = Receiver::new(&worker, 1 << 40, None, 0).unwrap();
            let (mut source, mut sink) = (sender.source().unwrap(), receiver.sink().unwrap());
            let waker = |number| -> Waker {
                let wake = wake.clone();
                Arc::new(move || {
                    let _ = wake.send(number);
                })
            };
            source.attach(waker(number));
            sink.attach(waker(number));
            let ((sent, sent_news), (got, got_news)) = (channel(), channel());
            let window = [5000, 70_000, 1 << 20][dice.roll(3) as usize];
            streams.push(Stream {
                source: Some(source),
                sink: Some(sink),
                wire: VecDeque::new(),
                wired: 0,
                window,
                finished: false,
                news: (sent, got),
            });
            applications.push((sender, receiver, sent_news, got_news));
        }
        let over = Arc::new(AtomicBool::new(false));
        let engine = std::thread::spawn({
            let over = over.clone();
            let mut dice = Dice(round + 1);
            move || {
                for stream in &mut streams {
                    stream.pump(&mut dice);
                }
                while !over.load(Ordering::Relaxed) {
                    if let Ok(number) = wakes.recv_timeout(Duration::from_millis(20)) {
                        streams[number].pump(&mut dice);
                    }
                }
            }
        });

        let mut expected = Vec::new();
        for step in 0..20_u64 {
            for (number, (sender, receiver, ..)) in applications.iter().enumerate() {
                let data = &contents[dice.roll(contents.len() as u64) as usize];
                let (hash, pairs) = outboard::of_bytes(data);
                let name = |what: &str| folder.join(format!("{round}-{number}-{step}-{what}"));
                let from = if dice.roll(2) == 0 {
                    Blob::from_bytes(data.clone().into())
                } else {
                    std::fs::write(name("from"), data).unwrap();
                    Blob::open(hash, name("from"), data.len() as u64, OutboardAt::Memory(pairs.into()), None)
                };
                let to = Arc::new(if dice.roll(2) == 0 {
                    Blob::memory(hash, 1 << 40)
                } else {
                    let outboard = (dice.roll(2) == 0).then(|| name("outboard"));
                    Blob::create(hash, name("to"), outboard, 1 << 40)
                });
                let item = Item::Part { query: ChunkRanges::all(), blob: to.clone() };
                if dice.roll(2) == 0 {
                    sender.push(Arc::new(from), ChunkRanges::all());
                    receiver.expect(vec![item]).unwrap();
                } else {
                    receiver.expect(vec![item]).unwrap();
                    sender.push(Arc::new(from), ChunkRanges::all());
                }
                expected.push((to, data));
            }
            if dice.roll(4) == 0 {
                std::thread::sleep(Duration::from_millis(dice.roll(5)));
            }
        }
        for (sender, receiver, ..) in &applications {
            sender.finish();
            receiver.finish();
        }
        for (sender, receiver, sent, got) in &applications {
            let count =
                |reports: &[Report]| reports.iter().filter(|r| matches!(r, Report::Done { .. })).count();
            for (news, poll) in
                [(sent, &(|| sender.poll()) as &dyn Fn() -> Vec<Report>), (got, &|| receiver.poll())]
            {
                let mut reports = Vec::new();
                wait(news, &worker, &mut || {
                    reports.extend(poll());
                    matches!(reports.last(), Some(Report::End { trailing: 0 })).then_some(())
                });
                assert_eq!(count(&reports), 20, "{reports:?}");
            }
        }
        over.store(true, Ordering::Relaxed);
        engine.join().unwrap();
        for (blob, data) in expected {
            assert!(blob.is_complete());
            assert!(blob.read(0, data.len()).unwrap().unwrap() == *data);
        }
        assert_eq!(worker.queued(), 0);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
