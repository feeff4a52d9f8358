//! Opening a stream.

use pyo3::{
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
};

use super::{
    Streams,
    operation::{Operation, Task},
};

/// See the stub file.
#[pyclass(frozen, generic, subclass, module = "aioiroh._native")]
pub struct Opening {
    connection: Py<PyAny>,
    streams: Py<Streams>,
    direction: u8,
    make: Py<PyAny>,
}

impl Opening {
    /// The stream, if it can be opened at once; else a coroutine that gives it.
    pub fn open(this: &Bound<'_, Self>) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
        let py = this.py();
        let opening = this.get();
        let streams = opening.streams.get();
        if streams.turns.get().in_thread()
            && !streams.is_lost()
            && !streams.handshaking()
            && let Ok(Some(stream)) = streams.conn.get().open(opening.direction)
        {
            return Ok(Ok(opening.make.call1(py, (&opening.connection, stream))?));
        }
        Ok(Err(this.call_method0(intern!(py, "_open"))?.unbind()))
    }
}

#[pymethods]
impl Opening {
    #[new]
    fn new(connection: Bound<'_, PyAny>, direction: u8, make: Py<PyAny>) -> PyResult<Self> {
        let streams = connection.getattr(intern!(connection.py(), "state"))?.cast_into::<Streams>()?;
        Ok(Self { connection: connection.unbind(), streams: streams.unbind(), direction, make })
    }

    #[getter]
    fn _connection(&self, py: Python<'_>) -> Py<PyAny> {
        self.connection.clone_ref(py)
    }

    #[getter]
    fn _direction(&self) -> u8 {
        self.direction
    }

    #[getter]
    fn _make(&self, py: Python<'_>) -> Py<PyAny> {
        self.make.clone_ref(py)
    }

    fn __await__(this: Py<Self>) -> Operation {
        Operation::new("Connection.open", Task::Open(this))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.connection)?;
        visit.call(&self.streams)
    }
}
