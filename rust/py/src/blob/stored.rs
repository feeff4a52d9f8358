//! One blob: data, outboard and what of it is here.

use std::path::PathBuf;
use std::sync::Arc;

use aioiroh_bao::tree::outboard_len;
use aioiroh_io::OutboardAt;
use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::{LONG, hash32, os_error, ranges};
use crate::identity::contents;

/// An outboard: its bytes, or the path of a file.
pub(super) fn outboard_at(outboard: &Bound<'_, PyAny>) -> PyResult<OutboardAt> {
    Ok(match outboard.cast::<PyBytes>() {
        Ok(bytes) => OutboardAt::Memory(Bytes::copy_from_slice(bytes.as_bytes())),
        Err(_) => OutboardAt::File(outboard.extract()?),
    })
}

/// Data, outboard and present chunks of one blob.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Blob(pub(super) Arc<aioiroh_io::Blob>);

#[pymethods]
impl Blob {
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = data.py();
        let bytes = Bytes::from(contents(data)?.into_owned());
        let blob = if bytes.len() > LONG {
            py.detach(|| aioiroh_io::Blob::from_bytes(bytes))
        } else {
            aioiroh_io::Blob::from_bytes(bytes)
        };
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    fn memory(hash: &[u8], max_size: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(aioiroh_io::Blob::memory(hash32(hash)?, max_size))))
    }

    #[staticmethod]
    fn discard(hash: &[u8], max_size: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(aioiroh_io::Blob::discard(hash32(hash)?, max_size))))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, outboard_path, *, max_size))]
    fn create(
        hash: &[u8],
        data_path: PathBuf,
        outboard_path: Option<PathBuf>,
        max_size: u64,
    ) -> PyResult<Self> {
        let blob = aioiroh_io::Blob::create(hash32(hash)?, data_path, outboard_path, max_size);
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, size, outboard, present=None))]
    fn open(
        hash: &[u8],
        data_path: PathBuf,
        size: u64,
        outboard: &Bound<'_, PyAny>,
        present: Option<Vec<u64>>,
    ) -> PyResult<Self> {
        let outboard = outboard_at(outboard)?;
        let present = present.map(ranges).transpose()?;
        Ok(Self(Arc::new(aioiroh_io::Blob::open(hash32(hash)?, data_path, size, outboard, present))))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data, outboard=None))]
    fn inline(hash: &[u8], data: &Bound<'_, PyAny>, outboard: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let data = Bytes::from(contents(data)?.into_owned());
        let outboard = match outboard {
            Some(outboard) => Bytes::from(contents(outboard)?.into_owned()),
            None => Bytes::new(),
        };
        let size = data.len();
        let blob = aioiroh_io::Blob::inline(hash32(hash)?, data, outboard).ok_or_else(|| {
            PyValueError::new_err(format!(
                "the outboard of {size} bytes must have {} bytes",
                outboard_len(size as u64)
            ))
        })?;
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, outboard_path, *, size, present, max_size))]
    fn resume(
        hash: &[u8],
        data_path: PathBuf,
        outboard_path: PathBuf,
        size: Option<u64>,
        present: Vec<u64>,
        max_size: u64,
    ) -> PyResult<Self> {
        let present = ranges(present)?;
        if size.is_none() && !present.is_empty() {
            return Err(PyValueError::new_err("a blob with chunks has a size; pass what was claimed"));
        }
        let (hash, limit) = (hash32(hash)?, max_size);
        let blob = aioiroh_io::Blob::resume(hash, data_path, outboard_path, size, present, limit);
        Ok(Self(Arc::new(blob)))
    }

    #[getter]
    fn hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.hash())
    }

    #[getter]
    fn size(&self) -> Option<u64> {
        self.0.size()
    }

    #[getter]
    fn size_verified(&self) -> bool {
        self.0.verified_size().is_some()
    }

    #[getter]
    fn present<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.present().boundaries())
    }

    #[getter]
    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    fn read<'py>(&self, py: Python<'py>, offset: u64, n: usize) -> PyResult<Bound<'py, PyBytes>> {
        let read = if n > LONG { py.detach(|| self.0.read(offset, n)) } else { self.0.read(offset, n) };
        match read {
            Ok(Ok(bytes)) => Ok(PyBytes::new(py, &bytes)),
            Ok(Err(error)) => Err(os_error(&error)),
            Err(_) => Err(PyValueError::new_err(format!(
                "bytes {offset}..{} are not all here; get them first",
                offset.saturating_add(n as u64)
            ))),
        }
    }

    fn response<'py>(&self, py: Python<'py>, boundaries: Vec<u64>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.0.response(&ranges(boundaries)?).map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn outboard<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.outboard().map_err(|error| os_error(&error))?))
    }

    #[getter]
    fn loose_outboard<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.loose_outboard().map(|bytes| PyBytes::new(py, &bytes))
    }

    fn spill(&self) -> PyResult<()> {
        self.0.spill().map_err(|error| os_error(&error))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.sync()).map_err(|error| os_error(&error))
    }

    fn close(&self) {
        self.0.close();
    }
}
