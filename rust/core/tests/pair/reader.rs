//! A reader that is slow or absent: nothing is lost, memory stays bounded.

use std::time::Duration;

use aioiroh_core::{
    Dir,
    config::Transport,
    event::Event,
    streams::{Read, Write},
};

use crate::world::{CLIENT, PERFECT, SERVER, World};

/// Sends `total` bytes in packets of `size` bytes each. The reader is awake for the first `awake` bytes,
/// by which the congestion window has grown, then sleeps for a minute, then reads the rest.
fn sleep_and_read(size: usize, total: usize, window: u64, awake: usize) {
    let nap = Duration::from_secs(60);
    let transport = Transport { receive_window: window, ..Transport::default() };
    let mut world = World::new(3, PERFECT, transport);
    let (client, server) = world.connect();
    let stream = world.nodes[CLIENT].engine.call(client, |slot, _| slot.open(Dir::Uni).unwrap()).unwrap();
    let byte = |position: usize| (position % 251) as u8;
    let mut sent = 0;
    let mut received = 0;
    let mut opened = None;
    let mut most = 0;
    let wake = world.now + nap;
    let end = world.now + nap + Duration::from_secs(600);
    while received < total {
        assert!(world.now < end, "{received} of {total} bytes after {:?}", world.elapsed());
        let mut moved = 0;
        while sent < total && moved < 20 {
            let piece: Vec<u8> = (sent..(sent + size).min(total)).map(byte).collect();
            let written =
                world.nodes[CLIENT].engine.call(client, |slot, _| slot.write(stream, &piece)).unwrap();
            let Write::Accepted(count) = written else { panic!("{written:?}") };
            if count == 0 {
                break;
            }
            sent += count;
            moved += 1;
            if sent == total {
                world.nodes[CLIENT]
                    .engine
                    .call(client, |slot, _| slot.conn.send_stream(stream).finish().unwrap())
                    .unwrap();
            }
            // Each write leaves in a packet of its own.
            world.pump();
        }
        let closed = |event: &Event| match event {
            Event::Closed { close, .. } => Some(close.clone()),
            _ => None,
        };
        assert_eq!(world.find(SERVER, closed), None, "after {sent} bytes sent");
        let stashed = world.nodes[SERVER].engine.inspect(server, |slot| slot.streams().stashed()).unwrap();
        most = most.max(stashed);
        if world.now >= wake || received < awake {
            world.nodes[SERVER]
                .engine
                .call(server, |slot, _| {
                    opened = opened.or_else(|| slot.accept(Dir::Uni));
                    while let Some(stream) = opened {
                        match slot.read(stream, 64 * 1024) {
                            Read::Data(data) => {
                                let mut bytes = vec![0; data.len];
                                data.copy_to(&mut bytes);
                                for (index, &found) in bytes.iter().enumerate() {
                                    assert_eq!(found, byte(received + index));
                                }
                                received += data.len;
                            }
                            Read::Blocked => {
                                slot.cancel_read(stream);
                                break;
                            }
                            other => panic!("{other:?}"),
                        }
                        if received == total {
                            break;
                        }
                    }
                })
                .unwrap();
        }
        if moved == 0 {
            world.step();
        }
    }
    assert!(most <= window, "{most} bytes stashed with a window of {window}");
    assert!(most > 0, "the stash was never needed: the test shows nothing");
}

#[test]
fn small_packets_to_a_sleeping_reader() {
    sleep_and_read(200, 4_000_000, 16 << 20, 0);
}

#[test]
fn the_connection_window_bounds_the_stash() {
    sleep_and_read(200, 6_000_000, 1 << 20, 0);
}

#[test]
fn a_window_smaller_than_one_stash() {
    sleep_and_read(150, 4_000_000, 200_000, 2_000_000);
}
