//! A file descriptor that becomes readable when there is something to collect.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// Level-triggered: readable from `raise` until `lower`.
pub struct Signal {
    reader: UnixStream,
    writer: UnixStream,
    raised: AtomicBool,
}

impl Signal {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer, raised: AtomicBool::new(false) })
    }

    pub fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    pub fn raise(&self) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            // At most a few bytes are ever in it, so it is never full.
            let _ = (&self.writer).write(&[0]);
        }
    }

    /// Call it before collecting, so that what comes meanwhile raises it again.
    pub fn lower(&self) {
        // Read first: a byte written after the flag is down but before the read would be taken away while the flag
        // says that it is there, and nothing would ever be written again.
        if self.raised.load(Ordering::SeqCst) {
            let _ = (&self.reader).read(&mut [0; 16]);
            self.raised.store(false, Ordering::SeqCst);
        }
    }
}
