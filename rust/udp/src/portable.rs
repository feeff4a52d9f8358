use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use crate::socket::UdpSlot;

/// Wakes the event loop from any thread, by a datagram to a loopback socket.
pub struct Signal(UdpSocket);

impl Signal {
    pub fn notify(&self) {
        if let Ok(address) = self.0.local_addr() {
            let _ = self.0.send_to(&[0], address);
        }
    }
}

/// Everything may be ready: reading tells.
pub(crate) struct Found;

impl Found {
    pub fn contains(&self, _fd: RawFd) -> bool {
        true
    }

    pub fn writable(&self, _fd: RawFd) -> bool {
        true
    }

    pub fn timer(&self) -> bool {
        false
    }
}

/// The caller watches the descriptors and keeps the time.
pub(crate) struct System(Arc<Signal>);

impl System {
    pub fn new() -> io::Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self(Arc::new(Signal(socket))))
    }

    pub fn fileno(&self) -> Option<i32> {
        None
    }

    pub fn signal_fd(&self) -> i32 {
        self.0.0.as_raw_fd()
    }

    pub fn signal(&self) -> Arc<Signal> {
        self.0.clone()
    }

    pub fn add(&self, _slot: &UdpSlot) -> io::Result<()> {
        Ok(())
    }

    pub fn remove(&self, _slot: &UdpSlot) {}

    pub fn watch(&self, _slot: &UdpSlot) {}

    pub fn poll(&self) -> Found {
        let mut scratch = [0; 16];
        while self.0.0.recv(&mut scratch).is_ok() {}
        Found
    }

    pub fn set_timer(&self, _after: Duration) {}
}
