//! QUIC settings from Python.

use std::{path::PathBuf, time::Duration};

use aioiroh_core::config::{Congestion, Transport as Settings};
use pyo3::{exceptions::PyValueError, prelude::*};

/// QUIC transport settings; defaults are upstream's.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Transport(pub Settings);

fn seconds(value: Option<f64>, what: &str) -> PyResult<Option<Duration>> {
    value
        .map(|value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| PyValueError::new_err(format!("{what} is a positive number of seconds")))
        })
        .transpose()
}

#[pymethods]
impl Transport {
    #[new]
    #[pyo3(signature = (
        *,
        max_bidi_streams = 100,
        max_uni_streams = 100,
        idle_timeout = Some(30.0),
        keep_alive = Some(5.0),
        path_idle_timeout = Some(15.0),
        path_keep_alive = Some(5.0),
        max_paths = 8,
        nat_addresses = 32,
        stream_receive_window = 1_250_000,
        receive_window = 16_777_216,
        send_window = 10_000_000,
        datagram_receive_buffer = Some(1_250_000),
        datagram_send_buffer = 1_048_576,
        congestion = "cubic",
        initial_rtt = 0.333,
        initial_mtu = 1200,
        min_mtu = 1200,
        mtu_discovery = true,
        mtu_upper_bound = 1452,
        segmentation_offload = true,
        send_fairness = true,
        packet_threshold = 3,
        crypto_buffer = 16_384,
        pad_to_mtu = false,
        send_observed_addresses = false,
        receive_observed_addresses = false,
        qlog_dir = None,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        max_bidi_streams: u64,
        max_uni_streams: u64,
        idle_timeout: Option<f64>,
        keep_alive: Option<f64>,
        path_idle_timeout: Option<f64>,
        path_keep_alive: Option<f64>,
        max_paths: u32,
        nat_addresses: u8,
        stream_receive_window: u64,
        receive_window: u64,
        send_window: u64,
        datagram_receive_buffer: Option<usize>,
        datagram_send_buffer: usize,
        congestion: &str,
        initial_rtt: f64,
        initial_mtu: u16,
        min_mtu: u16,
        mtu_discovery: bool,
        mtu_upper_bound: u16,
        segmentation_offload: bool,
        send_fairness: bool,
        packet_threshold: u32,
        crypto_buffer: usize,
        pad_to_mtu: bool,
        send_observed_addresses: bool,
        receive_observed_addresses: bool,
        qlog_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let congestion = match congestion {
            "cubic" => Congestion::Cubic,
            "newreno" => Congestion::NewReno,
            "bbr3" => Congestion::Bbr3,
            other => {
                return Err(PyValueError::new_err(format!(
                    "congestion is 'cubic', 'newreno' or 'bbr3', not {other:?}"
                )));
            }
        };
        Ok(Self(Settings {
            max_bidi_streams,
            max_uni_streams,
            idle_timeout: seconds(idle_timeout, "idle_timeout")?,
            keep_alive: seconds(keep_alive, "keep_alive")?,
            path_idle_timeout: seconds(path_idle_timeout, "path_idle_timeout")?,
            path_keep_alive: seconds(path_keep_alive, "path_keep_alive")?,
            max_paths,
            nat_addresses,
            stream_receive_window,
            receive_window,
            send_window,
            datagram_receive_buffer,
            datagram_send_buffer,
            congestion,
            initial_rtt: seconds(Some(initial_rtt), "initial_rtt")?.unwrap_or_default(),
            initial_mtu,
            min_mtu,
            mtu_discovery,
            mtu_upper_bound,
            segmentation_offload,
            send_fairness,
            packet_threshold,
            crypto_buffer,
            pad_to_mtu,
            send_observed_addresses,
            receive_observed_addresses,
            qlog_dir,
        }))
    }
}
