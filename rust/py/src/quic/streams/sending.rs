//! The sending half of a stream.

use aioiroh_core::streams::Write;
use parking_lot::Mutex;
use pyo3::{
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::PyBytes,
};

use super::{
    Links, Streams,
    operation::{Operation, Task},
};
use crate::turn::Waiter;

const OPEN: u8 = 0;
const FINISHED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;

#[derive(Default)]
struct Progress {
    phase: u8,
    stop_code: Option<u64>,
    /// A write that waits.
    blocked: Option<Py<Waiter>>,
    /// A native sender writes.
    attached: bool,
    written: u64,
}

/// See the stub file.
#[pyclass(frozen, subclass, module = "aioiroh._native")]
pub struct SendHalf {
    links: Links,
    progress: Mutex<Progress>,
}

impl SendHalf {
    /// Whether nothing stands against sending. Python says what it is.
    fn is_clear(&self, py: Python<'_>) -> bool {
        let progress = self.progress.lock();
        progress.phase == OPEN
            && progress.blocked.is_none()
            && !progress.attached
            && progress.stop_code.is_none()
            && self.links.in_thread()
            && !self.links.rejected()
            && !self.links.streams.get().is_lost()
            && self.links.streams.get().stop_codes.bind(py).is_empty()
    }

    /// Writes what can be written at once. For the rest, and for whatever stands against it, there is a
    /// coroutine.
    pub fn write(this: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let py = this.py();
        let half = this.get();
        let mut done = 0;
        if half.is_clear(py)
            && let Ok(bytes) = data.cast_exact::<PyBytes>()
            && let Ok(Write::Accepted(accepted)) =
                half.links.conn().write_some(half.links.id, bytes.as_bytes())
        {
            done = accepted;
            half.progress.lock().written += accepted as u64;
            if accepted > 0 {
                half.links.touch(py)?;
            }
            if accepted == bytes.as_bytes().len() {
                return Ok(None);
            }
        }
        Ok(Some(this.call_method1(intern!(py, "_write"), (data, done))?.unbind()))
    }

    /// The same for the end of the stream.
    pub fn finish(this: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        if Self::finish_at_once(this)? {
            return Ok(None);
        }
        Ok(Some(this.call_method0(intern!(this.py(), "_finish"))?.unbind()))
    }
}

impl SendHalf {
    pub fn acknowledged(&self) {
        self.progress.lock().phase = ACKNOWLEDGED;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        let progress = self.progress.get_mut();
        if progress.phase == OPEN && !progress.attached {
            self.links.dropped("sending");
        }
    }
}

#[pymethods]
impl SendHalf {
    #[new]
    fn new(connection: Bound<'_, PyAny>, stream: u64) -> PyResult<Self> {
        Ok(Self { links: Links::new(connection, stream)?, progress: Mutex::default() })
    }

    #[getter]
    fn id(&self) -> u64 {
        self.links.id
    }

    #[getter]
    fn connection(&self, py: Python<'_>) -> Py<PyAny> {
        self.links.connection.clone_ref(py)
    }

    #[getter]
    fn bytes_written(&self) -> u64 {
        self.progress.lock().written
    }

    #[setter]
    fn set_bytes_written(&self, written: u64) {
        self.progress.lock().written = written;
    }

    fn writing(this: Py<Self>, data: Py<PyAny>) -> Operation {
        Operation::new("SendStream.write", Task::Write(this, data))
    }

    fn finishing(this: Py<Self>) -> Operation {
        Operation::new("SendStream.finish", Task::Finish(this))
    }

    fn finish_at_once(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        let half = this.get();
        if !half.is_clear(py) || half.links.conn().finish(half.links.id).is_err() {
            return Ok(false);
        }
        half.progress.lock().phase = FINISHED;
        half.links.streams.get().sending.bind(py).set_item(half.links.id, this)?;
        half.links.touch(py)?;
        Ok(true)
    }

    #[getter]
    fn _state(&self, py: Python<'_>) -> Py<Streams> {
        self.links.streams.clone_ref(py)
    }

    #[getter]
    fn _native(&self, py: Python<'_>) -> Py<PyAny> {
        self.links.native(py)
    }

    #[setter(_native)]
    fn set_native(&self, instead: Py<PyAny>) {
        self.links.set_native(instead);
    }

    #[getter]
    fn _phase(&self) -> u8 {
        self.progress.lock().phase
    }

    #[setter(_phase)]
    fn set_phase(&self, phase: u8) {
        self.progress.lock().phase = phase;
    }

    #[getter]
    fn _stop_code(&self) -> Option<u64> {
        self.progress.lock().stop_code
    }

    #[setter(_stop_code)]
    fn set_stop_code(&self, code: Option<u64>) {
        self.progress.lock().stop_code = code;
    }

    #[getter]
    fn _blocked(&self, py: Python<'_>) -> Option<Py<Waiter>> {
        self.progress.lock().blocked.as_ref().map(|waiter| waiter.clone_ref(py))
    }

    #[setter(_blocked)]
    fn set_blocked(&self, waiter: Option<Py<Waiter>>) {
        let before = std::mem::replace(&mut self.progress.lock().blocked, waiter);
        drop(before);
    }

    #[getter]
    fn _attached(&self) -> bool {
        self.progress.lock().attached
    }

    #[setter(_attached)]
    fn set_attached(&self, attached: bool) {
        self.progress.lock().attached = attached;
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.links.traverse(&visit)?;
        match self.progress.try_lock() {
            Some(progress) => visit.call(&progress.blocked),
            None => Ok(()),
        }
    }
}
