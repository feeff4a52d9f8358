//! The disk worker and what it tells.

use std::os::fd::RawFd;
use std::path::PathBuf;

use aioiroh_io::{Event, Job, JobEvent, describe};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::stored::{Blob, outboard_at};
use super::{hash32, os_args, os_error, ranges};

/// The disk worker.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Worker(pub(super) aioiroh_io::Worker);

#[pymethods]
impl Worker {
    #[new]
    #[pyo3(signature = (*, inline=false, journal=false))]
    fn new(inline: bool, journal: bool) -> PyResult<Self> {
        let worker = match (inline, journal) {
            (_, false) => aioiroh_io::Worker::new(inline),
            (true, true) => aioiroh_io::Worker::with_journal(),
            (false, true) => return Err(PyValueError::new_err("only an inline worker keeps a journal")),
        };
        worker.map(Self).map_err(|error| os_error(&error))
    }

    fn journal<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ops = self.0.journal().ok_or_else(|| {
            PyValueError::new_err("this worker keeps no journal; make one with journal=True")
        })?;
        let ops = ops.iter().map(|op| {
            let (kind, path) = (op.kind.name(), op.path.as_os_str());
            (kind, path, op.offset, PyBytes::new(py, &op.data)).into_pyobject(py)
        });
        PyList::new(py, ops.collect::<PyResult<Vec<_>>>()?)
    }

    fn fileno(&self) -> RawFd {
        self.0.fd()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.0.poll().into_iter().map(|event| worker_event(py, event));
        PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)
    }

    #[pyo3(signature = (path, outboard_path=None))]
    fn hash_file(&self, path: PathBuf, outboard_path: Option<PathBuf>) -> PyResult<u64> {
        self.start(Job::HashFile { path, outboard: outboard_path })
    }

    fn hash_files(&self, paths: Vec<PathBuf>) -> PyResult<u64> {
        self.start(Job::HashFiles { paths })
    }

    #[pyo3(signature = (source, target, outboard_path=None))]
    fn import_file(&self, source: PathBuf, target: PathBuf, outboard_path: Option<PathBuf>) -> PyResult<u64> {
        self.start(Job::ImportFile { from: source, to: target, outboard: outboard_path })
    }

    fn validate(
        &self,
        hash: &[u8],
        data_path: PathBuf,
        outboard: &Bound<'_, PyAny>,
        size: u64,
        trusted: Vec<u64>,
    ) -> PyResult<u64> {
        let (hash, outboard, trusted) = (hash32(hash)?, outboard_at(outboard)?, ranges(trusted)?);
        self.start(Job::Validate { hash, data: data_path, outboard, size, trusted })
    }

    fn write_blobs(&self, blobs: Vec<(Bound<'_, Blob>, PathBuf)>) -> PyResult<u64> {
        let blobs = blobs.into_iter().map(|(blob, path)| (blob.get().0.clone(), path)).collect();
        self.start(Job::WriteBlobs { blobs })
    }

    fn sync_files(&self, paths: Vec<PathBuf>) -> PyResult<u64> {
        self.start(Job::SyncFiles { paths })
    }

    fn cancel(&self, job: u64) {
        self.0.cancel(job);
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

impl Worker {
    fn start(&self, job: Job) -> PyResult<u64> {
        self.0.start(job).map_err(|error| os_error(&error))
    }
}

fn worker_event(py: Python<'_>, event: Event) -> PyResult<Py<PyTuple>> {
    let bytes = |data: &[u8]| PyBytes::new(py, data);
    let (id, kind, value) = match event {
        Event::Transfer(id) => (id, "transfer", py.None()),
        Event::Job(id, event) => {
            let (kind, value) = match event {
                JobEvent::Progress(done) => ("progress", done.into_py_any(py)?),
                JobEvent::File { index, hash, size, outboard } => {
                    ("file", (index, bytes(&hash), size, bytes(&outboard)).into_py_any(py)?)
                }
                JobEvent::FileError { index, error } => {
                    let (errno, text, _) = describe(&error);
                    ("file_error", (index, errno, text).into_py_any(py)?)
                }
                JobEvent::Hashed { hash, size, outboard } => {
                    ("done", (bytes(&hash), size, outboard.as_deref().map(bytes)).into_py_any(py)?)
                }
                JobEvent::Validated { present } => {
                    ("done", PyTuple::new(py, present.boundaries())?.into_py_any(py)?)
                }
                JobEvent::Written { size } => ("done", size.into_py_any(py)?),
                JobEvent::Done => ("done", py.None()),
                JobEvent::Error(error) => ("error", os_args(&error).into_py_any(py)?),
            };
            (id, kind, value)
        }
    };
    Ok((id, kind, value).into_pyobject(py)?.unbind())
}
