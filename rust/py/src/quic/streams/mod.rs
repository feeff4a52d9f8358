//! The fast way through a stream, for what finds nothing in its way.
//!
//! `Streams` is what the streams of a connection share, `SendHalf` and `RecvHalf` are their ends, an
//! `Operation` is what a task awaits. Classes of Python extend them: they have everything that is rare, and
//! whatever cannot go on here asks them why.

mod operation;
mod receiving;
mod sending;

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::{
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::conn::Conn;
use crate::turn::Turns;
use receiving::RecvHalf;
use sending::SendHalf;

/// What the streams of one connection share.
#[pyclass(frozen, subclass, module = "aioiroh._native")]
pub struct Streams {
    conn: Py<Conn>,
    turns: Py<Turns>,
    handshaking: AtomicBool,
    /// Why the connection is over.
    lost: Mutex<Option<Py<PyAny>>>,
    /// Who waits for bytes.
    reading: Py<PyDict>,
    /// Who is finished and not acknowledged, or watched.
    sending: Py<PyDict>,
    /// Who waits for what becomes of the end of a stream.
    watching: Py<PyDict>,
    /// With which code the peer has stopped streams that nobody waits on.
    stop_codes: Py<PyDict>,
}

impl Streams {
    fn is_lost(&self) -> bool {
        self.lost.lock().is_some()
    }

    /// WrongLoopError, or EndpointFailedError in a forked child.
    fn misused<T>(this: &Bound<'_, Self>) -> PyResult<T> {
        let py = this.py();
        this.getattr(intern!(py, "driver"))?.call_method0(intern!(py, "misused"))?;
        unreachable!("`misused` raises")
    }

    fn touch(this: &Bound<'_, Self>) -> PyResult<()> {
        if this.get().turns.get().touch(this.py())? { Ok(()) } else { Self::misused(this) }
    }
}

/// What both halves of a stream hold on to.
struct Links {
    /// As long as somebody holds a stream its connection is not closed.
    connection: Py<PyAny>,
    streams: Py<Streams>,
    id: u64,
    /// In place of the connection, after its early data were rejected.
    instead: Mutex<Option<Py<PyAny>>>,
}

impl Links {
    fn new(connection: Bound<'_, PyAny>, id: u64) -> PyResult<Self> {
        let streams = connection.getattr(intern!(connection.py(), "state"))?.cast_into::<Streams>()?;
        Ok(Self { connection: connection.unbind(), streams: streams.unbind(), id, instead: Mutex::new(None) })
    }

    fn conn(&self) -> &Conn {
        self.streams.get().conn.get()
    }

    fn in_thread(&self) -> bool {
        self.streams.get().turns.get().in_thread()
    }

    fn rejected(&self) -> bool {
        self.instead.lock().is_some()
    }

    fn touch(&self, py: Python<'_>) -> PyResult<()> {
        Streams::touch(self.streams.bind(py))
    }

    fn native(&self, py: Python<'_>) -> Py<PyAny> {
        match &*self.instead.lock() {
            Some(instead) => instead.clone_ref(py),
            None => self.streams.get().conn.clone_ref(py).into_any(),
        }
    }

    fn set_native(&self, instead: Py<PyAny>) {
        let before = self.instead.lock().replace(instead);
        drop(before);
    }

    /// Nobody holds a half any more that is not at its end.
    fn dropped(&self, kind: &str) {
        if self.streams.get().is_lost() || self.rejected() {
            return;
        }
        operation::apart(|py| {
            let streams = self.streams.bind(py);
            streams.call_method1(intern!(py, "dropped"), (kind, self.id)).map(drop)
        });
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.connection)?;
        visit.call(&self.streams)
    }
}

#[pymethods]
impl Streams {
    #[new]
    fn new(py: Python<'_>, native: Py<Conn>, turns: Py<Turns>) -> Self {
        let table = || PyDict::new(py).unbind();
        Self {
            conn: native,
            turns,
            handshaking: AtomicBool::new(true),
            lost: Mutex::new(None),
            reading: table(),
            sending: table(),
            watching: table(),
            stop_codes: table(),
        }
    }

    #[getter]
    fn native(&self, py: Python<'_>) -> Py<Conn> {
        self.conn.clone_ref(py)
    }

    #[getter]
    fn handshaking(&self) -> bool {
        self.handshaking.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_handshaking(&self, handshaking: bool) {
        self.handshaking.store(handshaking, Ordering::Relaxed);
    }

    #[getter]
    fn lost(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lost.lock().as_ref().map(|lost| lost.clone_ref(py))
    }

    #[setter]
    fn set_lost(&self, lost: Py<PyAny>) {
        let before = self.lost.lock().replace(lost);
        drop(before);
    }

    #[getter]
    fn reading(&self, py: Python<'_>) -> Py<PyDict> {
        self.reading.clone_ref(py)
    }

    #[getter]
    fn sending(&self, py: Python<'_>) -> Py<PyDict> {
        self.sending.clone_ref(py)
    }

    #[getter]
    fn watching(&self, py: Python<'_>) -> Py<PyDict> {
        self.watching.clone_ref(py)
    }

    #[getter]
    fn stop_codes(&self, py: Python<'_>) -> Py<PyDict> {
        self.stop_codes.clone_ref(py)
    }

    /// Gives those who wait what has come: `(stream, data, whether the stream ends with them)`.
    fn deliver(&self, py: Python<'_>, count: usize, arrived: &Bound<'_, PyTuple>) -> PyResult<()> {
        debug_assert_eq!(count, arrived.len());
        let reading = self.reading.bind(py);
        for one in arrived.iter_borrowed() {
            let (stream, data, ended) = one.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, bool)>()?;
            if let Some(reader) = reading.get_item(&stream)? {
                reading.del_item(stream)?;
                RecvHalf::arrived(reader.cast::<RecvHalf>()?, data, ended)?;
            }
        }
        Ok(())
    }

    /// The peer has everything of these streams.
    fn acknowledge(&self, py: Python<'_>, streams: &Bound<'_, PyTuple>) -> PyResult<()> {
        let (sending, stop_codes) = (self.sending.bind(py), self.stop_codes.bind(py));
        let watched = !self.watching.bind(py).is_empty();
        for stream in streams.iter_borrowed() {
            if !stop_codes.is_empty() && stop_codes.contains(stream)? {
                stop_codes.del_item(stream)?;
            }
            let Some(half) = sending.get_item(stream)? else { continue };
            sending.del_item(stream)?;
            if let Ok(half) = half.cast::<SendHalf>() {
                half.get().acknowledged();
                if watched {
                    half.call_method0(intern!(py, "settle"))?;
                }
            }
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.conn)?;
        visit.call(&self.turns)?;
        if let Some(lost) = self.lost.try_lock() {
            visit.call(&*lost)?;
        }
        visit.call(&self.reading)?;
        visit.call(&self.sending)?;
        visit.call(&self.watching)?;
        visit.call(&self.stop_codes)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Streams>()?;
    module.add_class::<SendHalf>()?;
    module.add_class::<RecvHalf>()?;
    module.add_class::<operation::Operation>()
}
