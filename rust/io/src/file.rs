//! Files that know their path, and files that are opened when they are needed and closed when they are not.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::journal::{self, OpKind};

/// A failure and the file that it is about.
#[derive(Debug)]
pub struct PathError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for PathError {}

fn about(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    |source| io::Error::new(source.kind(), PathError { path: path.to_owned(), source })
}

fn shorter() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file is shorter than what it should hold; it was changed",
    )
}

/// An open file. Its errors name it, and the journal has what is done to it.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    /// A regular file, for reading.
    pub fn read(path: &Path) -> io::Result<Self> {
        let fail = about(path);
        // Without O_NONBLOCK the open of a FIFO would hang the worker.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(&fail)?;
        let metadata = file.metadata().map_err(&fail)?;
        if metadata.is_dir() {
            return Err(fail(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        if !metadata.is_file() {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// A file for reading and writing.
    pub fn write(path: &Path, begin: Begin) -> io::Result<Self> {
        // Before it may be made.
        let was_there = journal::is_kept() && path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(begin != Begin::Existing).truncate(begin == Begin::Empty);
        let file =
            options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(about(path))?;
        if begin != Begin::Existing && !was_there {
            journal::note(OpKind::Create, path, 0, &[]);
        } else if begin == Begin::Empty {
            journal::note(OpKind::Truncate, path, 0, &[]);
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// A file or directory, only to make it durable.
    pub fn sync_path(path: &Path) -> io::Result<()> {
        let file = File::open(path).map_err(about(path))?;
        Self { file, path: path.to_owned() }.sync()
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata().map_err(about(&self.path))
    }

    /// Fills the buffer, or fails with `UnexpectedEof`.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.too_short(),
            _ => about(&self.path)(error),
        })
    }

    /// As much as one call brings.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset).map_err(about(&self.path))
    }

    /// The error of a file that ends too early.
    pub fn too_short(&self) -> io::Error {
        about(&self.path)(shorter())
    }

    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset).map_err(about(&self.path))?;
        journal::note(OpKind::Write, &self.path, offset, data);
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all().map_err(about(&self.path))?;
        journal::note(OpKind::Sync, &self.path, 0, &[]);
        Ok(())
    }

    /// Lets this empty file share all blocks of another; false if the file system cannot.
    pub fn clone_from(&self, from: &Self) -> io::Result<bool> {
        if !share_blocks(&from.file, &self.file) {
            return Ok(false);
        }
        self.note_written(0, self.metadata()?.len())?;
        Ok(true)
    }

    /// Copies up to `most` bytes from where the other file is at, in the kernel or by sharing blocks, to here where this
    /// file is at, which is `offset`. Bytes copied; 0 at the end.
    pub fn append_from(&mut self, from: &mut Self, offset: u64, most: usize) -> io::Result<u64> {
        // It is not said which of the two files failed; mostly it is the disk that is full.
        let copied =
            io::copy(&mut (&from.file).take(most as u64), &mut &self.file).map_err(about(&self.path))?;
        self.note_written(offset, copied)?;
        Ok(copied)
    }

    /// For the journal, of bytes that did not come through our hands.
    fn note_written(&self, offset: u64, len: u64) -> io::Result<()> {
        if journal::is_kept() && len > 0 {
            let mut data = vec![0; len as usize];
            self.read_exact_at(&mut data, offset)?;
            journal::note(OpKind::Write, &self.path, offset, &data);
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn share_blocks(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn share_blocks(_from: &File, _to: &File) -> bool {
    false
}

/// What happens to a file when it is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It is there and stays as it is.
    Existing,
    /// It is made if it is not there.
    Missing,
    /// It is made or emptied.
    Empty,
}

/// A file by path: open while someone uses it, so that thousands of blobs do not need as many descriptors.
pub struct FileSlot {
    path: PathBuf,
    writable: bool,
    // A file that was there has at least so many bytes.
    least: u64,
    state: Mutex<State>,
}

struct State {
    open: Weak<OpenFile>,
    // Held for random reads by the application, until it closes the blob.
    kept: Option<Arc<OpenFile>>,
    // What opening it for writing does; only once, for by then the file may have been moved to where it belongs.
    begin: Begin,
    used: bool,
}

impl FileSlot {
    /// A file of at least `least` bytes, to read.
    pub fn existing(path: PathBuf, least: u64) -> Self {
        Self::with(path, false, Begin::Existing, least)
    }

    /// A file to write, and what the first use does to it; if that is nothing it has at least `least` bytes.
    pub fn writable(path: PathBuf, begin: Begin, least: u64) -> Self {
        Self::with(path, true, begin, least)
    }

    fn with(path: PathBuf, writable: bool, begin: Begin, least: u64) -> Self {
        let state = State { open: Weak::new(), kept: None, begin, used: false };
        Self { path, writable, least, state: Mutex::new(state) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self) -> io::Result<Arc<OpenFile>> {
        let mut state = self.state.lock();
        if let Some(file) = state.open.upgrade() {
            return Ok(file);
        }
        let file = if self.writable {
            OpenFile::write(&self.path, state.begin)?
        } else {
            OpenFile::read(&self.path)?
        };
        if file.metadata()?.len() < self.least {
            return Err(file.too_short());
        }
        state.begin = Begin::Existing;
        state.used = true;
        let file = Arc::new(file);
        state.open = Arc::downgrade(&file);
        Ok(file)
    }

    /// Opens it and keeps it open until [`close`](Self::close).
    pub fn open_and_keep(&self) -> io::Result<Arc<OpenFile>> {
        let file = self.open()?;
        self.state.lock().kept = Some(file.clone());
        Ok(file)
    }

    pub fn close(&self) {
        self.state.lock().kept = None;
    }

    /// Makes what was written durable; nothing if it was never opened for writing.
    pub fn sync(&self) -> io::Result<()> {
        let used = self.writable && self.state.lock().used;
        if used { self.open()?.sync() } else { Ok(()) }
    }
}
