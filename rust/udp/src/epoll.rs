use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use crate::socket::UdpSlot;

/// Wakes the event loop from any thread.
pub struct Signal(OwnedFd);

impl Signal {
    pub fn notify(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from a local array to a descriptor we own. A full counter is as good.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), 8) };
    }
}

/// What [`System::poll`] found.
pub(crate) struct Found {
    events: [libc::epoll_event; 16],
    count: usize,
    timer: bool,
}

impl Found {
    pub fn contains(&self, fd: RawFd) -> bool {
        self.events[..self.count].iter().any(|event| event.u64 == fd as u64)
    }

    pub fn writable(&self, fd: RawFd) -> bool {
        self.events[..self.count]
            .iter()
            .any(|event| event.u64 == fd as u64 && event.events & libc::EPOLLOUT as u32 != 0)
    }

    pub fn timer(&self) -> bool {
        self.timer
    }
}

/// An epoll instance, a timer and a counter.
pub(crate) struct System {
    epoll: OwnedFd,
    timer: OwnedFd,
    signal: Arc<Signal>,
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system call just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl System {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system calls without pointers.
        let (epoll, timer, event) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))?,
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
            )
        };
        let system = Self { epoll, timer, signal: Arc::new(Signal(event)) };
        system.control(libc::EPOLL_CTL_ADD, system.timer.as_raw_fd(), libc::EPOLLIN as u32)?;
        system.control(libc::EPOLL_CTL_ADD, system.signal.0.as_raw_fd(), libc::EPOLLIN as u32)?;
        Ok(system)
    }

    fn control(&self, operation: i32, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: `event` lives through the call.
        if unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub fn fileno(&self) -> Option<i32> {
        Some(self.epoll.as_raw_fd())
    }

    pub fn signal_fd(&self) -> i32 {
        self.signal.0.as_raw_fd()
    }

    pub fn signal(&self) -> Arc<Signal> {
        self.signal.clone()
    }

    pub fn add(&self, slot: &UdpSlot) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, slot.fd(), libc::EPOLLIN as u32)
    }

    pub fn remove(&self, slot: &UdpSlot) {
        let _ = self.control(libc::EPOLL_CTL_DEL, slot.fd(), 0);
    }

    pub fn watch(&self, slot: &UdpSlot) {
        let writing = if slot.watches_writing { libc::EPOLLOUT as u32 } else { 0 };
        let _ = self.control(libc::EPOLL_CTL_MOD, slot.fd(), libc::EPOLLIN as u32 | writing);
    }

    pub fn poll(&self) -> Found {
        let mut found =
            Found { events: [libc::epoll_event { events: 0, u64: 0 }; 16], count: 0, timer: false };
        // SAFETY: the array has room for the 16 events asked for.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), found.events.as_mut_ptr(), 16, 0) };
        found.count = count.max(0) as usize;
        found.timer = found.contains(self.timer.as_raw_fd());
        let mut scratch = [0u8; 8];
        for fd in [self.timer.as_raw_fd(), self.signal.0.as_raw_fd()] {
            if found.contains(fd) {
                // SAFETY: reads at most 8 bytes into a local array.
                unsafe { libc::read(fd, scratch.as_mut_ptr().cast(), 8) };
            }
        }
        found
    }

    pub fn set_timer(&self, after: Duration) {
        // Zero would disarm the timer.
        let after = after.max(Duration::from_nanos(1));
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: after.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        // SAFETY: `value` lives through the call; no old value is asked for.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &value, std::ptr::null_mut()) };
    }
}
