//! The application's side of the streams of one connection: what it waits for, what is kept for it,
//! and native ends.
//!
//! The QUIC library fails a connection in which more than 2,048 unread pieces pile up on one stream
//! (also contiguous ones). So the pieces of a stream that nobody reads are moved into a stash before
//! that, and the stash is charged to the connection window: the peer gets no credit for bytes that the
//! application has not taken.

mod native;

use bytes::{Bytes, BytesMut};
use noq_proto::{Connection, ReadError, ReadableError, StreamId, VarInt, WriteError};
use rustc_hash::FxHashMap;

use crate::{
    event::{ConnId, Event, Payload},
    stream::{StreamSink, StreamSource},
};

/// Frames that may arrive on a stream between two looks at it. One step of the engine can add about
/// 1,400 more before the next look, and the library's limit is 2,048.
const MAX_UNREAD_FRAMES: u32 = 500;
/// How far the connection window is shrunk ahead of moving bytes into a stash.
const STASH_QUANTUM: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Finished,
    Reset(u64),
}

#[derive(Default)]
struct Incoming {
    frames: u32,
    demand: usize,
    queued: bool,
    stash: std::collections::VecDeque<Bytes>,
    stashed: usize,
    ended: Option<Ended>,
    sink: Option<Box<dyn StreamSink>>,
}

impl Incoming {
    fn is_idle(&self) -> bool {
        self.demand == 0 && self.stashed == 0 && self.ended.is_none() && self.sink.is_none()
    }
}

struct Outgoing {
    source: Box<dyn StreamSource>,
    rest: Bytes,
    blocked: bool,
    queued: bool,
}

/// What a read found.
#[derive(Debug)]
pub enum Read {
    Data(Payload),
    /// Nothing now; an event will answer.
    Blocked,
    End,
    Reset(u64),
    /// The stream is unknown, was read to its end or was stopped.
    Gone,
}

/// What a write did.
#[derive(Debug, PartialEq, Eq)]
pub enum Write {
    /// So many bytes are accepted; with 0 an event tells when to try again.
    Accepted(usize),
    Stopped(u64),
    Gone,
}

#[derive(Default)]
pub struct Streams {
    incoming: FxHashMap<StreamId, Incoming>,
    outgoing: FxHashMap<StreamId, Outgoing>,
    /// Streams to look at in the next turn.
    readable: Vec<StreamId>,
    writable: Vec<StreamId>,
    stashed: u64,
    charged: u64,
    prepaid: u64,
    window: u64,
}

