//! The native ends of streams, and what they report.

use std::ffi::OsString;

use aioiroh_core::stream::{StreamSink, StreamSource};
use aioiroh_io::{Detail, Item, Receiver, Report, Sender};
use bytes::Bytes;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::stored::Blob;
use super::worker::Worker;
use super::{hash32, os_error, ranges};
use crate::identity::contents;

fn reports(py: Python<'_>, reports: Vec<Report>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    let mut reports = reports.into_iter().peekable();
    while let Some(report) = reports.next() {
        let tuple = match report {
            Report::Whole { item, data } => {
                let blobs = PyList::new(py, [PyBytes::new(py, &data)])?;
                while let Some(Report::Whole { data, .. }) =
                    reports.next_if(|next| matches!(next, Report::Whole { .. }))
                {
                    blobs.append(PyBytes::new(py, &data))?;
                }
                ("whole", item, blobs).into_pyobject(py)?
            }
            Report::Wanted { item, size } => ("wanted", item, size).into_pyobject(py)?,
            Report::Started { item, size } => ("started", item, size).into_pyobject(py)?,
            Report::Size { item, size } => ("size", item, size).into_pyobject(py)?,
            Report::Progress { item, bytes } => ("progress", item, bytes).into_pyobject(py)?,
            Report::Done { item } => ("done", item).into_pyobject(py)?,
            Report::Error { item, kind, detail } => {
                let detail = match detail {
                    Detail::None => py.None(),
                    Detail::Code(code) => code.into_py_any(py)?,
                    Detail::Chunks { lo, hi } => (lo, hi).into_py_any(py)?,
                    Detail::Size { claimed, other } => (claimed, other).into_py_any(py)?,
                    Detail::Os { errno, text, path } => {
                        (errno, text, path.map(OsString::from)).into_py_any(py)?
                    }
                };
                ("error", item, kind, detail).into_pyobject(py)?
            }
            Report::End { trailing } => ("end", trailing).into_pyobject(py)?,
        };
        list.append(tuple)?;
    }
    Ok(list)
}

fn attached_twice(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "this {what} was attached to a stream before; make a new one for each stream"
    ))
}

/// The native end of a receive stream.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct BlobReceiver(Receiver);

#[pymethods]
impl BlobReceiver {
    #[new]
    #[pyo3(signature = (worker, *, max_size, max_total=None, stop_code=0))]
    fn new(
        worker: &Bound<'_, Worker>,
        max_size: u64,
        max_total: Option<u64>,
        stop_code: u64,
    ) -> PyResult<Self> {
        let receiver = Receiver::new(&worker.get().0, max_size, max_total, stop_code);
        receiver.map(Self).map_err(|error| os_error(&error))
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn expect(&self, items: Vec<(Bound<'_, PyBytes>, Vec<u64>, Bound<'_, Blob>)>) -> PyResult<()> {
        let mut expected = Vec::with_capacity(items.len());
        for (hash, boundaries, blob) in items {
            let blob = blob.get().0.clone();
            if hash.as_bytes() != blob.hash() {
                return Err(PyValueError::new_err("the hash of an item is not that of its blob"));
            }
            expected.push(Item::Part { query: ranges(boundaries)?, blob });
        }
        self.0.expect(expected).map_err(|_| {
            PyValueError::new_err("a blob that was opened or made from bytes cannot be received into")
        })
    }

    fn expect_whole(&self, hashes: Vec<Bound<'_, PyBytes>>) -> PyResult<()> {
        let items = hashes.iter().map(|hash| hash32(hash.as_bytes()).map(Item::Whole));
        // Those need nothing to be written to.
        let _ = self.0.expect(items.collect::<PyResult<_>>()?);
        Ok(())
    }

    fn provide(&self, blob: &Bound<'_, Blob>) -> PyResult<()> {
        self.0.provide(blob.get().0.clone()).map_err(|_| {
            PyValueError::new_err("this is not the blob that the receiver wants, or not to be written")
        })
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn allow(&self, bytes: u64) -> u64 {
        self.0.allow(bytes)
    }

    #[getter]
    fn received(&self) -> u64 {
        self.0.received()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reports(py, self.0.poll())
    }
}

impl BlobReceiver {
    /// The end to attach to a stream, once.
    pub fn sink(&self) -> PyResult<Box<dyn StreamSink>> {
        self.0.sink().ok_or_else(|| attached_twice("receiver"))
    }
}

/// The native end of a send stream.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct BlobSender(Sender);

#[pymethods]
impl BlobSender {
    #[new]
    fn new(worker: &Bound<'_, Worker>) -> PyResult<Self> {
        Sender::new(&worker.get().0).map(Self).map_err(|error| os_error(&error))
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn push(&self, items: Vec<(Bound<'_, Blob>, Vec<u64>)>) -> PyResult<()> {
        let items = items
            .into_iter()
            .map(|(blob, boundaries)| Ok((blob.get().0.clone(), ranges(boundaries)?)))
            .collect::<PyResult<Vec<_>>>()?;
        for (blob, query) in items {
            self.0.push(blob, query);
        }
        Ok(())
    }

    fn raw(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.raw(Bytes::from(contents(data)?.into_owned()));
        Ok(())
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn reset(&self, code: u64) {
        self.0.reset(code);
    }

    fn allow(&self, bytes: u64) -> u64 {
        self.0.allow(bytes)
    }

    #[getter]
    fn sent(&self) -> u64 {
        self.0.sent()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reports(py, self.0.poll())
    }
}

impl BlobSender {
    /// The end to attach to a stream, once.
    pub fn source(&self) -> PyResult<Box<dyn StreamSource>> {
        self.0.source().ok_or_else(|| attached_twice("sender"))
    }
}
