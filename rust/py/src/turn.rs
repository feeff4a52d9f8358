//! Futures whose tasks go on within a turn of their driver, instead of in the loop's next iteration.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ThreadId},
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyRuntimeError,
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
};

/// Whether a turn is under way, who goes on at its end, and whether something waits to be sent.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Turns {
    event_loop: Py<PyAny>,
    call_soon: Py<PyAny>,
    running_loop: Py<PyAny>,
    flush: Py<PyAny>,
    thread: ThreadId,
    active: AtomicBool,
    scheduled: AtomicBool,
    next: Mutex<VecDeque<Next>>,
}

enum Next {
    Waiter(Py<Waiter>),
    Call(Py<PyAny>),
}

impl Turns {
    /// Looking at the thread is cheaper than looking at its loop, which is done before waiting and before
    /// anything is sent.
    pub fn in_thread(&self) -> bool {
        thread::current().id() == self.thread
    }
}

#[pymethods]
impl Turns {
    #[new]
    fn new(event_loop: Bound<'_, PyAny>, flush: Py<PyAny>) -> PyResult<Self> {
        let asyncio = event_loop.py().import("asyncio")?;
        Ok(Self {
            call_soon: event_loop.getattr("call_soon")?.unbind(),
            event_loop: event_loop.unbind(),
            running_loop: asyncio.getattr("_get_running_loop")?.unbind(),
            flush,
            thread: thread::current().id(),
            active: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            next: Mutex::new(VecDeque::new()),
        })
    }

    #[getter]
    fn active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    #[getter]
    fn scheduled(&self) -> bool {
        self.scheduled.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_scheduled(&self, scheduled: bool) {
        self.scheduled.store(scheduled, Ordering::Relaxed);
    }

    #[getter]
    fn pending(&self) -> bool {
        !self.next.lock().is_empty()
    }

    /// Whether the caller is inside a turn, or runs in the loop.
    pub fn at_home(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(if self.active() { self.in_thread() } else { self.running_loop.call0(py)?.is(&self.event_loop) })
    }

    /// Has what was asked of the engine flushed, at the end of this turn or soon. False: not at home.
    pub fn touch(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.scheduled() {
            if !self.at_home(py)? {
                return Ok(false);
            }
            self.set_scheduled(true);
            if !self.active() {
                self.call_soon.call1(py, (&self.flush,))?;
            }
        }
        Ok(true)
    }

    fn call(&self, function: Bound<'_, PyAny>) -> PyResult<()> {
        if self.active() {
            self.next.lock().push_back(Next::Call(function.unbind()));
        } else {
            self.call_soon.call1(function.py(), (function,))?;
        }
        Ok(())
    }

    /// At most `limit` of those who go on; whether there are more.
    fn proceed(&self, py: Python<'_>, limit: usize) -> PyResult<bool> {
        for _ in 0..limit {
            let next = self.next.lock().pop_front();
            match next {
                Some(Next::Waiter(waiter)) => Waiter::resume(waiter.bind(py))?,
                Some(Next::Call(function)) => drop(function.call0(py)?),
                None => return Ok(false),
            }
        }
        Ok(self.pending())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.call_soon)?;
        visit.call(&self.flush)?;
        for next in self.next.try_lock().iter().flat_map(|next| next.iter()) {
            match next {
                Next::Waiter(waiter) => visit.call(waiter)?,
                Next::Call(function) => visit.call(function)?,
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        // Dropped without the lock: what a destructor does may want it.
        let next = std::mem::take(&mut *self.next.lock());
        drop(next);
    }
}

enum Progress {
    Pending,
    Done(Py<PyAny>),
    Cancelled(Option<Py<PyAny>>),
}

struct Wait {
    progress: Progress,
    blocking: bool,
    /// How the waiting task is told, and the context in which it runs.
    task: Option<(Py<PyAny>, Py<PyAny>)>,
}

/// Something that one task waits for; what it gets is `value`.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Waiter {
    turns: Py<Turns>,
    wait: Mutex<Wait>,
}

impl Waiter {
    fn resume(this: &Bound<'_, Self>) -> PyResult<()> {
        let task = this.get().wait.lock().task.take();
        if let Some((wakeup, context)) = task {
            context.call_method1(this.py(), intern!(this.py(), "run"), (wakeup, this))?;
        }
        Ok(())
    }

