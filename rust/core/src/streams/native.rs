//! Native ends of streams: sinks and sources in place of the application.

use bytes::Bytes;
use noq_proto::{Connection, StreamId, WriteError};

use super::{MAX_UNREAD_FRAMES, Outgoing, Read, Streams, code};
use crate::{
    event::{ConnId, Event},
    stream::{Next, StreamEnd, StreamSink, StreamSource, Waker},
};

/// What one turn of the engine takes from a source, so that a step stays short.
const SOURCE_TURN: usize = 512 * 1024;
/// What a source is asked for at once.
const SOURCE_PIECE: usize = 64 * 1024;

impl Streams {
    pub fn attach_sink(&mut self, id: StreamId, mut sink: Box<dyn StreamSink>, waker: Waker) {
        sink.attach(waker);
        let entry = self.incoming.entry(id).or_default();
        entry.sink = Some(sink);
        entry.demand = 0;
        if !entry.queued {
            entry.queued = true;
            self.readable.push(id);
        }
    }

    pub fn attach_source(&mut self, id: StreamId, mut source: Box<dyn StreamSource>, waker: Waker) {
        source.attach(waker);
        self.outgoing.insert(id, Outgoing { source, rest: Bytes::new(), blocked: false, queued: true });
        self.writable.push(id);
    }

    pub fn detach_sink(&mut self, id: StreamId) -> bool {
        let had = self.incoming.get_mut(&id).is_some_and(|entry| entry.sink.take().is_some());
        self.tidy(id);
        had
    }

    pub fn detach_source(&mut self, id: StreamId) -> bool {
        self.outgoing.remove(&id).is_some()
    }

    pub fn has_sink(&self, id: StreamId) -> bool {
        self.incoming.get(&id).is_some_and(|entry| entry.sink.is_some())
    }

    pub fn has_source(&self, id: StreamId) -> bool {
        self.outgoing.contains_key(&id)
    }

    /// A native end called its waker.
    pub fn woken(&mut self, id: StreamId) {
        if let Some(entry) = self.incoming.get_mut(&id)
            && entry.sink.is_some()
            && !entry.queued
        {
            entry.queued = true;
            self.readable.push(id);
        }
        if let Some(out) = self.outgoing.get_mut(&id)
            && !out.queued
        {
            out.queued = true;
            self.writable.push(id);
        }
    }

    /// True if the source will go on by itself; false if the application waits for this stream.
    pub fn on_writable(&mut self, id: StreamId) -> bool {
        let Some(out) = self.outgoing.get_mut(&id) else { return false };
        out.blocked = false;
        if !out.queued {
            out.queued = true;
            self.writable.push(id);
        }
        true
    }

    pub fn on_stopped(&mut self, id: StreamId, code: u64, conn: ConnId, events: &mut Vec<Event>) {
        if let Some(mut out) = self.outgoing.remove(&id) {
            out.source.abort(Some(code));
            if out.source.notify() {
                events.push(Event::Transfer { conn, stream: id });
            }
        }
    }

    pub(super) fn drain_to_sink(
        &mut self,
        conn: &mut Connection,
        conn_id: ConnId,
        id: StreamId,
        events: &mut Vec<Event>,
    ) {
        let Some(mut sink) = self.incoming.get_mut(&id).and_then(|entry| entry.sink.take()) else { return };
        let mut end = None;
        let mut stop = sink.stopped();
        while stop.is_none() && end.is_none() {
            let room = sink.capacity();
            if room == 0 {
                break;
            }
            match self.take(conn, id, room) {
                Read::Data(data) => {
                    sink.push(data.first);
                    for piece in data.rest {
                        sink.push(piece);
                    }
                    stop = sink.stopped();
                }
                Read::Blocked => break,
                Read::End => end = Some(StreamEnd::Finished),
                Read::Reset(code) => end = Some(StreamEnd::Reset(code)),
                Read::Gone => end = Some(StreamEnd::Lost),
            }
        }
        if let Some(end) = end {
            sink.end(end);
        }
        if sink.notify() {
            events.push(Event::Transfer { conn: conn_id, stream: id });
        }
        if let Some(code) = stop {
            self.stop(conn, id, code);
        } else if end.is_none() {
            // A sink that is full still counts frames: `on_readable` queues it, the waker too.
            let entry = self.incoming.entry(id).or_default();
            entry.sink = Some(sink);
            if entry.frames >= MAX_UNREAD_FRAMES {
                self.stash(conn, id);
            }
        }
    }

    pub(super) fn fill_from_source(
        &mut self,
        conn: &mut Connection,
        conn_id: ConnId,
        id: StreamId,
        events: &mut Vec<Event>,
    ) {
        let Some(mut out) = self.outgoing.remove(&id) else { return };
        out.queued = false;
        let mut taken = 0;
        let mut done = false;
        while !out.blocked && !done {
            if out.rest.is_empty() {
                if taken >= SOURCE_TURN {
                    out.queued = true;
                    self.writable.push(id);
                    break;
                }
                match out.source.next(SOURCE_PIECE) {
                    Next::Data(data) => {
                        taken += data.len();
                        out.rest = data;
                        continue;
                    }
                    Next::Pending => break,
                    Next::Finish => {
                        done = true;
                        let _ = conn.send_stream(id).finish();
                    }
                    Next::Reset(error) => {
                        done = true;
                        let _ = conn.send_stream(id).reset(code(error));
                    }
                }
            } else {
                let mut pieces = [out.rest.clone()];
                match conn.send_stream(id).write_chunks(&mut &mut pieces[..]) {
                    Ok(written) => {
                        let _ = out.rest.split_to(written);
                    }
                    Err(WriteError::Blocked) => out.blocked = true,
                    Err(WriteError::Stopped(code)) => {
                        out.source.abort(Some(code.into_inner()));
                        done = true;
                    }
                    Err(_) => {
                        out.source.abort(None);
                        done = true;
                    }
                }
            }
        }
        if out.source.notify() {
            events.push(Event::Transfer { conn: conn_id, stream: id });
        }
        if !done {
            self.outgoing.insert(id, out);
        }
    }

    /// The connection is over: what was received stays readable, native ends learn of it.
    pub fn lost(&mut self, conn: &mut Connection, conn_id: ConnId, events: &mut Vec<Event>) {
        for (&id, out) in &mut self.outgoing {
            out.source.abort(None);
            if out.source.notify() {
                events.push(Event::Transfer { conn: conn_id, stream: id });
            }
        }
        self.outgoing.clear();
        let sinks: Vec<StreamId> =
            self.incoming.iter().filter(|(_, entry)| entry.sink.is_some()).map(|(&id, _)| id).collect();
        for id in sinks {
            self.drain_to_sink(conn, conn_id, id, events);
            if let Some(mut sink) = self.incoming.get_mut(&id).and_then(|entry| entry.sink.take()) {
                sink.end(StreamEnd::Lost);
                if sink.notify() {
                    events.push(Event::Transfer { conn: conn_id, stream: id });
                }
            }
        }
    }
}
