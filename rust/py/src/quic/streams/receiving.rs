//! The receiving half of a stream, and what it means to read from it.

use aioiroh_core::streams::Read;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyValueError,
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::PyBytes,
};

use super::{
    super::{NativeError, StreamGone, StreamReset, events},
    Links, Streams,
    operation::{Operation, Task},
};
use crate::turn::Waiter;

const LARGEST_READ: i64 = 1 << 20;

#[derive(Default)]
struct Progress {
    /// What a cancelled read has left for the next one.
    parked: Vec<u8>,
    waiter: Option<Py<Waiter>>,
    /// A native receiver reads.
    attached: bool,
    stopped: bool,
    ended: bool,
    reset_code: Option<u64>,
}

/// See the stub file.
#[pyclass(frozen, subclass, module = "aioiroh._native")]
pub struct RecvHalf {
    links: Links,
    is_early: bool,
    progress: Mutex<Progress>,
}

impl RecvHalf {
    /// What a read of `n` bytes gets without waiting.
    fn take<'py>(this: &Bound<'py, Self>, n: i64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let py = this.py();
        let half = this.get();
        {
            let mut progress = half.progress.lock();
            if progress.waiter.is_some() || progress.attached || !half.links.in_thread() {
                drop(progress);
                this.call_method0(intern!(py, "_refuse"))?;
                unreachable!("`_refuse` raises");
            }
            if progress.ended && progress.parked.is_empty() {
                return Ok(Some(PyBytes::new(py, b"")));
            }
            if n < 1 {
                return Err(PyValueError::new_err(
                    "read at least 1 byte; use read_all(limit=...) to read to the end",
                ));
            }
            if !progress.parked.is_empty() {
                let count = progress.parked.len().min(n as usize);
                let rest = progress.parked.split_off(count);
                let data = std::mem::replace(&mut progress.parked, rest);
                return Ok(Some(PyBytes::new(py, &data)));
            }
        }
        if half.links.rejected() {
            return Err(raised(this.call_method0(intern!(py, "_reason"))));
        }
        match half.links.conn().take(half.links.id, n as usize) {
            Ok(Read::Data(data)) => {
                half.links.touch(py)?;
                events::bytes(py, &data).map(Some)
            }
            Ok(Read::Blocked) => Ok(None),
            Ok(Read::End) => {
                half.progress.lock().ended = true;
                Ok(Some(PyBytes::new(py, b"")))
            }
            Ok(Read::Reset(code)) => Err(Self::failure(this, StreamReset::new_err((code,)))),
            Ok(Read::Gone) => Err(Self::failure(this, StreamGone::new_err(()))),
            Err(error) if error.is_instance_of::<NativeError>(py) => Err(Self::failure(this, error)),
            Err(error) => Err(error),
        }
    }

    fn failure(this: &Bound<'_, Self>, error: PyErr) -> PyErr {
        let py = this.py();
        raised(this.call_method1(intern!(py, "_failure"), (error.into_value(py),)))
    }

    /// Somebody waits for the answer to a native read that found nothing.
    fn wait(this: &Bound<'_, Self>) -> PyResult<Py<Waiter>> {
        let py = this.py();
        let half = this.get();
        let streams = half.links.streams.bind(py);
        if streams.get().is_lost() {
            return Err(raised(streams.call_method0(intern!(py, "failure"))));
        }
        let turns = &streams.get().turns;
        if !turns.get().at_home(py)? {
            return Streams::misused(streams);
        }
        let waiter = Py::new(py, Waiter::new(turns.clone_ref(py)))?;
        half.progress.lock().waiter = Some(waiter.clone_ref(py));
        streams.get().reading.bind(py).set_item(half.links.id, this)?;
        Ok(waiter)
    }

    /// What the waiter got.
    fn answer<'py>(this: &Bound<'py, Self>, waiter: &Py<Waiter>) -> PyResult<Bound<'py, PyBytes>> {
        let py = this.py();
        this.get().forget_waiter();
        match waiter.get().value(py)?.bind(py).cast::<PyBytes>() {
            Ok(data) => Ok(data.clone()),
            Err(_) => Err(raised(this.call_method0(intern!(py, "_reason")))),
        }
    }

    fn forget_waiter(&self) {
        let waiter = self.progress.lock().waiter.take();
        drop(waiter);
    }

    /// The reader was cancelled: keeps what it did not see, or else takes the demand back.
    fn withdraw(this: &Bound<'_, Self>, waiter: &Py<Waiter>) -> PyResult<()> {
        let py = this.py();
        let half = this.get();
        half.forget_waiter();
        let reading = half.links.streams.get().reading.bind(py);
        if waiter.get().done() && !waiter.get().cancelled() {
            if let Ok(data) = waiter.get().value(py)?.bind(py).cast::<PyBytes>() {
                half.park(data.as_bytes());
            }
        } else if reading.get_item(half.links.id)?.is_some_and(|reader| reader.is(this)) {
            reading.del_item(half.links.id)?;
            // Where it fails nothing can come any more.
            let _ = half.links.conn().cancel_read(half.links.id);
        }
        Ok(())
    }

    /// Puts bytes before those that are parked.
    fn park(&self, data: &[u8]) {
        self.progress.lock().parked.splice(0..0, data.iter().copied());
    }

    pub fn arrived(this: &Bound<'_, Self>, data: Bound<'_, PyAny>, ended: bool) -> PyResult<()> {
        if ended {
            this.get().progress.lock().ended = true;
        }
        Self::wake(this, data)
    }
}