fn code(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

impl Streams {
    pub(crate) fn new(window: u64) -> Self {
        Self { window, ..Self::default() }
    }

    /// The unread bytes kept here rather than in the QUIC library.
    pub fn stashed(&self) -> u64 {
        self.stashed
    }

    pub fn set_window(&mut self, conn: &mut Connection, window: u64) {
        self.window = window;
        conn.set_receive_window(code(window.saturating_sub(self.charged)));
    }

    // ---- reading

    /// Data or an end arrived on a stream.
    pub fn on_readable(&mut self, conn: &mut Connection, id: StreamId) {
        let entry = self.incoming.entry(id).or_default();
        entry.frames += 1;
        if entry.demand > 0 || entry.sink.is_some() {
            if !entry.queued {
                entry.queued = true;
                self.readable.push(id);
            }
        } else if entry.frames >= MAX_UNREAD_FRAMES {
            self.stash(conn, id);
        }
    }

    /// Moves the unread bytes of a stream into its stash.
    ///
    /// Reading issues credit to the peer. It is withheld by shrinking the window first, which the
    /// library books as a debt that later credit pays. So at any time, with `prepaid` an upper bound of
    /// that debt, unread bytes of all streams together are at most the window.
    fn stash(&mut self, conn: &mut Connection, id: StreamId) {
        let Some(entry) = self.incoming.get_mut(&id) else { return };
        entry.frames = 0;
        while entry.ended.is_none() {
            let more =
                STASH_QUANTUM.saturating_sub(self.prepaid).min(self.window.saturating_sub(self.charged));
            if more > 0 {
                self.charged += more;
                self.prepaid += more;
                conn.set_receive_window(code(self.window - self.charged));
            }
            let room = self.prepaid as usize;
            let mut stream = conn.recv_stream(id);
            let Ok(mut chunks) = stream.read(true) else { return };
            // Packed: a piece of a packet keeps the whole receive buffer alive.
            let mut packed = BytesMut::new();
            let mut drained = false;
            while packed.len() < room {
                match chunks.next(room - packed.len()) {
                    Ok(Some(chunk)) => {
                        packed.extend_from_slice(&chunk.bytes);
                        continue;
                    }
                    Ok(None) => entry.ended = Some(Ended::Finished),
                    Err(ReadError::Reset(code)) => entry.ended = Some(Ended::Reset(code.into_inner())),
                    Err(ReadError::Blocked) => {}
                }
                drained = true;
                break;
            }
            let _ = chunks.finalize();
            let added = packed.len();
            if added > 0 {
                entry.stash.push_back(packed.freeze());
                entry.stashed += added;
                self.stashed += added as u64;
                self.prepaid -= added as u64;
            }
            if drained || added == 0 {
                break;
            }
        }
    }

    /// Gives credit back for stashed bytes that were taken, in steps worth a frame.
    fn settle(&mut self, conn: &mut Connection) {
        let due = self.charged - self.stashed - self.prepaid;
        if due > 0 && (self.stashed == 0 || due >= self.window / 8) {
            self.charged -= due;
            conn.set_receive_window(code(self.window.saturating_sub(self.charged)));
        }
    }

    fn take(&mut self, conn: &mut Connection, id: StreamId, max: usize) -> Read {
        let mut data = Payload::default();
        if let Some(entry) = self.incoming.get_mut(&id) {
            entry.frames = 0;
            while data.len < max {
                let Some(mut piece) = entry.stash.pop_front() else { break };
                if piece.len() > max - data.len {
                    let rest = piece.split_off(max - data.len);
                    entry.stash.push_front(rest);
                }
                data.push(piece);
            }
            if data.len > 0 {
                entry.stashed -= data.len;
                self.stashed -= data.len as u64;
                self.settle(conn);
                if data.len == max {
                    return Read::Data(data);
                }
            }
            match self.incoming[&id].ended {
                Some(_) if !data.is_empty() => return Read::Data(data),
                Some(Ended::Finished) => {
                    self.incoming.remove(&id);
                    return Read::End;
                }
                Some(Ended::Reset(code)) => {
                    self.incoming.remove(&id);
                    return Read::Reset(code);
                }
                None => {}
            }
        }
        let mut stream = conn.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return if data.is_empty() { Read::Gone } else { Read::Data(data) };
            }
        };
        let mut ended = None;
        while data.len < max {
            match chunks.next(max - data.len) {
                Ok(Some(chunk)) => data.push(chunk.bytes),
                Ok(None) => {
                    ended = Some(Ended::Finished);
                    break;
                }
                Err(ReadError::Reset(code)) => {
                    ended = Some(Ended::Reset(code.into_inner()));
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize();
        match ended {
            Some(ended) if !data.is_empty() => {
                self.incoming.entry(id).or_default().ended = Some(ended);
                Read::Data(data)
            }
            Some(Ended::Finished) => {
                self.incoming.remove(&id);
                Read::End
            }
            Some(Ended::Reset(code)) => {
                self.incoming.remove(&id);
                Read::Reset(code)
            }
            None if !data.is_empty() => Read::Data(data),
            None => Read::Blocked,
        }
    }

    /// Takes up to `max` bytes; if there are none an event will answer.
    pub fn read(&mut self, conn: &mut Connection, id: StreamId, max: usize) -> Read {
        let read = self.take(conn, id, max);
        match read {
            Read::Blocked => self.incoming.entry(id).or_default().demand = max,
            Read::Data(_) => self.tidy(id),
            _ => {}
        }
        read
    }

    fn tidy(&mut self, id: StreamId) {
        if self.incoming.get(&id).is_some_and(|entry| entry.is_idle() && !entry.queued) {
            self.incoming.remove(&id);
        }
    }

    pub fn cancel_read(&mut self, id: StreamId) {
        if let Some(entry) = self.incoming.get_mut(&id) {
            entry.demand = 0;
        }
        self.tidy(id);
    }

    /// Asks the peer to send no more. False if there is nothing to stop.
    pub fn stop(&mut self, conn: &mut Connection, id: StreamId, error: u64) -> bool {
        if let Some(entry) = self.incoming.remove(&id) {
            self.stashed -= entry.stashed as u64;
            self.settle(conn);
            if entry.ended.is_some() {
                return false;
            }
        }
        conn.recv_stream(id).stop(code(error)).is_ok()
    }

    /// Serves demanded reads and native ends.
    pub fn serve(&mut self, conn: &mut Connection, conn_id: ConnId, events: &mut Vec<Event>) {
        while let Some(id) = self.readable.pop() {
            let Some(entry) = self.incoming.get_mut(&id) else { continue };
            entry.queued = false;
            if entry.sink.is_some() {
                self.drain_to_sink(conn, conn_id, id, events);
            } else if entry.demand > 0 {
                let max = entry.demand;
                match self.take(conn, id, max) {
                    Read::Blocked => {}
                    Read::Data(data) => {
                        let mut fin = false;
                        if let Some(entry) = self.incoming.get_mut(&id) {
                            entry.demand = 0;
                            fin = entry.ended == Some(Ended::Finished) && entry.stashed == 0;
                        }
                        if fin {
                            self.incoming.remove(&id);
                        } else {
                            self.tidy(id);
                        }
                        events.push(Event::Data { conn: conn_id, stream: id, data, fin });
                    }
                    Read::End | Read::Gone => {
                        self.incoming.remove(&id);
                        events.push(Event::Data {
                            conn: conn_id,
                            stream: id,
                            data: Payload::default(),
                            fin: true,
                        });
                    }
                    Read::Reset(code) => {
                        events.push(Event::StreamReset { conn: conn_id, stream: id, code });
                    }
                }
            }
        }
        for id in std::mem::take(&mut self.writable) {
            self.fill_from_source(conn, conn_id, id, events);
        }
    }

    /// True if [`serve`](Self::serve) has something to do.
    pub fn pending(&self) -> bool {
        !self.readable.is_empty() || !self.writable.is_empty()
    }

    /// Forgets the streams we opened: early data was rejected and their ids start anew.
    pub fn forget_local(&mut self, side: noq_proto::Side) {
        self.incoming.retain(|id, _| id.initiator() != side);
        self.outgoing.retain(|id, _| id.initiator() != side);
    }

    // ---- writing

    pub fn write(&mut self, conn: &mut Connection, id: StreamId, data: &[u8]) -> Write {
        match conn.send_stream(id).write(data) {
            Ok(written) => Write::Accepted(written),
            Err(WriteError::Blocked) => Write::Accepted(0),
            Err(WriteError::Stopped(code)) => Write::Stopped(code.into_inner()),
            Err(_) => Write::Gone,
        }
    }
}
