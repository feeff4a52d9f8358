//! What an application may tune, with upstream's defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

#[cfg(feature = "qlog")]
use noq_proto::QlogFileFactory;
use noq_proto::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, congestion};

use crate::witness::Witnessed;

/// Above this a stream can hold more unread chunks than the QUIC library tolerates.
pub const MAX_STREAM_RECEIVE_WINDOW: u64 = 2_500_000;

/// Congestion control algorithm of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    Cubic,
    NewReno,
    Bbr3,
}

/// QUIC transport settings of one connection (RFC 9000 section 7.4 and the multipath and NAT
/// traversal extensions).
#[derive(Debug, Clone)]
pub struct Transport {
    pub max_bidi_streams: u64,
    pub max_uni_streams: u64,
    pub idle_timeout: Option<Duration>,
    pub keep_alive: Option<Duration>,
    pub path_idle_timeout: Option<Duration>,
    pub path_keep_alive: Option<Duration>,
    pub max_paths: u32,
    pub nat_addresses: u8,
    pub stream_receive_window: u64,
    pub receive_window: u64,
    pub send_window: u64,
    pub datagram_receive_buffer: Option<usize>,
    pub datagram_send_buffer: usize,
    pub congestion: Congestion,
    pub initial_rtt: Duration,
    pub initial_mtu: u16,
    pub min_mtu: u16,
    pub mtu_discovery: bool,
    pub mtu_upper_bound: u16,
    pub segmentation_offload: bool,
    pub send_fairness: bool,
    pub packet_threshold: u32,
    pub crypto_buffer: usize,
    pub pad_to_mtu: bool,
    pub send_observed_addresses: bool,
    pub receive_observed_addresses: bool,
    pub qlog_dir: Option<PathBuf>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            max_bidi_streams: 100,
            max_uni_streams: 100,
            idle_timeout: Some(Duration::from_secs(30)),
            keep_alive: Some(Duration::from_secs(5)),
            path_idle_timeout: Some(Duration::from_secs(15)),
            path_keep_alive: Some(Duration::from_secs(5)),
            max_paths: 8,
            nat_addresses: 32,
            stream_receive_window: 1_250_000,
            receive_window: 16 << 20,
            send_window: 10_000_000,
            datagram_receive_buffer: Some(1_250_000),
            datagram_send_buffer: 1 << 20,
            congestion: Congestion::Cubic,
            initial_rtt: Duration::from_millis(333),
            initial_mtu: 1200,
            min_mtu: 1200,
            mtu_discovery: true,
            mtu_upper_bound: 1452,
            segmentation_offload: true,
            send_fairness: true,
            packet_threshold: 3,
            crypto_buffer: 16 * 1024,
            pad_to_mtu: false,
            send_observed_addresses: false,
            receive_observed_addresses: false,
            qlog_dir: None,
        }
    }
}

/// A setting is outside what the protocol or the engine allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSetting(pub &'static str);

fn varint(value: u64, what: &'static str) -> Result<VarInt, InvalidSetting> {
    VarInt::from_u64(value).map_err(|_| InvalidSetting(what))
}

impl Transport {
    pub(crate) fn build(&self) -> Result<Arc<TransportConfig>, InvalidSetting> {
        if !(1..=MAX_STREAM_RECEIVE_WINDOW).contains(&self.stream_receive_window) {
            return Err(InvalidSetting("stream_receive_window must be from 1 to 2500000 bytes"));
        }
        if self.receive_window == 0 {
            return Err(InvalidSetting("receive_window must be positive"));
        }
        if self.min_mtu < 1200 || self.initial_mtu < self.min_mtu {
            return Err(InvalidSetting("initial_mtu and min_mtu must be at least 1200 bytes"));
        }
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(varint(self.max_bidi_streams, "max_bidi_streams is too large")?)
            .max_concurrent_uni_streams(varint(self.max_uni_streams, "max_uni_streams is too large")?)
            .max_idle_timeout(match self.idle_timeout {
                Some(timeout) => Some(
                    IdleTimeout::try_from(timeout).map_err(|_| InvalidSetting("idle_timeout is too long"))?,
                ),
                None => None,
            })
            .keep_alive_interval(self.keep_alive)
            .default_path_max_idle_timeout(self.path_idle_timeout)
            .default_path_keep_alive_interval(self.path_keep_alive)
            .stream_receive_window(varint(self.stream_receive_window, "stream_receive_window is too large")?)
            .receive_window(varint(self.receive_window, "receive_window is too large")?)
            .send_window(self.send_window)
            .datagram_receive_buffer_size(self.datagram_receive_buffer)
            .datagram_send_buffer_size(self.datagram_send_buffer)
            .initial_rtt(self.initial_rtt)
            .min_mtu(self.min_mtu)
            .initial_mtu(self.initial_mtu)
            .mtu_discovery_config(self.mtu_discovery.then(|| {
                let mut discovery = MtuDiscoveryConfig::default();
                discovery.upper_bound(self.mtu_upper_bound);
                discovery
            }))
            .enable_segmentation_offload(self.segmentation_offload)
            .send_fairness(self.send_fairness)
            .packet_threshold(self.packet_threshold)
            .crypto_buffer_size(self.crypto_buffer)
            .pad_to_mtu(self.pad_to_mtu)
            .send_observed_address_reports(self.send_observed_addresses)
            .receive_observed_address_reports(self.receive_observed_addresses)
            .server_handshake_migration(true);
        if self.max_paths > 0 {
            config.max_concurrent_multipath_paths(self.max_paths);
            if self.nat_addresses > 0 {
                config.max_remote_nat_traversal_addresses(self.nat_addresses);
            }
        }
        match self.congestion {
            Congestion::Cubic => config.congestion_controller_factory(witnessed::<congestion::CubicConfig>()),
            Congestion::NewReno => {
                config.congestion_controller_factory(witnessed::<congestion::NewRenoConfig>())
            }
            Congestion::Bbr3 => config.congestion_controller_factory(witnessed::<congestion::Bbr3Config>()),
        };
        // A browser has no files.
        #[cfg(feature = "qlog")]
        if let Some(dir) = &self.qlog_dir {
            config.qlog_factory(Arc::new(QlogFileFactory::new(dir.clone())));
        }
        #[cfg(not(feature = "qlog"))]
        if self.qlog_dir.is_some() {
            return Err(InvalidSetting("this build has no qlog; build it with the cargo feature `qlog`"));
        }
        Ok(Arc::new(config))
    }
}

fn witnessed<F: Default>() -> Arc<Witnessed<F>> {
    Arc::new(Witnessed(Arc::new(F::default())))
}

/// Settings of an endpoint.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Ed25519 seed.
    pub secret: [u8; 32],
    /// Protocols accepted from peers, most wanted first; none accepts nothing.
    pub alpns: Vec<Vec<u8>>,
    pub transport: Transport,
    /// File that gets TLS secrets in NSS format.
    pub keylog: Option<PathBuf>,
    /// Seed of the engine's own random choices, for simulations.
    pub seed: Option<[u8; 32]>,
    /// Connection attempts that may wait for a decision; more are refused.
    pub max_incoming: usize,
    /// With this many attempts waiting, peers whose address is not validated get a Retry.
    pub retry_above: Option<usize>,
    /// Session tickets kept for 0-RTT, in all.
    pub max_tickets: usize,
}
