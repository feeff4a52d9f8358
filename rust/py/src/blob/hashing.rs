//! Hashing, encoding and verifying what is in memory.

use aioiroh_bao::{DecodeError, Decoder, Event, Hash, encode, outboard};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{create_exception, intern};

use super::{LONG, hash32, ranges};
use crate::identity::contents;

create_exception!(
    aioiroh._native,
    BaoError,
    PyValueError,
    "Data that do not verify; `kind` says what is wrong."
);

fn bao_error(py: Python<'_>, kind: &str, text: String) -> PyErr {
    let error = BaoError::new_err(text);
    if let Err(failed) = error.value(py).setattr(intern!(py, "kind"), kind) {
        return failed;
    }
    error
}

/// BLAKE3 of bytes.
#[pyfunction(name = "blake3")]
fn hash_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = data.py();
    let bytes = contents(data)?;
    let hash = if bytes.len() > LONG { py.detach(|| blake3::hash(&bytes)) } else { blake3::hash(&bytes) };
    Ok(PyBytes::new(py, hash.as_bytes()))
}

/// BLAKE3 of bytes that come in pieces.
#[pyclass(frozen, module = "aioiroh._native")]
struct Blake3(parking_lot::Mutex<blake3::Hasher>);

#[pymethods]
impl Blake3 {
    #[new]
    fn new() -> Self {
        Self(parking_lot::Mutex::new(blake3::Hasher::new()))
    }

    fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = contents(data)?;
        if bytes.len() > LONG {
            data.py().detach(|| {
                self.0.lock().update(&bytes);
            });
        } else {
            self.lock(data.py()).update(&bytes);
        }
        Ok(())
    }

    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let hash = self.lock(py).finalize();
        PyBytes::new(py, hash.as_bytes())
    }
}

impl Blake3 {
    /// Without the interpreter lock if another thread hashes something long.
    fn lock(&self, py: Python<'_>) -> parking_lot::MutexGuard<'_, blake3::Hasher> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            py.detach(|| drop(self.0.lock()));
        }
    }
}

/// Hash and outboard of each of many blobs in memory.
#[pyfunction]
fn hash_many<'py>(
    py: Python<'py>,
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let all = buffers.iter().map(contents).collect::<PyResult<Vec<_>>>()?;
    let hash = || all.iter().map(|bytes| outboard::of_bytes(bytes)).collect::<Vec<_>>();
    let long = all.iter().map(|bytes| bytes.len()).sum::<usize>() > LONG;
    let hashed = if long { py.detach(hash) } else { hash() };
    let pair = |(hash, outboard): (Hash, Vec<u8>)| (PyBytes::new(py, &hash), PyBytes::new(py, &outboard));
    Ok(hashed.into_iter().map(pair).collect())
}

/// The response for a query on a blob in memory.
#[pyfunction]
fn encode_blob<'py>(data: &Bound<'py, PyAny>, boundaries: Vec<u64>) -> PyResult<Bound<'py, PyBytes>> {
    let query = ranges(boundaries)?;
    let bytes = contents(data)?;
    let (hash, outboard) = outboard::of_bytes(&bytes);
    let encoded = encode::to_vec(hash, &bytes, &outboard, &query)
        .map_err(|_| PyRuntimeError::new_err("the blob changed while it was encoded"))?;
    Ok(PyBytes::new(data.py(), &encoded))
}

/// The verified leaves of a whole response, as (byte offset, bytes).
#[pyfunction]
fn decode_blob<'py>(
    hash: &[u8],
    boundaries: Vec<u64>,
    encoded: &Bound<'py, PyAny>,
) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
    let py = encoded.py();
    let bytes = contents(encoded)?;
    let mut decoder = Decoder::new(hash32(hash)?, ranges(boundaries)?, u64::MAX);
    let mut leaves = Vec::new();
    let failed = |error: DecodeError| bao_error(py, error.kind(), error.to_string());
    let mut rest: &[u8] = &bytes;
    while !rest.is_empty() && !decoder.is_done() {
        let (taken, event) = decoder.feed(rest).map_err(failed)?;
        if let Some(Event::Leaf { offset, data }) = event {
            leaves.push((offset, PyBytes::new(py, data)));
        }
        rest = &rest[taken..];
    }
    decoder.finish().map_err(failed)?;
    if !rest.is_empty() {
        return Err(bao_error(py, "trailing", format!("{} bytes follow the response", rest.len())));
    }
    Ok(leaves)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("BaoError", module.py().get_type::<BaoError>())?;
    module.add_class::<Blake3>()?;
    module.add_function(wrap_pyfunction!(hash_of, module)?)?;
    module.add_function(wrap_pyfunction!(hash_many, module)?)?;
    module.add_function(wrap_pyfunction!(encode_blob, module)?)?;
    module.add_function(wrap_pyfunction!(decode_blob, module)?)
}
