//! `TlsStream`: TLS inside a TCP connection that the application carries.

use aioiroh_relay::Link;
use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use rustls::pki_types::ServerName;

use super::{convert::Contiguous, relay::RelayTls};

/// The client's end; see the stub file for its calls.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct TlsStream(Mutex<Link>);

#[pymethods]
impl TlsStream {
    #[new]
    fn new(tls: &Bound<'_, RelayTls>, name: &str) -> PyResult<Self> {
        let wrong = |error: String| PyValueError::new_err(error);
        let name = ServerName::try_from(name.to_owned()).map_err(|error| wrong(error.to_string()))?;
        let link = Link::client(tls.get().tcp(), name).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Mutex::new(link)))
    }

    fn feed<'py>(&self, py: Python<'py>, data: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let mut clear = Vec::new();
        self.0
            .lock()
            .feed(Contiguous::new(data)?.as_slice(), &mut clear)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &clear))
    }

    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.lock().write(Contiguous::new(data)?.as_slice());
        Ok(())
    }

    fn take<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.lock().take())
    }
}
