//! What an engine and its connections share: the state behind a lock, the clock, and whose process it is.

use std::{
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aioiroh_core::{
    engine::Engine as Core,
    event::{ConnId, Event},
    route::{Outgoing, Output, Sent, SlotId},
};
use aioiroh_udp::Sockets;
use parking_lot::{Mutex, MutexGuard};
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};

use super::EngineDead;

/// No sockets: only virtual slots send.
struct NoSockets;

impl Output for NoSockets {
    fn send(&mut self, _slot: SlotId, _outgoing: &Outgoing<'_>) -> Sent {
        Sent::Lost(libc_enotsock())
    }

    fn exhausted(&mut self) -> bool {
        false
    }
}

const fn libc_enotsock() -> i32 {
    88
}

/// Durations of steps, in classes of powers of two of a microsecond.
#[derive(Default)]
pub struct Histogram(pub [u64; 24]);

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let class = (64 - micros.leading_zeros() as usize).min(self.0.len() - 1);
        self.0[class] += 1;
    }
}

pub struct State {
    pub core: Core,
    pub sockets: Option<Sockets>,
    pub steps: Histogram,
}

/// The engine and what its connections share.
pub struct Shared {
    state: Mutex<State>,
    /// Connections whose objects went away while the engine was locked.
    released: Mutex<Vec<ConnId>>,
    clock: Option<Py<PyAny>>,
    base: Instant,
    generation: u32,
}

/// How often this process is a child of one that had the module loaded. Asking the system for the
/// process id costs more than most calls.
static FORKS: AtomicU32 = AtomicU32::new(0);

fn count_forks() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the handler only adds to a counter, and this module is never unloaded.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}

impl Shared {
    pub fn new(core: Core, sockets: Option<Sockets>, clock: Option<Py<PyAny>>) -> Self {
        count_forks();
        Self {
            released: Mutex::new(Vec::new()),
            state: Mutex::new(State { core, sockets, steps: Histogram::default() }),
            clock,
            // A margin, so that simulated clocks may start at zero and the library may look back.
            base: Instant::now() + Duration::from_secs(3600),
            generation: FORKS.load(Ordering::Relaxed),
        }
    }

    fn is_forked(&self) -> bool {
        self.generation != FORKS.load(Ordering::Relaxed)
    }

    pub fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        if self.is_forked() {
            return Err(EngineDead::new_err((
                "this endpoint belongs to the parent process; make a new one after fork",
            )));
        }
        Ok(self.state.lock())
    }

    /// Nobody holds this connection any more. Called by destructors, which may run at any moment,
    /// also while this thread holds the lock.
    pub fn release(&self, conn: ConnId) {
        if self.is_forked() {
            return;
        }
        match self.state.try_lock() {
            Some(mut state) => state.core.release(conn),
            None => self.released.lock().push(conn),
        }
    }

    pub fn step(&self, now: Instant) -> PyResult<Vec<Event>> {
        let mut state = self.lock()?;
        self.forget_released(&mut state);
        Ok(state.step(now))
    }

    pub fn flush(&self, now: Instant) -> PyResult<Vec<Event>> {
        let mut state = self.lock()?;
        self.forget_released(&mut state);
        Ok(state.flush(now))
    }

    /// Closes sockets and descriptors; in a child, too, which has copies of them.
    pub fn shutdown(&self) {
        let sockets = self.state.lock().sockets.take();
        drop(sockets);
    }

    fn forget_released(&self, state: &mut State) {
        let released = std::mem::take(&mut *self.released.lock());
        for conn in released {
            state.core.release(conn);
        }
    }

    pub fn now(&self, py: Python<'_>, given: Option<f64>) -> PyResult<Instant> {
        let seconds = match (given, &self.clock) {
            (Some(seconds), Some(_)) => seconds,
            (None, Some(clock)) => clock.call0(py)?.extract(py)?,
            (_, None) => return Ok(Instant::now()),
        };
        Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|offset| self.base.checked_add(offset))
            .ok_or_else(|| PyValueError::new_err("the clock must show a positive number of seconds"))
    }
}

impl State {
    pub fn with_output<T>(&mut self, f: impl FnOnce(&mut Core, &mut dyn Output) -> T) -> T {
        match &mut self.sockets {
            Some(sockets) => f(&mut self.core, sockets),
            None => f(&mut self.core, &mut NoSockets),
        }
    }

    pub fn sockets(&mut self) -> PyResult<(&mut Core, &mut Sockets)> {
        match &mut self.sockets {
            Some(sockets) => Ok((&mut self.core, sockets)),
            None => Err(PyRuntimeError::new_err("the engine has no sockets (virtual time, or shut down)")),
        }
    }

    fn step(&mut self, now: Instant) -> Vec<Event> {
        let start = Instant::now();
        match &mut self.sockets {
            Some(sockets) => sockets.step(&mut self.core, now),
            None => {
                self.core.collect_wakes();
                self.core.expire(now);
                self.core.gather(now, &mut NoSockets);
                if !self.core.has_events() {
                    self.core.pump(now, &mut NoSockets);
                }
            }
        }
        self.steps.add(start.elapsed());
        self.core.take_events()
    }

    fn flush(&mut self, now: Instant) -> Vec<Event> {
        match &mut self.sockets {
            Some(sockets) => sockets.pump(&mut self.core, now),
            None => {
                self.core.collect_wakes();
                self.core.pump(now, &mut NoSockets);
            }
        }
        self.core.take_events()
    }
}
