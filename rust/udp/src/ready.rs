//! Readiness: one descriptor that is readable when a socket, a timer or a wake-up from another thread is.
//!
//! Linux has an inner epoll instance, Apple's systems a kqueue. Elsewhere there is none: the caller watches
//! the sockets and keeps the time itself.

#[cfg(target_os = "linux")]
#[path = "epoll.rs"]
mod system;
#[cfg(target_vendor = "apple")]
#[path = "kqueue.rs"]
mod system;
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
#[path = "portable.rs"]
mod system;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::socket::UdpSlot;
pub use system::Signal;
use system::{Found, System};

/// What an engine waits for, and when it must be woken at the latest.
pub(crate) struct Ready {
    system: System,
    armed: Option<Instant>,
}

impl Ready {
    pub fn new() -> io::Result<Self> {
        Ok(Self { system: System::new()?, armed: None })
    }

    /// What the caller watches; none where there is no such descriptor.
    pub fn fileno(&self) -> Option<i32> {
        self.system.fileno()
    }

    /// What a caller that watches every socket itself must watch beside them.
    pub fn signal_fd(&self) -> i32 {
        self.system.signal_fd()
    }

    pub fn signal(&self) -> Arc<Signal> {
        self.system.signal()
    }

    pub fn add(&self, slot: &UdpSlot) -> io::Result<()> {
        self.system.add(slot)
    }

    pub fn remove(&self, slot: &UdpSlot) {
        self.system.remove(slot);
    }

    /// Looks again at whether the slot waits to be writable.
    pub fn watch(&self, slot: &UdpSlot) {
        self.system.watch(slot);
    }

    pub fn poll(&mut self) -> Found {
        let found = self.system.poll();
        if found.timer() {
            self.armed = None;
        }
        found
    }

    /// Wakes at the deadline. A timer that fires too early finds nothing due, which is cheaper than
    /// setting it anew for each packet.
    pub fn arm(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        self.armed = Some(deadline);
        self.system.set_timer(deadline.saturating_duration_since(now));
    }

    pub fn arm_now(&mut self) {
        let now = Instant::now();
        // It has fired already, and stays readable until it is looked at.
        if self.armed.is_some_and(|armed| armed <= now) {
            return;
        }
        self.armed = Some(now);
        self.system.set_timer(Duration::ZERO);
    }
}
