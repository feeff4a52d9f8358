//! Files that are opened when they are needed and closed when they are not.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Opens a regular file for reading.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK the open of a FIFO would hang the worker.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// A file by path: open while someone uses it, so that thousands of blobs do not need as many descriptors.
pub struct FileSlot {
    path: PathBuf,
    writable: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Weak<File>,
    // Held for random reads by the application, until it closes the blob.
    kept: Option<Arc<File>>,
    // A writable file was created by us; opening it again must not empty it.
    created: bool,
}

impl FileSlot {
    /// A file to read.
    pub fn existing(path: PathBuf) -> Self {
        Self { path, writable: false, state: Mutex::default() }
    }

    /// A file to write, created or emptied at first use.
    pub fn new(path: PathBuf) -> Self {
        Self { path, writable: true, state: Mutex::default() }
    }

    pub fn open(&self) -> io::Result<Arc<File>> {
        let mut state = self.state.lock();
        if let Some(file) = state.open.upgrade() {
            return Ok(file);
        }
        let file = if self.writable {
            let mut options = OpenOptions::new();
            // Once made it is never made again: by now it may have been moved to where it belongs.
            options.read(true).write(true).create(!state.created).truncate(!state.created);
            options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.path)?
        } else {
            open_regular(&self.path)?
        };
        state.created = true;
        let file = Arc::new(file);
        state.open = Arc::downgrade(&file);
        Ok(file)
    }

    /// Opens it and keeps it open until [`close`](Self::close).
    pub fn open_and_keep(&self) -> io::Result<Arc<File>> {
        let file = self.open()?;
        self.state.lock().kept = Some(file.clone());
        Ok(file)
    }

    pub fn close(&self) {
        self.state.lock().kept = None;
    }

    /// Makes what was written durable; nothing if it was never opened for writing.
    pub fn sync(&self) -> io::Result<()> {
        if self.writable && self.state.lock().created { self.open()?.sync_all() } else { Ok(()) }
    }
}
