//! `RelayHub`: the clients of a relay server, and what is forwarded between them without Python.

use std::{ffi::c_int, sync::Arc, time::Duration};

use aioiroh_relay::{
    Link,
    frame::Version,
    hub::{Config, Hub, News, Rate},
};
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyValueError,
    ffi,
    prelude::*,
    types::{PyBytes, PyDict, PyMemoryView, PyTuple},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
};

use crate::quic::convert::{self, Contiguous};

type Events<'py> = Vec<Bound<'py, PyTuple>>;
type Ended<'py> = Vec<(u64, Bound<'py, PyTuple>)>;

/// What a relay shows its clients.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct RelayServerTls(Arc<ServerConfig>);

#[pymethods]
impl RelayServerTls {
    #[new]
    fn new(certificates: &[u8], key: &[u8]) -> PyResult<Self> {
        let refuse = |error: &dyn std::fmt::Display| PyValueError::new_err(error.to_string());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(&error))?;
        if chain.is_empty() {
            return Err(PyValueError::new_err("there is no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| PyValueError::new_err(format!("there is no private key in it: {error}")))?;
        let provider = aioiroh_core::provider::provider();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| refuse(&error))?;
        // Clients come without memory of sessions before (relay protocol, section 5.2).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }
}

#[pyclass(frozen, module = "aioiroh._native")]
pub struct RelayHub(Arc<Mutex<Hub>>);

#[pymethods]
impl RelayHub {
    #[new]
    #[pyo3(signature = (*, seed, connections, pending, queue_bytes, queue_total, establish_timeout, handshake_timeout))]
    fn new(
        seed: &[u8],
        connections: usize,
        pending: usize,
        queue_bytes: usize,
        queue_total: usize,
        establish_timeout: f64,
        handshake_timeout: f64,
    ) -> PyResult<Self> {
        let seed = seed.try_into().map_err(|_| PyValueError::new_err("a seed has 8 bytes"))?;
        Ok(Self(Arc::new(Mutex::new(Hub::new(Config {
            connections,
            pending,
            queue_bytes,
            queue_total,
            establish_timeout: duration(establish_timeout)?,
            handshake_timeout: duration(handshake_timeout)?,
            seed: u64::from_le_bytes(seed),
        })))))
    }

    #[pyo3(signature = (tls, now))]
    fn enter(&self, tls: Option<&RelayServerTls>, now: f64) -> PyResult<Option<u64>> {
        let link = match tls {
            Some(tls) => {
                Link::server(tls.0.clone()).map_err(|error| PyValueError::new_err(error.to_string()))?
            }
            None => Link::plain(),
        };
        Ok(self.0.lock().enter(link, duration(now)?))
    }

    fn leave(&self, number: u64) -> Vec<u64> {
        let mut hub = self.0.lock();
        hub.leave(number);
        hub.take_ready()
    }

    fn feed<'py>(
        &self,
        py: Python<'py>,
        number: u64,
        data: &Bound<'py, PyAny>,
        now: f64,
    ) -> PyResult<(Events<'py>, Vec<u64>)> {
        let data = Contiguous::new(data)?;
        let now = duration(now)?;
        let (news, ready) = {
            let mut hub = self.0.lock();
            (hub.feed(number, data.as_slice(), now), hub.take_ready())
        };
        Ok((tuples(py, news)?, ready))
    }

    fn take<'py>(&self, py: Python<'py>, number: u64) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let Some(bytes) = self.0.lock().take(number) else { return Ok(None) };
        let chunk = Bound::new(py, Chunk { bytes, hub: self.0.clone() })?;
        PyMemoryView::from(&chunk).map(Some)
    }

    fn respond<'py>(
        &self,
        py: Python<'py>,
        number: u64,
        status: u16,
        reason: &str,
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> PyResult<Events<'py>> {
        let news = self.0.lock().respond(number, status, reason, &borrowed(&headers), body);
        tuples(py, news)
    }

    fn upgrade<'py>(
        &self,
        py: Python<'py>,
        number: u64,
        headers: Vec<(String, String)>,
        challenge: &[u8],
        now: f64,
    ) -> PyResult<(Option<&'static str>, Events<'py>)> {
        let challenge =
            challenge.try_into().map_err(|_| PyValueError::new_err("a challenge has 16 bytes"))?;
        let result = self.0.lock().upgrade(number, &borrowed(&headers), challenge, duration(now)?);
        match result {
            Ok(news) => Ok((None, tuples(py, news)?)),
            Err(refusal) => Ok((Some(refusal), Vec::new())),
        }
    }

    /// Whether the client is there, a connection that has to go for it, and whose output has begun to wait.
    fn confirm(&self, number: u64, now: f64) -> PyResult<(bool, Option<u64>, Vec<u64>)> {
        let mut hub = self.0.lock();
        let (confirmed, surplus) = hub.confirm(number, duration(now)?);
        Ok((confirmed, surplus, hub.take_ready()))
    }

    fn deny(&self, number: u64, reason: &str) -> Vec<u64> {
        let mut hub = self.0.lock();
        hub.deny(number, reason);
        hub.take_ready()
    }

    fn tick<'py>(&self, py: Python<'py>, now: f64) -> PyResult<(Ended<'py>, Vec<u64>)> {
        let (over, ready) = {
            let mut hub = self.0.lock();
            (hub.tick(duration(now)?), hub.take_ready())
        };
        let over =
            over.into_iter().map(|(number, news)| Ok((number, tuple(py, news)?))).collect::<PyResult<_>>()?;
        Ok((over, ready))
    }

    fn announce_restart(&self, number: u64, reconnect_in_ms: u32, try_for_ms: u32) -> Vec<u64> {
        let mut hub = self.0.lock();
        hub.announce_restart(number, reconnect_in_ms, try_for_ms);
        hub.take_ready()
    }

    fn set_rate(&self, bytes_per_second: u32, burst: u32, now: f64) -> PyResult<()> {
        let rate = (bytes_per_second > 0 && burst > 0).then_some(Rate { bytes_per_second, burst });
        self.0.lock().set_rate(rate, duration(now)?);
        Ok(())
    }

    fn connections_of(&self, endpoint_id: &[u8]) -> PyResult<Vec<u64>> {
        let key = convert::key(endpoint_id, "an endpoint id")?;
        Ok(self.0.lock().connections(&key))
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.0.lock().counters().clone();
        let all = PyDict::new(py);
        for (name, value) in [
            ("bytes_sent", counters.bytes_sent),
            ("bytes_recv", counters.bytes_recv),
            ("send_packets_sent", counters.send_packets_sent),
            ("send_packets_recv", counters.send_packets_recv),
            ("send_packets_dropped", counters.send_packets_dropped),
            ("queue_full_dropped", counters.queue_full_dropped),
            ("got_ping", counters.got_ping),
            ("sent_pong", counters.sent_pong),
            ("bytes_rx_ratelimited_total", counters.bytes_rx_ratelimited),
            ("conns_rx_ratelimited_total", counters.conns_rx_ratelimited),
            ("accepts", counters.accepts),
            ("disconnects", counters.disconnects),
            ("clients_inactive_added", counters.clients_inactive_added),
            ("clients_inactive_removed", counters.clients_inactive_removed),
            ("connections_refused", counters.connections_refused),
            ("handshakes_failed", counters.handshakes_failed),
        ] {
            all.set_item(name, value)?;
        }
        Ok(all)
    }

    #[getter]
    fn deadline(&self) -> Option<f64> {
        self.0.lock().deadline().map(|at| at.as_secs_f64())
    }
}

