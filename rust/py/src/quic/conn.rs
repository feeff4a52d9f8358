//! `Conn`: one connection.

mod reach;

use std::sync::Arc;

use aioiroh_core::{
    PathId, VarInt,
    connection::path_number,
    event::ConnId,
    noq_proto::{FourTuple, SendDatagramError},
    route::{to_inner, to_outer},
    silence::wake,
    streams::{Read, Write},
};
use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict},
};

use reach::{direction, path_status, stream_id};

use super::{
    StreamGone, StreamReset, StreamStopped,
    convert::{self, Address, Contiguous, call_error},
    events,
    shared::Shared,
};
use crate::blob::{BlobReceiver, BlobSender};

/// One QUIC connection; see the stub file for its calls.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Conn {
    shared: Arc<Shared>,
    id: ConnId,
    client: bool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.shared.release(self.id);
    }
}

#[pymethods]
impl Conn {
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    #[getter]
    fn side(&self) -> &'static str {
        if self.client { "client" } else { "server" }
    }

    // ---- streams

    fn open(&self, dir: u8) -> PyResult<Option<u64>> {
        let dir = direction(dir)?;
        Ok(self.call(|slot, _| slot.open(dir))?.map(u64::from))
    }

    fn accept(&self, dir: u8) -> PyResult<Option<u64>> {
        let dir = direction(dir)?;
        Ok(self.inspect(|slot| slot.accept(dir))?.map(u64::from))
    }

    /// Up to `max` bytes, b"" at the end, None when an event will answer.
    fn read<'py>(&self, py: Python<'py>, stream: u64, max: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if max == 0 {
            return Err(PyValueError::new_err("max must be positive"));
        }
        match self.take(stream, max)? {
            Read::Data(data) => Ok(Some(events::bytes(py, &data)?)),
            Read::Blocked => Ok(None),
            Read::End => Ok(Some(PyBytes::new(py, b""))),
            Read::Reset(code) => Err(StreamReset::new_err((code,))),
            Read::Gone => Err(StreamGone::new_err(())),
        }
    }

    /// As `read`, into a buffer: the number of bytes, 0 at the end, None when an event will answer.
    fn read_into(&self, stream: u64, buffer: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let buffer = Contiguous::new(buffer)?;
        let target = buffer.as_mut_slice()?;
        if target.is_empty() {
            return Err(PyValueError::new_err("the buffer is empty"));
        }
        match self.take(stream, target.len())? {
            Read::Data(data) => {
                data.copy_to(&mut target[..data.len]);
                Ok(Some(data.len))
            }
            Read::Blocked => Ok(None),
            Read::End => Ok(Some(0)),
            Read::Reset(code) => Err(StreamReset::new_err((code,))),
            Read::Gone => Err(StreamGone::new_err(())),
        }
    }

    /// Withdraws the demand of a read that returned None; data stay queued.
    pub fn cancel_read(&self, stream: u64) -> PyResult<()> {
        let stream = stream_id(stream)?;
        self.inspect(|slot| slot.cancel_read(stream))
    }

    /// Accepted bytes from `offset` on; 0 means blocked, an event follows.
    #[pyo3(signature = (stream, data, offset = 0))]
    fn write(&self, stream: u64, data: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let data = Contiguous::new(data)?;
        let data = data
            .as_slice()
            .get(offset..)
            .ok_or_else(|| PyValueError::new_err("the offset is behind the end of the data"))?;
        match self.write_some(stream, data)? {
            Write::Accepted(count) => Ok(count),
            Write::Stopped(code) => Err(StreamStopped::new_err((code,))),
            Write::Gone => Err(StreamGone::new_err(())),
        }
    }

    pub fn finish(&self, stream: u64) -> PyResult<()> {
        use aioiroh_core::noq_proto::FinishError;
        self.sending(stream, |slot, stream| match slot.conn.send_stream(stream).finish() {
            Ok(()) => Ok(()),
            Err(FinishError::Stopped(code)) => Err(StreamStopped::new_err((code.into_inner(),))),
            Err(_) => Err(StreamGone::new_err(())),
        })
    }

    fn reset(&self, stream: u64, code: u64) -> PyResult<()> {
        let code = VarInt::from_u64(convert::code(code)?).unwrap_or(VarInt::MAX);
        self.sending(stream, |slot, stream| {
            slot.streams().detach_source(stream);
            slot.conn.send_stream(stream).reset(code).map_err(|_| StreamGone::new_err(()))
        })
    }

    /// Asks the peer to send no more; whatever is unread is dropped.
    fn stop(&self, stream: u64, code: u64) -> PyResult<()> {
        let code = convert::code(code)?;
        self.receiving(stream, |slot, stream| {
            slot.streams().detach_sink(stream);
            slot.stop(stream, code);
            Ok(())
        })
    }

    fn set_priority(&self, stream: u64, priority: i32) -> PyResult<()> {
        self.sending(stream, |slot, stream| {
            slot.conn.send_stream(stream).set_priority(priority).map_err(|_| StreamGone::new_err(()))
        })
    }

    fn priority(&self, stream: u64) -> PyResult<i32> {
        self.sending(stream, |slot, stream| {
            slot.conn.send_stream(stream).priority().map_err(|_| StreamGone::new_err(()))
        })
    }

    /// Lets a native receiver take the stream's bytes.
    fn read_to(&self, stream: u64, receiver: &Bound<'_, BlobReceiver>) -> PyResult<()> {
        let id = stream_id(stream)?;
        let sink = receiver.get().sink()?;
        let waker = self.shared.lock()?.core.waker(self.id, id);
        self.receiving(stream, |slot, stream| {
            slot.streams().attach_sink(stream, sink, waker);
            Ok(())
        })
    }

    /// Lets a native sender fill the stream.
    fn write_from(&self, stream: u64, sender: &Bound<'_, BlobSender>) -> PyResult<()> {
        let id = stream_id(stream)?;
        let source = sender.get().source()?;
        let waker = self.shared.lock()?.core.waker(self.id, id);
        self.sending(stream, |slot, stream| {
            slot.streams().attach_source(stream, source, waker);
            Ok(())
        })
    }

    /// Takes a native end away from a stream: "recv" or "send".
    fn detach(&self, stream: u64, side: &str) -> PyResult<bool> {
        let stream = stream_id(stream)?;
        match side {
            "recv" => self.inspect(|slot| slot.streams().detach_sink(stream)),
            "send" => self.inspect(|slot| slot.streams().detach_source(stream)),
            _ => Err(PyValueError::new_err("'recv' or 'send'")),
        }
    }

    // ---- datagrams

    fn send_datagram(&self, data: &Bound<'_, PyAny>, drop_oldest: bool) -> PyResult<bool> {
        let data = Bytes::copy_from_slice(Contiguous::new(data)?.as_slice());
        match self.call(|slot, _| slot.conn.datagrams().send(data, drop_oldest))? {
            Ok(()) => Ok(true),
            Err(SendDatagramError::Blocked(_)) => Ok(false),
            Err(SendDatagramError::TooLarge) => Err(PyValueError::new_err("too_large")),
            Err(SendDatagramError::UnsupportedByPeer) => Err(PyValueError::new_err("unsupported")),
            Err(SendDatagramError::Disabled) => Err(PyValueError::new_err("disabled")),
        }
    }

    fn recv_datagrams<'py>(&self, py: Python<'py>, max: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let received = self.inspect(|slot| {
            let mut received = Vec::new();
            while received.len() < max {
                let Some(datagram) = slot.conn.datagrams().recv() else { break };
                received.push(datagram);
            }
            received
        })?;
        Ok(received.iter().map(|datagram| PyBytes::new(py, datagram)).collect())
    }

    fn max_datagram_size(&self) -> PyResult<Option<usize>> {
        self.inspect(|slot| slot.conn.datagrams().max_size())
    }

    fn datagram_space(&self) -> PyResult<usize> {
        self.inspect(|slot| slot.conn.datagrams().send_buffer_space())
    }

    // ---- the connection

    fn close(&self, py: Python<'_>, code: u64, reason: &[u8]) -> PyResult<()> {
        let code = convert::code(code)?;
        let now = self.shared.now(py, None)?;
        let reason = Bytes::copy_from_slice(reason);
        self.shared.lock()?.core.close_connection(now, self.id, code, reason).map_err(call_error)
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (handshaking, has_0rtt, accepted_0rtt, multipath, mtu, streams) = self.inspect(|slot| {
            (
                slot.conn.is_handshaking(),
                slot.conn.has_0rtt(),
                slot.conn.accepted_0rtt(),
                slot.conn.is_multipath_negotiated(),
                slot.conn.current_mtu(),
                slot.conn.streams().send_streams(),
            )
        })?;
        let dict = PyDict::new(py);
        dict.set_item("side", self.side())?;
        dict.set_item("handshaking", handshaking)?;
        dict.set_item("has_0rtt", has_0rtt)?;
        dict.set_item("accepted_0rtt", accepted_0rtt)?;
        dict.set_item("multipath", multipath)?;
        dict.set_item("mtu", mtu)?;
        dict.set_item("send_streams", streams)?;
        dict.set_item("stashed", self.inspect(|slot| slot.streams().stashed())?)?;
        Ok(dict)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.inspect(|slot| slot.conn.stats())?;
        convert::connection_stats(py, &stats)
    }

    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let now = self.shared.now(py, None)?;
        let paths = self.inspect(|slot| {
            slot.paths()
                .filter_map(|id| {
                    let network = slot.conn.network_path(id).ok()?;
                    let status = slot.conn.path_status(id).ok()?;
                    let remote_status = slot.conn.remote_path_status(id);
                    let stats = slot.conn.path_stats(id)?;
                    let answers = slot.answers(id, now);
                    Some((path_number(id), network, status, remote_status, stats, answers))
                })
                .collect::<Vec<_>>()
        })?;
        paths
            .into_iter()
            .map(|(id, network, status, remote_status, stats, answers)| {
                let dict = convert::path_stats(py, &stats)?;
                dict.set_item("id", id)?;
                dict.set_item("remote", convert::address(to_outer(network.remote())))?;
                dict.set_item("local", convert::ip(network.local_ip()))?;
                dict.set_item("status", events::status(status))?;
                dict.set_item("remote_status", remote_status.map(events::status))?;
                dict.set_item("unanswered", answers.map_or(0.0, |answers| answers.unanswered.as_secs_f64()))?;
                dict.set_item("outstanding", answers.map_or(0, |answers| answers.outstanding))?;
                dict.set_item("patience", answers.map_or(0.0, |answers| answers.patience.as_secs_f64()))?;
                dict.set_item("quiet", answers.map_or(0.0, |answers| answers.quiet.as_secs_f64()))?;
                Ok(dict)
            })
            .collect()
    }

    /// The peer's address on the lowest open path, or where it was on the first.
    fn remote(&self) -> PyResult<Option<(String, u16)>> {
        self.inspect(|slot| {
            let path = slot.paths().next().unwrap_or(PathId::ZERO);
            let network = slot.conn.network_path(path).ok()?;
            Some(convert::address(to_outer(network.remote())))
        })
    }

    /// Smoothed round-trip time of the lowest open path, in seconds.
    fn rtt(&self) -> PyResult<Option<f64>> {
        self.inspect(|slot| {
            let path = slot.paths().next()?;
            slot.conn.rtt(path).map(|rtt| rtt.as_secs_f64())
        })
    }

    fn export_key<'py>(
        &self,
        py: Python<'py>,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if length > 8160 {
            return Err(PyValueError::new_err("at most 8160 bytes of keying material"));
        }
        let mut material = vec![0; length];
        self.inspect(|slot| {
            slot.conn.crypto_session().export_keying_material(&mut material, label, context)
        })?
        .map_err(|_| PyValueError::new_err("keying material cannot be exported now"))?;
        Ok(PyBytes::new(py, &material))
    }

    // ---- paths

    #[pyo3(signature = (remote, local_ip, status))]
    fn open_path(
        &self,
        py: Python<'_>,
        remote: Address,
        local_ip: Option<&str>,
        status: &str,
    ) -> PyResult<u32> {
        let remote = to_inner(remote.parse()?);
        let local = local_ip.map(convert::parse_ip).transpose()?;
        let status = path_status(status)?;
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| slot.conn.open_path_ensure(FourTuple::new(remote, local), status, now))?
            .map(|(id, _)| path_number(id))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn close_path(&self, py: Python<'_>, path: u32, code: u64) -> PyResult<()> {
        let code = convert::code(code)?;
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| slot.close_path(now, path, code))?.map_err(PyValueError::new_err)
    }

    /// Asks for an answer on a path.
    fn ping_path(&self, path: u32) -> PyResult<()> {
        self.call(|slot, _| slot.conn.ping_path(PathId::from(path)))?
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Has a path that is dead ask by another one what has arrived, so that the rest is sent again.
    fn detour(&self, py: Python<'_>, path: u32, by: u32) -> PyResult<()> {
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| slot.detour(now, path, by))?.map_err(PyValueError::new_err)
    }

    /// Has every path ask now whether it works, however much was sent in vain.
    fn wake_paths(&self, py: Python<'_>) -> PyResult<()> {
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| wake(&mut slot.conn, now))
    }

    fn set_path_status(&self, path: u32, status: &str) -> PyResult<()> {
        let status = path_status(status)?;
        self.call(|slot, _| slot.conn.set_path_status(PathId::from(path), status))?
            .map(|_| ())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (path, idle, keep_alive))]
    fn set_path_timeouts(
        &self,
        py: Python<'_>,
        path: u32,
        idle: Option<f64>,
        keep_alive: Option<f64>,
    ) -> PyResult<()> {
        let seconds = |value: Option<f64>| match value {
            None => Ok(None),
            // Far beyond any use, and far below what overflows a clock.
            Some(value) if value > 0.0 && value <= 1e9 => Ok(Some(std::time::Duration::from_secs_f64(value))),
            Some(_) => Err(PyValueError::new_err("a positive number of seconds up to 1e9 is needed")),
        };
        let (idle, keep_alive) = (seconds(idle)?, seconds(keep_alive)?);
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| {
            slot.conn.set_path_max_idle_timeout(now, PathId::from(path), idle)?;
            slot.conn.set_path_keep_alive_interval(PathId::from(path), keep_alive)
        })?
        .map(|_| ())
        .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn nat_add(&self, address: Address) -> PyResult<()> {
        let address = address.parse()?;
        self.call(|slot, _| slot.conn.add_nat_traversal_address(address))?
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn nat_remove(&self, address: Address) -> PyResult<()> {
        let address = address.parse()?;
        self.call(|slot, _| slot.conn.remove_nat_traversal_address(address))?
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Starts a round of probes (client side); the addresses that are probed.
    fn nat_round(&self, py: Python<'_>) -> PyResult<Vec<(String, u16)>> {
        let now = self.shared.now(py, None)?;
        self.call(|slot, _| slot.conn.initiate_nat_traversal_round(now))?
            .map(|probed| probed.into_iter().map(|address| convert::address(to_outer(address))).collect())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Addresses that the peer offers (client side).
    fn nat_remote(&self) -> PyResult<Vec<(String, u16)>> {
        self.inspect(|slot| slot.conn.get_remote_nat_traversal_addresses())?
            .map(|all| all.into_iter().map(|address| convert::address(to_outer(address))).collect())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    // ---- limits

    fn set_max_streams(&self, dir: u8, count: u64) -> PyResult<()> {
        let dir = direction(dir)?;
        if count > 1 << 60 {
            return Err(PyValueError::new_err("at most 2**60 streams"));
        }
        let count = VarInt::from_u64(count).unwrap_or(VarInt::MAX);
        self.call(|slot, _| slot.conn.set_max_concurrent_streams(dir, count))
    }

    fn set_send_window(&self, window: u64) -> PyResult<()> {
        self.call(|slot, _| slot.conn.set_send_window(window))
    }

    fn set_receive_window(&self, window: u64) -> PyResult<()> {
        if window == 0 || window >= 1 << 62 {
            return Err(PyValueError::new_err("a window has from 1 to 2**62 - 1 bytes"));
        }
        self.call(|slot, _| slot.set_receive_window(window))
    }
}
