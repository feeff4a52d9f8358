//! Events as tuples `(kind, connection, a, b)`.

use aioiroh_core::{
    PathStatus, StreamId,
    event::{Close, Event, Payload},
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

use super::convert;

macro_rules! constants {
    ($($name:ident = $value:literal;)*) => {
        $(const $name: u32 = $value;)*

        pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add(stringify!($name), $value)?;)*
            Ok(())
        }
    };
}

constants! {
    EV_INCOMING = 1;
    EV_CONNECTED = 2;
    EV_CONFIRMED = 3;
    EV_CLOSED = 4;
    EV_DRAINED = 5;
    EV_STREAMS_OPENED = 6;
    EV_STREAMS_AVAILABLE = 7;
    EV_DATA = 8;
    EV_RESET = 11;
    EV_WRITABLE = 12;
    EV_FINISHED = 13;
    EV_STOPPED = 14;
    EV_TRANSFER = 15;
    EV_DATAGRAMS = 16;
    EV_DATAGRAMS_UNBLOCKED = 17;
    EV_PATH_ESTABLISHED = 18;
    EV_PATH_ABANDONED = 19;
    EV_PATH_DISCARDED = 20;
    EV_PATH_REMOTE_STATUS = 21;
    EV_PATH_OBSERVED = 22;
    EV_NAT_ADDRESS = 23;
    EV_OUTPUT = 24;
    EV_SOCKET_ERROR = 25;
    EV_ENGINE_FAILED = 26;
    EV_NAT_PROBE = 27;
    EV_KNOCK = 28;
    EV_PATH_SILENT = 29;
    CLOSE_APPLICATION = 1;
    CLOSE_PEER_TRANSPORT = 2;
    CLOSE_TRANSPORT = 3;
    CLOSE_TIMEOUT = 4;
    CLOSE_RESET = 5;
    CLOSE_VERSION = 6;
    CLOSE_CIDS = 7;
    CLOSE_LOCAL = 8;
    CLOSE_PANIC = 9;
}

pub fn bytes<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyBytes>> {
    if payload.rest.is_empty() {
        return Ok(PyBytes::new(py, &payload.first));
    }
    PyBytes::new_with(py, payload.len, |target| {
        payload.copy_to(target);
        Ok(())
    })
}

pub fn close<'py>(py: Python<'py>, close: Close) -> PyResult<(u32, Bound<'py, PyAny>)> {
    let (cause, code, frame, reason): (u32, u64, Option<u64>, Vec<u8>) = match close {
        Close::Application { code, reason } => (CLOSE_APPLICATION, code, None, reason.to_vec()),
        Close::PeerTransport { code, frame, reason } => (CLOSE_PEER_TRANSPORT, code, frame, reason.to_vec()),
        Close::Transport { code, frame, reason } => (CLOSE_TRANSPORT, code, frame, reason.into_bytes()),
        Close::Timeout => (CLOSE_TIMEOUT, 0, None, Vec::new()),
        Close::Reset => (CLOSE_RESET, 0, None, Vec::new()),
        Close::Version => (CLOSE_VERSION, 0, None, Vec::new()),
        Close::Cids => (CLOSE_CIDS, 0, None, Vec::new()),
        Close::Local { code, reason } => (CLOSE_LOCAL, code, None, reason.to_vec()),
        Close::Panic(text) => (CLOSE_PANIC, 0, None, text.into_bytes()),
    };
    Ok((cause, (code, frame, PyBytes::new(py, &reason)).into_pyobject(py)?.into_any()))
}

pub fn status(status: PathStatus) -> &'static str {
    match status {
        PathStatus::Available => "available",
        PathStatus::Backup => "backup",
    }
}

pub fn list<'py>(py: Python<'py>, events: Vec<Event>) -> PyResult<Bound<'py, PyAny>> {
    if events.is_empty() {
        return Ok(PyTuple::empty(py).into_any());
    }
    let list = PyList::empty(py);
    let mut events = events.into_iter().peekable();
    // One packet may have something for dozens of streams: one event tells of all.
    while let Some(event) = events.next() {
        let tuple = match event {
            Event::Data { conn, stream, data, fin } => {
                let mut arrived = vec![arrival(py, stream, &data, fin)?];
                while let Some(Event::Data { stream, data, fin, .. }) =
                    events.next_if(|next| matches!(next, Event::Data { conn: other, .. } if *other == conn))
                {
                    arrived.push(arrival(py, stream, &data, fin)?);
                }
                make(py, EV_DATA, conn, arrived.len() as u64, PyTuple::new(py, arrived)?)?
            }
            Event::Finished { conn, stream } => {
                let mut streams = vec![u64::from(stream)];
                while let Some(Event::Finished { stream, .. }) = events
                    .next_if(|next| matches!(next, Event::Finished { conn: other, .. } if *other == conn))
                {
                    streams.push(stream.into());
                }
                make(py, EV_FINISHED, conn, streams.len() as u64, PyTuple::new(py, streams)?)?
            }
            other => single(py, other)?,
        };
        list.append(tuple)?;
    }
    Ok(list.into_any())
}

