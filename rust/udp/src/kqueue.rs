use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::Arc,
    time::Duration,
};

use crate::socket::UdpSlot;

const SIGNAL: libc::uintptr_t = 0;
const TIMER: libc::uintptr_t = 1;
const MAX_EVENTS: usize = 16;

fn change(ident: libc::uintptr_t, filter: i16, flags: u16) -> libc::kevent {
    libc::kevent { ident, filter, flags, fflags: 0, data: 0, udata: ptr::null_mut() }
}

/// Wakes the event loop from any thread.
pub struct Signal(OwnedFd);

impl Signal {
    pub fn notify(&self) {
        let trigger = libc::kevent { fflags: libc::NOTE_TRIGGER, ..change(SIGNAL, libc::EVFILT_USER, 0) };
        let _ = self.apply(trigger);
    }

    fn apply(&self, change: libc::kevent) -> io::Result<()> {
        // SAFETY: `change` lives through the call, and no events are asked for.
        let done = unsafe { libc::kevent(self.0.as_raw_fd(), &change, 1, ptr::null_mut(), 0, ptr::null()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// What [`System::poll`] found.
pub(crate) struct Found {
    events: [libc::kevent; MAX_EVENTS],
    count: usize,
}

impl Found {
    fn any(&self, wanted: impl Fn(&libc::kevent) -> bool) -> bool {
        self.events[..self.count].iter().any(wanted)
    }

    pub fn contains(&self, fd: RawFd) -> bool {
        self.any(|event| {
            event.ident == fd as libc::uintptr_t
                && matches!(event.filter, libc::EVFILT_READ | libc::EVFILT_WRITE)
        })
    }

    pub fn writable(&self, fd: RawFd) -> bool {
        self.any(|event| event.ident == fd as libc::uintptr_t && event.filter == libc::EVFILT_WRITE)
    }

    pub fn timer(&self) -> bool {
        self.any(|event| event.filter == libc::EVFILT_TIMER)
    }
}

/// A kqueue, which is itself a descriptor that can be watched.
pub(crate) struct System {
    /// The queue belongs to whoever may signal it, too.
    queue: Arc<Signal>,
}

impl System {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system calls; the descriptor that the first one gives is ours.
        let queue = unsafe {
            let fd = libc::kqueue();
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            OwnedFd::from_raw_fd(fd)
        };
        let queue = Arc::new(Signal(queue));
        queue.apply(change(SIGNAL, libc::EVFILT_USER, libc::EV_ADD | libc::EV_CLEAR))?;
        Ok(Self { queue })
    }

    pub fn fileno(&self) -> Option<i32> {
        Some(self.signal_fd())
    }

    pub fn signal_fd(&self) -> i32 {
        self.queue.0.as_raw_fd()
    }

    pub fn signal(&self) -> Arc<Signal> {
        self.queue.clone()
    }

    pub fn add(&self, slot: &UdpSlot) -> io::Result<()> {
        self.queue.apply(change(slot.fd() as libc::uintptr_t, libc::EVFILT_READ, libc::EV_ADD))
    }

    pub fn remove(&self, slot: &UdpSlot) {
        for filter in [libc::EVFILT_READ, libc::EVFILT_WRITE] {
            // It may not be there.
            let _ = self.queue.apply(change(slot.fd() as libc::uintptr_t, filter, libc::EV_DELETE));
        }
    }

    pub fn watch(&self, slot: &UdpSlot) {
        let flags = if slot.watches_writing { libc::EV_ADD } else { libc::EV_DELETE };
        let _ = self.queue.apply(change(slot.fd() as libc::uintptr_t, libc::EVFILT_WRITE, flags));
    }

    pub fn poll(&self) -> Found {
        let mut found = Found { events: [change(0, 0, 0); MAX_EVENTS], count: 0 };
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the array has room for as many events as are asked for.
        let count = unsafe {
            let queue = self.queue.0.as_raw_fd();
            libc::kevent(queue, ptr::null(), 0, found.events.as_mut_ptr(), MAX_EVENTS as i32, &at_once)
        };
        found.count = usize::try_from(count).unwrap_or(0);
        found
    }

    pub fn set_timer(&self, after: Duration) {
        let timer = libc::kevent {
            // Critical: not put together with other timers, which may come milliseconds later.
            fflags: libc::NOTE_NSECONDS | libc::NOTE_CRITICAL,
            data: after.as_nanos().try_into().unwrap_or(isize::MAX),
            ..change(TIMER, libc::EVFILT_TIMER, libc::EV_ADD | libc::EV_ONESHOT)
        };
        let _ = self.queue.apply(timer);
    }
}