/// The exception that Python gave, or the one that it raised.
fn raised(answer: PyResult<Bound<'_, PyAny>>) -> PyErr {
    answer.map_or_else(|error| error, PyErr::from_value)
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        let progress = self.progress.get_mut();
        if !(progress.ended || progress.stopped || progress.attached || progress.reset_code.is_some()) {
            self.links.dropped("receiving");
        }
    }
}

enum Want {
    Some(i64),
    Exactly { wanted: i64, missing: i64 },
    All { limit: i64, room: i64 },
}

/// A read under way.
pub struct Reading {
    half: Py<RecvHalf>,
    want: Want,
    parts: Vec<Py<PyBytes>>,
    waiter: Option<Py<Waiter>>,
}

impl Reading {
    fn operation(name: &'static str, half: Py<RecvHalf>, want: Want) -> Operation {
        Operation::new(name, Task::Read(Self { half, want, parts: Vec::new(), waiter: None }))
    }

    /// What was wanted; None while `waiter` is waited for.
    pub fn go_on(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let result = self.advance(py);
        if result.is_err() {
            self.give_back(py)?;
        }
        result
    }

    fn advance(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let half = self.half.clone_ref(py).into_bound(py);
        loop {
            let data = if let Some(waiter) = &self.waiter {
                if Waiter::__next__(waiter.bind(py))?.is_some() {
                    return Ok(None);
                }
                let waiter = self.waiter.take().expect("it was there");
                RecvHalf::answer(&half, &waiter)?
            } else {
                let size = match self.want {
                    Want::Some(n) => n,
                    Want::Exactly { missing, .. } if missing < 1 => return self.joined(py),
                    Want::Exactly { missing, .. } => missing,
                    Want::All { room, .. } => room.saturating_add(1).min(LARGEST_READ),
                };
                match RecvHalf::take(&half, size)? {
                    Some(data) => data,
                    None => {
                        self.waiter = Some(RecvHalf::wait(&half)?);
                        continue;
                    }
                }
            };
            let count = data.as_bytes().len() as i64;
            match &mut self.want {
                Want::Some(_) => return Ok(Some(data.into_any().unbind())),
                &mut Want::Exactly { wanted, .. } if count == 0 => {
                    let came = self.joined(py)?;
                    self.parts.clear();
                    return Err(raised(half.call_method1(intern!(py, "_incomplete"), (came, wanted))));
                }
                Want::Exactly { missing, .. } => *missing -= count,
                Want::All { .. } if count == 0 => return self.joined(py),
                Want::All { limit, room } => {
                    *room -= count;
                    if *room < 0 {
                        self.parts.clear();
                        return Err(raised(half.call_method1(intern!(py, "_too_long"), (*limit,))));
                    }
                }
            }
            self.parts.push(data.unbind());
        }
    }

