//! How the calls of a connection reach its state: numbers checked, and what is over refused.

use std::sync::Arc;

use aioiroh_core::{
    Dir, PathStatus, StreamId, VarInt,
    connection::Slot,
    event::{ConnId, Event},
    streams::{Read, Write},
};
use pyo3::{
    exceptions::{PyBlockingIOError, PyValueError},
    prelude::*,
};

use super::{
    super::{ConnectionGone, convert::call_error, shared::Shared},
    Conn,
};

pub(super) fn direction(dir: u8) -> PyResult<Dir> {
    match dir {
        0 => Ok(Dir::Bi),
        1 => Ok(Dir::Uni),
        _ => Err(PyValueError::new_err("a direction is 0 (bidirectional) or 1 (unidirectional)")),
    }
}

pub(super) fn stream_id(id: u64) -> PyResult<StreamId> {
    let id = VarInt::from_u64(id).map_err(|_| PyValueError::new_err("no such stream"))?;
    Ok(StreamId::from(id))
}

pub(super) fn path_status(status: &str) -> PyResult<PathStatus> {
    match status {
        "available" => Ok(PathStatus::Available),
        "backup" => Ok(PathStatus::Backup),
        _ => Err(PyValueError::new_err("a path status is 'available' or 'backup'")),
    }
}

impl Conn {
    pub fn new(shared: Arc<Shared>, id: ConnId, client: bool) -> PyResult<Self> {
        shared.lock()?.core.hold(id);
        Ok(Self { shared, id, client })
    }

    /// Changes an open connection.
    pub(super) fn call<T>(&self, f: impl FnOnce(&mut Slot, &mut Vec<Event>) -> T) -> PyResult<T> {
        self.shared.lock()?.core.call(self.id, f).map_err(call_error)
    }

    /// Looks at a connection, also a closed one.
    pub(super) fn inspect<T>(&self, f: impl FnOnce(&mut Slot) -> T) -> PyResult<T> {
        self.shared.lock()?.core.inspect(self.id, f).map_err(call_error)
    }

    pub(super) fn sending<T>(
        &self,
        stream: u64,
        f: impl FnOnce(&mut Slot, StreamId) -> PyResult<T>,
    ) -> PyResult<T> {
        let stream = stream_id(stream)?;
        self.call(|slot, _| {
            if !slot.sends(stream) {
                return Err(PyValueError::new_err("a stream that only receives"));
            }
            f(slot, stream)
        })?
    }

    /// Reads from a connection, also when it is closed: what arrived before stays readable.
    pub(super) fn receiving<T>(
        &self,
        stream: u64,
        f: impl FnOnce(&mut Slot, StreamId) -> PyResult<T>,
    ) -> PyResult<T> {
        let stream = stream_id(stream)?;
        let checked = |slot: &mut Slot| {
            if !slot.receives(stream) {
                return Err(PyValueError::new_err("a stream that only sends"));
            }
            f(slot, stream)
        };
        self.shared.lock()?.core.receive_from(self.id, checked).map_err(call_error)?
    }

    /// Takes up to `max` bytes of a stream that the application reads itself.
    pub fn take(&self, stream: u64, max: usize) -> PyResult<Read> {
        self.receiving(stream, |slot, stream| {
            if slot.streams().has_sink(stream) {
                return Err(PyBlockingIOError::new_err("the stream has a native receiver"));
            }
            let read = slot.read(stream, max);
            if matches!(read, Read::Blocked) && slot.is_closed() {
                return Err(ConnectionGone::new_err(()));
            }
            Ok(read)
        })
    }

    /// Writes what fits into a stream that the application writes itself.
    pub fn write_some(&self, stream: u64, data: &[u8]) -> PyResult<Write> {
        self.sending(stream, |slot, stream| {
            if slot.streams().has_source(stream) {
                return Err(PyBlockingIOError::new_err("the stream has a native sender"));
            }
            Ok(slot.write(stream, data))
        })
    }
}