/// Bytes on their way to a client, as Python sees them without a copy. Their memory goes back to the hub.
#[pyclass(frozen, module = "aioiroh._native")]
struct Chunk {
    bytes: Vec<u8>,
    hub: Arc<Mutex<Hub>>,
}

#[pymethods]
impl Chunk {
    /// # Safety
    ///
    /// Called by Python, with a view to be filled.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = &slf.get().bytes;
        // SAFETY: the view keeps the object, and nothing changes the bytes of a frozen object while it lives.
        let result = unsafe {
            let start = bytes.as_ptr().cast_mut().cast();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, bytes.len() as ffi::Py_ssize_t, 1, flags)
        };
        if result < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // No Python code runs while the hub is locked, so nobody drops this meanwhile.
        self.hub.lock().recycle(std::mem::take(&mut self.bytes));
    }
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn tuples(py: Python<'_>, news: Vec<News>) -> PyResult<Events<'_>> {
    news.into_iter().map(|news| tuple(py, news)).collect()
}

fn tuple(py: Python<'_>, news: News) -> PyResult<Bound<'_, PyTuple>> {
    match news {
        News::Request(request) => {
            let has_body = request.has_body();
            let headers: Vec<_> = (request.headers.0.into_iter())
                .map(|(name, value)| (name, PyBytes::new(py, &value)))
                .collect();
            ("request", request.method, request.target, headers, has_body).into_pyobject(py)
        }
        News::Proved(version, key) => {
            let version = if version == Version::V1 { 1 } else { 2 };
            ("proved", version, PyBytes::new(py, &key)).into_pyobject(py)
        }
        News::Limited(wait) => ("limited", wait.as_secs_f64()).into_pyobject(py),
        News::Over(error) => ("over", error.kind(), error.to_string()).into_pyobject(py),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RelayServerTls>()?;
    module.add_class::<RelayHub>()
}
