//! Blobs, transfers and the disk worker as Python classes.

mod hashing;
mod stored;
mod transfer;
mod worker;

use std::ffi::OsString;

use aioiroh_bao::ChunkRanges;
use aioiroh_io::describe;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

pub use transfer::{BlobReceiver, BlobSender};

/// Work on more bytes than this is worth giving the interpreter lock away and taking it back.
const LONG: usize = 2 * 1024 * 1024;

fn hash32(hash: &[u8]) -> PyResult<[u8; 32]> {
    hash.try_into().map_err(|_| PyValueError::new_err(format!("a hash must be 32 bytes, not {}", hash.len())))
}

fn ranges(boundaries: Vec<u64>) -> PyResult<ChunkRanges> {
    ChunkRanges::from_boundaries(boundaries)
        .ok_or_else(|| PyValueError::new_err("the boundaries of a set of chunks must increase strictly"))
}

/// The arguments of OSError: errno, text, file name.
fn os_args(error: &std::io::Error) -> (i32, String, Option<OsString>) {
    let (errno, text, path) = describe(error);
    (errno, text, path.map(Into::into))
}

fn os_error(error: &std::io::Error) -> PyErr {
    PyOSError::new_err(os_args(error))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    hashing::register(module)?;
    module.add_class::<stored::Blob>()?;
    module.add_class::<worker::Worker>()?;
    module.add_class::<BlobReceiver>()?;
    module.add_class::<BlobSender>()
}