    /// What has come, as one object.
    fn joined(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.parts.len() == 1 {
            return Ok(self.parts.pop().map(Py::into_any));
        }
        let pieces: Vec<&[u8]> = self.parts.iter().map(|part| part.as_bytes(py)).collect();
        let joined = PyBytes::new(py, &pieces.concat()).into_any().unbind();
        self.parts.clear();
        Ok(Some(joined))
    }

    /// The end of a read that got an exception: what had come is for the next one.
    pub fn give_back(&mut self, py: Python<'_>) -> PyResult<()> {
        let half = self.half.bind(py);
        if let Some(waiter) = self.waiter.take() {
            RecvHalf::withdraw(half, &waiter)?;
        }
        while let Some(part) = self.parts.pop() {
            half.get().park(part.as_bytes(py));
        }
        Ok(())
    }

    pub fn waiter(&self) -> Option<&Py<Waiter>> {
        self.waiter.as_ref()
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.half)?;
        visit.call(&self.waiter)
    }
}

#[pymethods]
impl RecvHalf {
    #[new]
    fn new(connection: Bound<'_, PyAny>, stream: u64) -> PyResult<Self> {
        let links = Links::new(connection, stream)?;
        let is_early = links.streams.get().handshaking();
        Ok(Self { links, is_early, progress: Mutex::default() })
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
    fn is_early(&self) -> bool {
        self.is_early
    }

    fn reading(this: Py<Self>, n: i64) -> Operation {
        Reading::operation("RecvStream.read", this, Want::Some(n))
    }

    fn reading_exactly(this: Py<Self>, n: i64) -> Operation {
        Reading::operation("RecvStream.read_exactly", this, Want::Exactly { wanted: n, missing: n })
    }

    fn reading_all(this: Py<Self>, limit: i64) -> Operation {
        Reading::operation("RecvStream.read_all", this, Want::All { limit, room: limit })
    }

    /// What a waiting read gets; None: it failed, and finds out why.
    fn wake(this: &Bound<'_, Self>, data: Bound<'_, PyAny>) -> PyResult<()> {
        let half = this.get();
        let waiter = half.progress.lock().waiter.as_ref().map(|waiter| waiter.clone_ref(this.py()));
        let taken = match waiter {
            Some(waiter) => Waiter::complete(waiter.bind(this.py()), data.clone().unbind())?,
            None => false,
        };
        if !taken && let Ok(data) = data.cast::<PyBytes>() {
            // The reader was cancelled and has not run since.
            half.progress.lock().parked.extend_from_slice(data.as_bytes());
        }
        Ok(())
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
    fn ended(&self) -> bool {
        self.progress.lock().ended
    }

    #[setter]
    fn set_ended(&self, ended: bool) {
        self.progress.lock().ended = ended;
    }

    #[getter]
    fn reset_code(&self) -> Option<u64> {
        self.progress.lock().reset_code
    }

    #[setter]
    fn set_reset_code(&self, code: Option<u64>) {
        self.progress.lock().reset_code = code;
    }

    #[getter]
    fn _stopped(&self) -> bool {
        self.progress.lock().stopped
    }

    #[setter(_stopped)]
    fn set_stopped(&self, stopped: bool) {
        self.progress.lock().stopped = stopped;
    }

    #[getter]
    fn _attached(&self) -> bool {
        self.progress.lock().attached
    }

    #[setter(_attached)]
    fn set_attached(&self, attached: bool) {
        self.progress.lock().attached = attached;
    }

    #[getter]
    fn _parked<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.progress.lock().parked)
    }

    #[setter(_parked)]
    fn set_parked(&self, parked: &[u8]) {
        self.progress.lock().parked = parked.to_vec();
    }

    #[getter]
    fn _waiter(&self, py: Python<'_>) -> Option<Py<Waiter>> {
        self.progress.lock().waiter.as_ref().map(|waiter| waiter.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.links.traverse(&visit)?;
        match self.progress.try_lock() {
            Some(progress) => visit.call(&progress.waiter),
            None => Ok(()),
        }
    }
}