/// `(stream, bytes, whether the stream ends with them)`.
fn arrival<'py>(
    py: Python<'py>,
    stream: StreamId,
    data: &Payload,
    fin: bool,
) -> PyResult<Bound<'py, PyTuple>> {
    (u64::from(stream), bytes(py, data)?, fin).into_pyobject(py)
}

fn make<'py>(
    py: Python<'py>,
    kind: u32,
    conn: u64,
    a: u64,
    b: impl IntoPyObject<'py>,
) -> PyResult<Bound<'py, PyTuple>> {
    (kind, conn, a, b).into_pyobject(py)
}

fn single<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Incoming { id, remote, local_ip, alpns, validated, may_retry } => {
            let alpns = PyTuple::new(py, alpns.iter().map(|alpn| PyBytes::new(py, alpn)))?;
            let details = (convert::address(remote), convert::ip(local_ip), alpns, validated, may_retry);
            make(py, EV_INCOMING, 0, id, details)
        }
        Event::Connected { conn, zero_rtt, peer, alpn } => {
            let peer = peer.map(|peer| PyBytes::new(py, &peer));
            make(py, EV_CONNECTED, conn, zero_rtt.into(), (peer, PyBytes::new(py, &alpn)))
        }
        Event::Confirmed { conn } => make(py, EV_CONFIRMED, conn, 0, py.None()),
        Event::Closed { conn, close: reason } => {
            let (cause, details) = close(py, reason)?;
            make(py, EV_CLOSED, conn, cause.into(), details)
        }
        Event::Drained { conn } => make(py, EV_DRAINED, conn, 0, py.None()),
        Event::StreamsOpened { conn, dir } => make(py, EV_STREAMS_OPENED, conn, dir as u64, py.None()),
        Event::StreamsAvailable { conn, dir } => make(py, EV_STREAMS_AVAILABLE, conn, dir as u64, py.None()),
        Event::Data { conn, stream, data, fin } => {
            make(py, EV_DATA, conn, 1, (arrival(py, stream, &data, fin)?,))
        }
        Event::StreamReset { conn, stream, code } => make(py, EV_RESET, conn, stream.into(), code),
        Event::Writable { conn, stream } => make(py, EV_WRITABLE, conn, stream.into(), py.None()),
        Event::Finished { conn, stream } => make(py, EV_FINISHED, conn, 1, (u64::from(stream),)),
        Event::Stopped { conn, stream, code } => make(py, EV_STOPPED, conn, stream.into(), code),
        Event::Transfer { conn, stream } => make(py, EV_TRANSFER, conn, stream.into(), py.None()),
        Event::Datagrams { conn } => make(py, EV_DATAGRAMS, conn, 0, py.None()),
        Event::DatagramsUnblocked { conn } => make(py, EV_DATAGRAMS_UNBLOCKED, conn, 0, py.None()),
        Event::PathEstablished { conn, path, remote, local_ip } => make(
            py,
            EV_PATH_ESTABLISHED,
            conn,
            path.into(),
            (convert::address(remote), convert::ip(local_ip)),
        ),
        Event::PathAbandoned { conn, path, reason, code } => {
            make(py, EV_PATH_ABANDONED, conn, path.into(), (reason, code))
        }
        Event::PathDiscarded { conn, path, stats } => {
            make(py, EV_PATH_DISCARDED, conn, path.into(), convert::path_stats(py, &stats)?)
        }
        Event::PathRemoteStatus { conn, path, status: new } => {
            make(py, EV_PATH_REMOTE_STATUS, conn, path.into(), status(new))
        }
        Event::PathSilent { conn, path, silent } => make(py, EV_PATH_SILENT, conn, path.into(), silent),
        Event::PathObserved { conn, path, address } => {
            make(py, EV_PATH_OBSERVED, conn, path.into(), convert::address(address))
        }
        Event::NatAddress { conn, added, address } => {
            make(py, EV_NAT_ADDRESS, conn, added.into(), convert::address(address))
        }
        Event::NatProbe { conn, address } => make(py, EV_NAT_PROBE, conn, 0, convert::address(address)),
        Event::Knock { slot, source, port } => {
            make(py, EV_KNOCK, 0, slot.into(), (convert::address(source), port))
        }
        Event::Output { slot } => make(py, EV_OUTPUT, 0, slot.into(), py.None()),
        Event::SocketError { slot, errno, destination } => {
            make(py, EV_SOCKET_ERROR, 0, slot.into(), (errno, convert::address(destination)))
        }
        Event::Failed { text } => make(py, EV_ENGINE_FAILED, 0, 0, text),
    }
}
