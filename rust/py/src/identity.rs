//! Ed25519 with the acceptance rules of upstream's crate, and URLs as upstream's crate parses them.

use std::borrow::Cow;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

fn exact<const N: usize>(what: &str, bytes: &[u8]) -> PyResult<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| PyValueError::new_err(format!("{what} must be {N} bytes, not {}", bytes.len())))
}

/// Borrows `bytes`, copies any other contiguous buffer.
pub(crate) fn contents<'a>(message: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(bytes) = message.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    let buffer = PyBuffer::<u8>::get(message)?;
    Ok(Cow::Owned(buffer.to_vec(message.py())?))
}

#[pyfunction]
fn public_key<'py>(py: Python<'py>, seed: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let key = SigningKey::from_bytes(&exact("a secret key", seed)?);
    Ok(PyBytes::new(py, key.verifying_key().as_bytes()))
}

#[pyfunction]
fn sign<'py>(seed: &[u8], message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let key = SigningKey::from_bytes(&exact("a secret key", seed)?);
    let signature = key.sign(&contents(message)?);
    Ok(PyBytes::new(message.py(), &signature.to_bytes()))
}

/// The strict rule: no malleable signature, no small-order key or commitment.
#[pyfunction]
fn verify(public: &[u8], message: &Bound<'_, PyAny>, signature: &[u8]) -> PyResult<bool> {
    let signature = Signature::from_bytes(&exact("a signature", signature)?);
    let Ok(key) = VerifyingKey::from_bytes(&exact("a public key", public)?) else {
        return Ok(false);
    };
    Ok(key.verify_strict(&contents(message)?, &signature).is_ok())
}

/// Whether these are 32 bytes that decompress to a point; small order and other spellings count.
#[pyfunction]
fn is_public_key(public: &[u8]) -> bool {
    public.try_into().is_ok_and(|bytes| VerifyingKey::from_bytes(bytes).is_ok())
}

#[pyfunction]
fn normalize_url(text: &str) -> PyResult<String> {
    match url::Url::parse(text) {
        Ok(url) => Ok(url.into()),
        Err(error) => Err(PyValueError::new_err(error.to_string())),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(public_key, module)?)?;
    module.add_function(wrap_pyfunction!(sign, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)?;
    module.add_function(wrap_pyfunction!(is_public_key, module)?)?;
    module.add_function(wrap_pyfunction!(normalize_url, module)?)
}
