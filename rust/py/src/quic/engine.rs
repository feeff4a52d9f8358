//! `Engine`: one endpoint, its sockets and its time.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use aioiroh_core::{
    EcnCodepoint,
    config::{Settings, Transport as TransportSettings},
    engine::{Engine as Core, Received},
    route::{Reach, SlotId, Target},
};
use aioiroh_udp::{SocketOptions, Sockets};
use bytes::{Bytes, BytesMut};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{
    conn::Conn,
    convert::{self, Address, Contiguous, call_error},
    events,
    relay::RelayTls,
    shared::Shared,
    transport::Transport,
};

/// One QUIC endpoint; see the stub file for its calls.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Engine(Arc<Shared>);

fn bytes_list(list: Vec<Bound<'_, PyBytes>>) -> Vec<Vec<u8>> {
    list.iter().map(|item| item.as_bytes().to_vec()).collect()
}

fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(errno) => PyOSError::new_err((errno, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

impl Engine {
    /// For what carries datagrams in place of sockets.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        secret, *, alpns = Vec::new(), transport = None, keylog = None, clock = None, seed = None,
        max_incoming = 1024, retry_above = None, max_tickets = 256,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        secret: &[u8],
        alpns: Vec<Bound<'_, PyBytes>>,
        transport: Option<&Bound<'_, Transport>>,
        keylog: Option<PathBuf>,
        clock: Option<Py<PyAny>>,
        seed: Option<&[u8]>,
        max_incoming: usize,
        retry_above: Option<usize>,
        max_tickets: usize,
    ) -> PyResult<Self> {
        let settings = Settings {
            secret: convert::key(secret, "a secret key")?,
            alpns: bytes_list(alpns),
            transport: transport
                .map_or_else(TransportSettings::default, |transport| transport.get().0.clone()),
            keylog,
            seed: seed.map(|seed| convert::key(seed, "a seed")).transpose()?,
            max_incoming,
            retry_above,
            max_tickets,
        };
        let sockets = if clock.is_some() { None } else { Some(Sockets::new().map_err(os_error)?) };
        let signal: Box<dyn Fn() + Send + Sync> = match &sockets {
            Some(sockets) => {
                let signal = sockets.signal();
                Box::new(move || signal.notify())
            }
            None => Box::new(|| {}),
        };
        let core = Core::new(settings, signal).map_err(call_error)?;
        Ok(Self(Arc::new(Shared::new(core, sockets, clock))))
    }

    fn public_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.lock()?.core.public_key()))
    }

    /// The descriptor whose readability calls for a step; OSError where there is none.
    fn fileno(&self) -> PyResult<i32> {
        let mut state = self.0.lock()?;
        let (_, sockets) = state.sockets()?;
        sockets.fileno().ok_or_else(|| PyOSError::new_err("this system needs the portable driver"))
    }

    fn sockets(&self) -> PyResult<Vec<(i32, bool)>> {
        let mut state = self.0.lock()?;
        let (core, sockets) = state.sockets()?;
        Ok(sockets.descriptors(core))
    }

    /// Seconds until the next timer, 0 if work waits, None without timers.
    #[pyo3(signature = (now = None))]
    fn deadline(&self, py: Python<'_>, now: Option<f64>) -> PyResult<Option<f64>> {
        let now = self.0.now(py, now)?;
        let state = self.0.lock()?;
        if state.core.has_work() || state.core.has_events() {
            return Ok(Some(0.0));
        }
        Ok(state.core.deadline().map(|deadline| deadline.saturating_duration_since(now).as_secs_f64()))
    }

    #[pyo3(signature = (now = None))]
    fn step<'py>(&self, py: Python<'py>, now: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let now = self.0.now(py, now)?;
        let found = self.0.step(now)?;
        events::list(py, found)
    }

    #[pyo3(signature = (now = None))]
    fn flush<'py>(&self, py: Python<'py>, now: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let now = self.0.now(py, now)?;
        let found = self.0.flush(now)?;
        events::list(py, found)
    }

    #[pyo3(signature = (host, port, *, recv_buffer = 7_340_032, send_buffer = 7_340_032, gso = true))]
    fn add_udp<'py>(
        &self,
        py: Python<'py>,
        host: &str,
        port: u16,
        recv_buffer: usize,
        send_buffer: usize,
        gso: bool,
    ) -> PyResult<(SlotId, (String, u16), Bound<'py, PyDict>)> {
        let address = Address::from((host, port)).parse()?;
        let options = SocketOptions { recv_buffer, send_buffer, gso };
        let (slot, bound, info) = {
            let mut state = self.0.lock()?;
            let (core, sockets) = state.sockets()?;
            sockets.bind(core, address, options).map_err(os_error)?
        };
        let dict = PyDict::new(py);
        dict.set_item("recv_buffer", info.recv_buffer)?;
        dict.set_item("send_buffer", info.send_buffer)?;
        dict.set_item("gso_segments", info.gso_segments)?;
        dict.set_item("gro_segments", info.gro_segments)?;
        dict.set_item("may_fragment", info.may_fragment)?;
        Ok((slot, convert::address(bound), dict))
    }

    /// A slot whose datagrams the application carries.
    fn add_virtual(&self, host: &str, port: u16) -> PyResult<SlotId> {
        let address = Address::from((host, port)).parse()?;
        Ok(self.0.lock()?.core.router.add_slot(address, true))
    }

    fn remove_slot(&self, slot: SlotId) -> PyResult<bool> {
        let mut state = self.0.lock()?;
        if state.core.router.is_virtual(slot) == Some(false) {
            let (core, sockets) = state.sockets()?;
            return Ok(sockets.remove(core, slot));
        }
        Ok(state.core.router.remove_slot(slot))
    }

    /// The slot sends only what is pinned to it, and tells of probes that come through to it.
    fn set_aside(&self, slot: SlotId) -> PyResult<()> {
        if self.0.lock()?.core.router.set_aside(slot) {
            Ok(())
        } else {
            Err(PyValueError::new_err("no such slot"))
        }
    }

    /// What goes to this address leaves through this slot only.
    fn pin(&self, address: Address, slot: SlotId) -> PyResult<()> {
        if self.0.lock()?.core.router.pin(address.parse()?, slot) {
            Ok(())
        } else {
            Err(PyValueError::new_err("no such slot, or too many pinned addresses"))
        }
    }

    fn unpin(&self, address: Address) -> PyResult<bool> {
        Ok(self.0.lock()?.core.router.unpin(address.parse()?))
    }

    /// A small datagram that is not QUIC, from each of these slots to each of these ports.
    fn probe(&self, slots: Vec<SlotId>, ip: &str, ports: Vec<u16>) -> PyResult<()> {
        let ip = convert::parse_ip(ip)?;
        self.0.lock()?.with_output(|core, output| core.probe(&slots, ip, &ports, output));
        Ok(())
    }

    /// The slot is bound to an address whose network has this prefix, and which leads to the internet or not.
    #[pyo3(signature = (slot, prefix, outward))]
    fn set_reach(&self, slot: SlotId, prefix: Option<u8>, outward: bool) -> PyResult<bool> {
        Ok(self.0.lock()?.core.router.set_reach(slot, Reach { prefix, outward }))
    }

    fn rebind(&self, slot: SlotId) -> PyResult<(String, u16)> {
        let mut state = self.0.lock()?;
        let (core, sockets) = state.sockets()?;
        sockets.rebind(core, slot).map(convert::address).map_err(os_error)
    }

    /// Datagrams in, as if they had come from `source` to a virtual slot.
    #[pyo3(signature = (slot, source, data, *, destination = None, segment_size = None, ecn = 0))]
    #[allow(clippy::too_many_arguments)]
    fn inject(
        &self,
        py: Python<'_>,
        slot: SlotId,
        source: Address,
        data: &Bound<'_, PyAny>,
        destination: Option<&str>,
        segment_size: Option<usize>,
        ecn: u8,
    ) -> PyResult<()> {
        let source = source.parse()?;
        let local = destination.map(convert::parse_ip).transpose()?;
        let data = Contiguous::new(data)?;
        if segment_size == Some(0) {
            return Err(PyValueError::new_err("a segment has at least one byte"));
        }
        let now = self.0.now(py, None)?;
        let mut state = self.0.lock()?;
        if state.core.router.is_virtual(slot) != Some(true) {
            return Err(PyValueError::new_err("no such virtual slot"));
        }
        let data = BytesMut::from(data.as_slice());
        let received = Received {
            slot: Some(slot),
            source,
            local_ip: local,
            ecn: EcnCodepoint::from_bits(ecn),
            segment_size: segment_size.unwrap_or(data.len().max(1)),
            data,
        };
        state.with_output(|core, output| core.receive(now, received, output));
        Ok(())
    }

    #[pyo3(signature = (slot, max = 64))]
    #[allow(clippy::type_complexity)]
    fn take_output<'py>(
        &self,
        py: Python<'py>,
        slot: SlotId,
        max: usize,
    ) -> PyResult<Vec<((String, u16), Option<String>, u8, Option<usize>, Bound<'py, PyBytes>)>> {
        let taken = self.0.lock()?.core.router.take(slot, max);
        Ok(taken
            .into_iter()
            .map(|held| {
                (
                    convert::address(held.destination),
                    convert::ip(held.source_ip),
                    held.ecn.map_or(0, |ecn| ecn as u8),
                    held.segment_size,
                    PyBytes::new(py, &held.contents),
                )
            })
            .collect())
    }

    fn set_route(&self, ip: &str, targets: Vec<(Option<SlotId>, Option<Address>)>) -> PyResult<()> {
        let IpAddr::V6(ip) = convert::parse_ip(ip)? else {
            return Err(PyValueError::new_err("a route is for an IPv6 address"));
        };
        if targets.len() > aioiroh_core::route::MAX_TARGETS {
            return Err(PyValueError::new_err("a route has at most 64 targets"));
        }
        let targets = targets
            .into_iter()
            .map(|(slot, address)| {
                Ok(Target { slot, address: address.map(|address| address.parse()).transpose()? })
            })
            .collect::<PyResult<Vec<_>>>()?;
        if self.0.lock()?.core.set_route(ip, targets) {
            Ok(())
        } else {
            Err(PyValueError::new_err("too many routes; drop some first"))
        }
    }

    fn drop_route(&self, ip: &str) -> PyResult<bool> {
        let IpAddr::V6(ip) = convert::parse_ip(ip)? else { return Ok(false) };
        Ok(self.0.lock()?.core.router.drop_route(&ip))
    }

    #[pyo3(signature = (address, peer, alpns, *, transport = None, early_data = false))]
    fn connect(
        &self,
        py: Python<'_>,
        address: Address,
        peer: &[u8],
        alpns: Vec<Bound<'_, PyBytes>>,
        transport: Option<&Bound<'_, Transport>>,
        early_data: bool,
    ) -> PyResult<Conn> {
        let address = address.parse()?;
        let peer = convert::key(peer, "a peer's key")?;
        let alpns = bytes_list(alpns);
        let now = self.0.now(py, None)?;
        let transport = transport.map(|transport| &transport.get().0);
        let connected = self.0.lock()?.with_output(|core, output| {
            let id = core.connect(now, address, peer, alpns, transport, early_data)?;
            core.greet(id, now, output);
            Ok(id)
        });
        Conn::new(self.0.clone(), connected.map_err(call_error)?, true)
    }

    /// To a server that proves its name, not a key.
    #[pyo3(signature = (address, name, alpns, tls, *, transport = None))]
    fn connect_named(
        &self,
        py: Python<'_>,
        address: Address,
        name: &str,
        alpns: Vec<Bound<'_, PyBytes>>,
        tls: &Bound<'_, RelayTls>,
        transport: Option<&Bound<'_, Transport>>,
    ) -> PyResult<Conn> {
        let address = address.parse()?;
        let crypto = Arc::new(tls.get().quic(bytes_list(alpns))?);
        let now = self.0.now(py, None)?;
        let transport = transport.map(|transport| &transport.get().0);
        let connected = self.0.lock()?.core.connect_named(now, address, name, crypto, transport);
        Conn::new(self.0.clone(), connected.map_err(call_error)?, true)
    }

    /// Shows this certificate (PEM) to those who connect, in place of a key.
    fn use_certificate(&self, chain: &[u8], key: &[u8]) -> PyResult<()> {
        let unreadable = |error: pem::Error| PyValueError::new_err(error.to_string());
        let chain =
            CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(unreadable)?;
        self.0.lock()?.core.use_certificate(chain, key).map_err(call_error)
    }

    /// Goes on with a handshake. Returns the connection, or why it failed at once.
    #[pyo3(signature = (incoming, *, transport = None, alpns = None))]
    fn accept<'py>(
        &self,
        py: Python<'py>,
        incoming: u64,
        transport: Option<&Bound<'_, Transport>>,
        alpns: Option<Vec<Bound<'_, PyBytes>>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now = self.0.now(py, None)?;
        let transport = transport.map(|transport| &transport.get().0);
        let alpns = alpns.map(bytes_list);
        let accepted = self
            .0
            .lock()?
            .with_output(|core, output| {
                let accepted = core.accept(now, incoming, transport, alpns, output)?;
                if let Ok(id) = accepted {
                    core.greet(id, now, output);
                }
                Ok(accepted)
            })
            .map_err(call_error)?;
        match accepted {
            Ok(id) => Ok(Bound::new(py, Conn::new(self.0.clone(), id, false)?)?.into_any()),
            Err(close) => {
                let (cause, details) = events::close(py, close)?;
                Ok((cause, details).into_pyobject(py)?.into_any())
            }
        }
    }

    fn refuse(&self, incoming: u64) -> PyResult<()> {
        self.0.lock()?.with_output(|core, output| core.refuse(incoming, output)).map_err(call_error)
    }

    fn retry(&self, py: Python<'_>, incoming: u64) -> PyResult<bool> {
        let now = self.0.now(py, None)?;
        self.0.lock()?.with_output(|core, output| core.retry(now, incoming, output)).map_err(call_error)
    }

    fn ignore(&self, incoming: u64) -> PyResult<()> {
        self.0.lock()?.core.ignore(incoming).map_err(call_error)
    }

    fn set_alpns(&self, alpns: Vec<Bound<'_, PyBytes>>) -> PyResult<()> {
        self.0.lock()?.core.set_alpns(bytes_list(alpns)).map_err(call_error)
    }

    /// Local addresses have changed.
    fn network_changed(&self, py: Python<'_>) -> PyResult<()> {
        let now = self.0.now(py, None)?;
        self.0.lock()?.core.network_changed(now);
        Ok(())
    }

    /// Closes all connections and takes no more.
    #[pyo3(signature = (code, reason))]
    fn close(&self, py: Python<'_>, code: u64, reason: &[u8]) -> PyResult<()> {
        let code = convert::code(code)?;
        let now = self.0.now(py, None)?;
        let reason = Bytes::copy_from_slice(reason);
        self.0.lock()?.with_output(|core, output| core.close(now, code, reason, output));
        Ok(())
    }

    fn is_idle(&self) -> PyResult<bool> {
        Ok(self.0.lock()?.core.is_idle())
    }

    /// Closes sockets and descriptors now.
    fn shutdown(&self) -> PyResult<()> {
        self.0.shutdown();
        Ok(())
    }

    /// Datagrams of one connection that may leave in one system call.
    fn set_batch(&self, datagrams: usize) -> PyResult<()> {
        self.0.lock()?.core.set_batch(datagrams);
        Ok(())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Copied out first: making Python objects may run a destructor, which may want the lock.
        let (core, routed, sockets, open, steps) = {
            let state = self.0.lock()?;
            let sockets = state.sockets.as_ref().map(|sockets| sockets.stats);
            (state.core.stats, state.core.router.stats, sockets, state.core.open_connections(), state.steps.0)
        };
        let dict = PyDict::new(py);
        dict.set_item("received_datagrams", core.received_datagrams)?;
        dict.set_item("received_bytes", core.received_bytes)?;
        dict.set_item("received_ipv4_bytes", core.received_ipv4_bytes)?;
        dict.set_item("received_ipv6_bytes", core.received_ipv6_bytes)?;
        dict.set_item("received_joined", core.received_joined)?;
        dict.set_item("accepted", core.accepted)?;
        dict.set_item("refused", core.refused)?;
        dict.set_item("retried", core.retried)?;
        dict.set_item("panics", core.panics)?;
        dict.set_item("open_connections", open)?;
        dict.set_item("sent_datagrams", routed.sent_datagrams)?;
        dict.set_item("sent_bytes", routed.sent_bytes)?;
        dict.set_item("sent_ipv4_bytes", routed.sent_ipv4_bytes)?;
        dict.set_item("sent_ipv6_bytes", routed.sent_ipv6_bytes)?;
        dict.set_item("dropped_full", routed.dropped_full)?;
        dict.set_item("dropped_unroutable", routed.dropped_unroutable)?;
        dict.set_item("send_errors", routed.send_errors)?;
        dict.set_item("sent_probes", routed.sent_probes)?;
        if let Some(sockets) = sockets {
            dict.set_item("receive_calls", sockets.receive_calls)?;
            dict.set_item("send_calls", sockets.send_calls)?;
            dict.set_item("receive_errors", sockets.receive_errors)?;
            dict.set_item("gso_fallbacks", sockets.gso_fallbacks)?;
        }
        dict.set_item("step_micros", PyTuple::new(py, steps)?)?;
        Ok(dict)
    }

    /// Test hook: the next turn of a "connection" or of the "endpoint" panics.
    fn panic(&self, place: &str) -> PyResult<()> {
        let place = match place {
            "connection" => "connection",
            "endpoint" => "endpoint",
            _ => return Err(PyValueError::new_err("'connection' or 'endpoint'")),
        };
        self.0.lock()?.core.panic_next(place);
        Ok(())
    }
}
