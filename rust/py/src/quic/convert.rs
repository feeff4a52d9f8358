//! Values that cross the boundary.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use aioiroh_core::{
    engine::CallError,
    noq_proto::{ConnectionStats, PathStats},
};
use pyo3::{
    buffer::PyBuffer,
    exceptions::{PyOverflowError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{ConnectionGone, EngineDead};

/// `(ip, port)` as Python gives it; an IPv6 zone may follow the ip as `%scope`.
#[derive(FromPyObject)]
pub struct Address(String, u16);

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Self {
        Self(host.to_owned(), port)
    }
}

impl Address {
    pub fn parse(&self) -> PyResult<SocketAddr> {
        let (ip, scope) = match self.0.split_once('%') {
            Some((ip, scope)) => {
                let scope = scope
                    .parse::<u32>()
                    .map_err(|_| PyValueError::new_err("an IPv6 scope is an interface number"))?;
                (ip, scope)
            }
            None => (self.0.as_str(), 0),
        };
        Ok(match parse_ip(ip)? {
            IpAddr::V4(ip) => (ip, self.1).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.1, 0, scope).into(),
        })
    }
}

pub fn parse_ip(text: &str) -> PyResult<IpAddr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("{text:?} is not an IP address")))
}

pub fn address(address: SocketAddr) -> (String, u16) {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => (format!("{}%{}", v6.ip(), v6.scope_id()), v6.port()),
        _ => (address.ip().to_string(), address.port()),
    }
}

pub fn ip(ip: Option<IpAddr>) -> Option<String> {
    ip.map(|ip| ip.to_string())
}

pub fn key(bytes: &[u8], what: &str) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("{what} has 32 bytes, not {}", bytes.len())))
}

pub fn code(value: u64) -> PyResult<u64> {
    if value < 1 << 62 {
        Ok(value)
    } else {
        Err(PyOverflowError::new_err("a QUIC error code is below 2**62"))
    }
}

pub fn call_error(error: CallError) -> PyErr {
    match error {
        CallError::Dead(text) => EngineDead::new_err((text,)),
        CallError::Gone => ConnectionGone::new_err(()),
        CallError::Invalid(text) => PyValueError::new_err(text),
    }
}

/// Contiguous bytes of any object with the buffer protocol.
pub enum Contiguous<'py> {
    /// Most of what is sent, and cheaper.
    Bytes(Bound<'py, PyBytes>),
    Buffer(PyBuffer<u8>),
}

impl<'py> Contiguous<'py> {
    pub fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone()));
        }
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("a contiguous buffer is needed"));
        }
        Ok(Self::Buffer(buffer))
    }

    pub fn as_slice(&self) -> &[u8] {
        let buffer = match self {
            Self::Bytes(bytes) => return bytes.as_bytes(),
            Self::Buffer(buffer) => buffer,
        };
        let (start, len) = (buffer.buf_ptr().cast::<u8>(), buffer.len_bytes());
        if len == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous and held for our lifetime. The GIL is kept while we read, so
        // no Python code writes to it meanwhile.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The same for writing.
    #[allow(clippy::mut_from_ref)]
    pub fn as_mut_slice(&self) -> PyResult<&mut [u8]> {
        let Self::Buffer(buffer) = self else {
            return Err(PyValueError::new_err("a writable buffer is needed"));
        };
        if buffer.readonly() {
            return Err(PyValueError::new_err("a writable buffer is needed"));
        }
        let (start, len) = (buffer.buf_ptr().cast::<u8>(), buffer.len_bytes());
        if len == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as above; the buffer is writable, and nobody else looks at it while the GIL is kept.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }
}

pub fn path_stats<'py>(py: Python<'py>, stats: &PathStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rtt", stats.rtt.as_secs_f64())?;
    dict.set_item("cwnd", stats.cwnd)?;
    dict.set_item("mtu", stats.current_mtu)?;
    dict.set_item("bandwidth", stats.bandwidth_estimate)?;
    dict.set_item("sent_packets", stats.sent_packets)?;
    dict.set_item("sent_bytes", stats.sent_bytes)?;
    dict.set_item("lost_packets", stats.lost_packets)?;
    dict.set_item("lost_bytes", stats.lost_bytes)?;
    dict.set_item("congestion_events", stats.congestion_events)?;
    dict.set_item("spurious_congestion_events", stats.spurious_congestion_events)?;
    dict.set_item("black_holes_detected", stats.black_holes_detected)?;
    dict.set_item("udp_tx_datagrams", stats.udp_tx.datagrams)?;
    dict.set_item("udp_tx_bytes", stats.udp_tx.bytes)?;
    dict.set_item("udp_rx_datagrams", stats.udp_rx.datagrams)?;
    dict.set_item("udp_rx_bytes", stats.udp_rx.bytes)?;
    Ok(dict)
}

pub fn connection_stats<'py>(py: Python<'py>, stats: &ConnectionStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("udp_tx_datagrams", stats.udp_tx.datagrams)?;
    dict.set_item("udp_tx_bytes", stats.udp_tx.bytes)?;
    dict.set_item("udp_rx_datagrams", stats.udp_rx.datagrams)?;
    dict.set_item("udp_rx_bytes", stats.udp_rx.bytes)?;
    dict.set_item("sent_packets", stats.sent_packets)?;
    dict.set_item("sent_bytes", stats.sent_bytes)?;
    dict.set_item("lost_packets", stats.lost_packets)?;
    dict.set_item("lost_bytes", stats.lost_bytes)?;
    Ok(dict)
}
