//! What a stream's methods give: a coroutine that is done at once if it can be.

use std::ffi::CString;

use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration},
    ffi,
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::{PyIterator, PySendResult},
};

use super::{receiving::Reading, sending::SendHalf};

pub enum Task {
    Write(Py<SendHalf>, Py<PyAny>),
    Finish(Py<SendHalf>),
    Read(Reading),
}

enum Progress {
    /// Nobody has awaited it yet.
    Fresh(Task),
    Reading(Reading),
    /// Python goes on with it.
    Coroutine(Py<PyAny>),
    Over,
}

/// See the stub file.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Operation {
    name: &'static str,
    progress: Mutex<Progress>,
}

enum Step<'py> {
    Waits(Bound<'py, PyAny>),
    Done(Bound<'py, PyAny>),
}

impl Operation {
    /// `name`: the method that gives it.
    pub fn new(name: &'static str, task: Task) -> Self {
        Self { name, progress: Mutex::new(Progress::Fresh(task)) }
    }

    fn take(&self) -> Progress {
        std::mem::replace(&mut *self.progress.lock(), Progress::Over)
    }

    fn step<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        match self.take() {
            Progress::Fresh(Task::Write(half, data)) => {
                let rest = SendHalf::write(half.bind(py), data.bind(py))?;
                self.rest(py, rest)
            }
            Progress::Fresh(Task::Finish(half)) => {
                let rest = SendHalf::finish(half.bind(py))?;
                self.rest(py, rest)
            }
            Progress::Fresh(Task::Read(reading)) | Progress::Reading(reading) => self.read(py, reading),
            Progress::Coroutine(coroutine) => self.resume(coroutine.into_bound(py), value),
            Progress::Over => Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }

    /// Goes on with what a native call has left for Python.
    fn rest<'py>(&self, py: Python<'py>, rest: Option<Py<PyAny>>) -> PyResult<Step<'py>> {
        let none = py.None().into_bound(py);
        match rest {
            None => Ok(Step::Done(none)),
            Some(coroutine) => self.resume(coroutine.into_bound(py), &none),
        }
    }

    fn read<'py>(&self, py: Python<'py>, mut reading: Reading) -> PyResult<Step<'py>> {
        if let Some(value) = reading.go_on(py)? {
            return Ok(Step::Done(value.into_bound(py)));
        }
        let waiter = reading.waiter().expect("it waits").clone_ref(py);
        *self.progress.lock() = Progress::Reading(reading);
        Ok(Step::Waits(waiter.into_bound(py).into_any()))
    }

    fn resume<'py>(&self, coroutine: Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        // SAFETY: sending needs no more than what every coroutine has.
        let sent = unsafe { coroutine.cast_unchecked::<PyIterator>() }.send(value)?;
        Ok(match sent {
            PySendResult::Next(future) => {
                *self.progress.lock() = Progress::Coroutine(coroutine.unbind());
                Step::Waits(future)
            }
            PySendResult::Return(value) => Step::Done(value),
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        match self.take() {
            Progress::Fresh(_) => apart(|py| {
                let text = CString::new(format!("coroutine '{}' was never awaited", self.name))?;
                PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
            }),
            Progress::Reading(mut reading) => apart(|py| reading.give_back(py)),
            Progress::Coroutine(_) | Progress::Over => {}
        }
    }
}

/// Does what a destructor has to do with Python: at any moment, also while an exception is on its way.
pub fn apart(work: impl FnOnce(Python<'_>) -> PyResult<()>) {
    Python::attach(|py| {
        let under_way = PyErr::take(py);
        if let Err(error) = work(py) {
            error.write_unraisable(py, None);
        }
        if let Some(error) = under_way {
            error.restore(py);
        }
    });
}

#[pymethods]
impl Operation {
    /// What a task that runs it is called.
    #[getter]
    fn __qualname__(&self) -> &'static str {
        self.name
    }

    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.step(py, py.None().bind(py))? {
            Step::Waits(future) => Ok(Some(future)),
            Step::Done(value) if value.is_none() => Ok(None),
            Step::Done(value) => {
                // Returned as an error it would become an exception first, of which `await` takes the value out.
                // What streams give is neither an exception nor a tuple, which would be taken for its arguments.
                // SAFETY: both are objects that live, and no iterator is left without a reason: None ends it.
                unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
                Ok(None)
            }
        }
    }

    #[pyo3(signature = (value, /))]
    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.step(py, &value)? {
            Step::Waits(future) => Ok(future),
            Step::Done(value) => Err(PyStopIteration::new_err(value.unbind())),
        }
    }

    #[pyo3(signature = (kind, value = None, traceback = None, /))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        #[allow(unused)] traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let error = PyErr::from_value(value.unwrap_or(kind));
        match self.take() {
            Progress::Coroutine(coroutine) => {
                let future =
                    coroutine.bind(py).call_method1(intern!(py, "throw"), (error.into_value(py),))?;
                *self.progress.lock() = Progress::Coroutine(coroutine);
                return Ok(future);
            }
            Progress::Reading(mut reading) => reading.give_back(py)?,
            Progress::Fresh(_) | Progress::Over => {}
        }
        Err(error)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.take() {
            Progress::Coroutine(coroutine) => coroutine.call_method0(py, intern!(py, "close")).map(drop),
            Progress::Reading(mut reading) => reading.give_back(py),
            Progress::Fresh(_) | Progress::Over => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.progress.try_lock().as_deref() {
            Some(Progress::Fresh(Task::Write(half, data))) => {
                visit.call(half)?;
                visit.call(data)
            }
            Some(Progress::Fresh(Task::Finish(half))) => visit.call(half),
            Some(Progress::Fresh(Task::Read(reading)) | Progress::Reading(reading)) => {
                reading.traverse(&visit)
            }
            Some(Progress::Coroutine(coroutine)) => visit.call(coroutine),
            Some(Progress::Over) | None => Ok(()),
        }
    }
}