    fn cancelled_error(py: Python<'_>, message: Option<&Py<PyAny>>) -> PyErr {
        let error = py
            .import(intern!(py, "asyncio"))
            .and_then(|asyncio| asyncio.getattr(intern!(py, "CancelledError")))
            .and_then(|class| match message {
                Some(message) => class.call1((message,)),
                None => class.call0(),
            });
        error.map_or_else(|error| error, PyErr::from_value)
    }
}

#[pymethods]
impl Waiter {
    #[new]
    pub fn new(turns: Py<Turns>) -> Self {
        let wait = Wait { progress: Progress::Pending, blocking: false, task: None };
        Self { turns, wait: Mutex::new(wait) }
    }

    /// Sets the value. False: there is one, or the task was cancelled.
    pub fn complete(this: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<bool> {
        let waits = {
            let mut wait = this.get().wait.lock();
            if !matches!(wait.progress, Progress::Pending) {
                return Ok(false);
            }
            wait.progress = Progress::Done(value);
            wait.task.is_some()
        };
        if waits {
            let turns = this.get().turns.get();
            if turns.active() {
                turns.next.lock().push_back(Next::Waiter(this.clone().unbind()));
            } else {
                turns.call_soon.call1(this.py(), (this.getattr(intern!(this.py(), "_resume"))?,))?;
            }
        }
        Ok(true)
    }

    #[getter]
    pub fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.wait.lock().progress {
            Progress::Done(value) => Ok(value.clone_ref(py)),
            Progress::Pending => Err(PyRuntimeError::new_err("nobody has completed it yet")),
            Progress::Cancelled(message) => Err(Self::cancelled_error(py, message.as_ref())),
        }
    }

    // ---- what tasks of asyncio ask of a future

    pub fn done(&self) -> bool {
        !matches!(self.wait.lock().progress, Progress::Pending)
    }

    pub fn cancelled(&self) -> bool {
        matches!(self.wait.lock().progress, Progress::Cancelled(_))
    }

    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.value(py)
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.turns.get().event_loop.clone_ref(py)
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> bool {
        self.wait.lock().blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) {
        self.wait.lock().blocking = blocking;
    }

    #[pyo3(signature = (callback, *, context))]
    fn add_done_callback(&self, callback: Py<PyAny>, context: Py<PyAny>) -> PyResult<()> {
        let mut wait = self.wait.lock();
        if wait.task.is_some() || !matches!(wait.progress, Progress::Pending) {
            return Err(PyRuntimeError::new_err("only one task can wait, before it is done"));
        }
        wait.task = Some((callback, context));
        Ok(())
    }

    /// How a waiting task is cancelled: it goes on in the loop's next iteration.
    #[pyo3(signature = (msg = None))]
    fn cancel(this: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        {
            let mut wait = this.get().wait.lock();
            if !matches!(wait.progress, Progress::Pending) {
                return Ok(false);
            }
            wait.progress = Progress::Cancelled(msg);
        }
        let resume = this.getattr(intern!(this.py(), "_resume"))?;
        this.get().turns.get().call_soon.call1(this.py(), (resume,))?;
        Ok(true)
    }

    fn _resume(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::resume(this)
    }

    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    pub fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        let mut wait = this.get().wait.lock();
        match &wait.progress {
            Progress::Pending => {
                if wait.task.is_some() {
                    return Err(PyRuntimeError::new_err("another task waits for it already"));
                }
                wait.blocking = true;
                Ok(Some(this.clone()))
            }
            Progress::Done(_) => Ok(None),
            Progress::Cancelled(message) => Err(Self::cancelled_error(this.py(), message.as_ref())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.turns)?;
        if let Some(wait) = self.wait.try_lock() {
            if let Some((wakeup, context)) = &wait.task {
                visit.call(wakeup)?;
                visit.call(context)?;
            }
            if let Progress::Done(value) | Progress::Cancelled(Some(value)) = &wait.progress {
                visit.call(value)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let task = self.wait.lock().task.take();
        drop(task);
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Turns>()?;
    module.add_class::<Waiter>()
}
