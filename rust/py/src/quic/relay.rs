//! `Relay`: datagrams between the engine and one relay server, packet by packet without Python.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use aioiroh_core::{
    EcnCodepoint,
    engine::{Engine as Core, Received},
    noq_proto::crypto::rustls::QuicClientConfig,
    route::{SlotId, Target},
};
use aioiroh_relay::{
    Link, MAX_QUEUED,
    client::{Client, Event, Options},
    frame::{Datagrams, Frame, Key, Version},
};
use bytes::BytesMut;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyTuple},
};
use rustc_hash::FxHashMap;
use rustls::{
    ClientConfig, RootCertStore,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::{
    convert::{self, Contiguous},
    engine::Engine,
    shared::Shared,
};

/// fd15:70a:510b:1::/64, the addresses of peers behind relays.
const SUBNET: [u8; 8] = [0xfd, 0x15, 0x07, 0x0a, 0x51, 0x0b, 0, 1];
/// The port of every mapped address.
const PORT: u16 = 12345;
/// Peers of one relay that have an address. If there are more, those that were quiet longest lose theirs; it is the
/// same again when they are heard again.
const MAX_PEERS: usize = 16_384;
/// Batches taken out of the engine's outbox at once.
const BATCHES: usize = 64;

/// How the certificates of relays are judged.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct RelayTls(Arc<ClientConfig>);

#[pymethods]
impl RelayTls {
    #[new]
    #[pyo3(signature = (*, roots = None, verify = true))]
    fn new(roots: Option<&[u8]>, verify: bool) -> PyResult<Self> {
        let mut store = RootCertStore::empty();
        match roots {
            Some(pem) => {
                for root in CertificateDer::pem_slice_iter(pem) {
                    let root = root.map_err(|error| PyValueError::new_err(error.to_string()))?;
                    store.add(root).map_err(|error| PyValueError::new_err(error.to_string()))?;
                }
                if store.is_empty() {
                    return Err(PyValueError::new_err("there is no certificate in it"));
                }
            }
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let provider = aioiroh_core::provider::provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let config = if verify {
            builder.with_root_certificates(store).with_no_client_auth()
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth()
        };
        Ok(Self(Arc::new(config)))
    }
}

impl RelayTls {
    pub fn tcp(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    /// The same for QUIC, with these protocols offered.
    pub fn quic(&self, alpns: Vec<Vec<u8>>) -> PyResult<QuicClientConfig> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = alpns;
        // Tickets of relays are for their TCP side.
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Which peers are known behind the relay, and under which address the engine knows them.
struct Peers {
    by_ip: FxHashMap<Ipv6Addr, Peer>,
    by_key: FxHashMap<Key, Ipv6Addr>,
    /// Nobody outside can tell which address a peer has.
    seed: [u8; 32],
    /// Counts uses.
    tick: u64,
}

struct Peer {
    key: Key,
    used: u64,
}

impl Peers {
    /// The address of a peer, which gets one if need be. None: the engine has no room for it.
    fn address(&mut self, core: &mut Core, slot: SlotId, key: &Key) -> Option<Ipv6Addr> {
        if let Some(ip) = self.by_key.get(key).copied() {
            self.use_it(&ip);
            return Some(ip);
        }
        if self.by_key.len() >= MAX_PEERS {
            self.forget_the_quiet(core);
        }
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&SUBNET);
        octets[8..].copy_from_slice(&blake3::keyed_hash(&self.seed, key).as_bytes()[..8]);
        let ip = octets.into();
        if !core.set_route(ip, vec![Target { slot: Some(slot), address: None }]) {
            return None;
        }
        self.by_key.insert(*key, ip);
        self.by_ip.insert(ip, Peer { key: *key, used: self.tick });
        self.use_it(&ip);
        Some(ip)
    }

    /// The peer at an address that is written to.
    fn use_it(&mut self, ip: &Ipv6Addr) -> Option<Key> {
        let peer = self.by_ip.get_mut(ip)?;
        self.tick += 1;
        peer.used = self.tick;
        Some(peer.key)
    }

    fn forget_the_quiet(&mut self, core: &mut Core) {
        let mut used: Vec<u64> = self.by_ip.values().map(|peer| peer.used).collect();
        let (_, limit, _) = used.select_nth_unstable(MAX_PEERS / 8);
        let limit = *limit;
        self.by_ip.retain(|ip, peer| {
            let keep = peer.used > limit;
            if !keep {
                self.by_key.remove(&peer.key);
                core.router.drop_route(ip);
            }
            keep
        });
    }
}

struct State {
    client: Option<Client>,
    peers: Peers,
}

/// One relay of an endpoint, whether connected or not.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Relay {
    engine: Arc<Shared>,
    slot: SlotId,
    // Locked before the engine, never after it.
    state: Mutex<State>,
}

#[pymethods]
impl Relay {
    #[new]
    fn new(engine: &Bound<'_, Engine>, slot: SlotId, seed: &[u8]) -> PyResult<Self> {
        let engine = engine.get().shared().clone();
        if engine.lock()?.core.router.is_virtual(slot) != Some(true) {
            return Err(PyValueError::new_err("no such virtual slot"));
        }
        let seed = convert::key(seed, "a seed")?;
        let peers = Peers { by_ip: FxHashMap::default(), by_key: FxHashMap::default(), seed, tick: 0 };
        Ok(Self { engine, slot, state: Mutex::new(State { client: None, peers }) })
    }

    /// A new TCP connection to the relay has been made.
    #[pyo3(signature = (*, host, target, secret_key, entropy, token = None, tls = None, server_name = None))]
    #[allow(clippy::too_many_arguments)]
    fn open(
        &self,
        host: String,
        target: String,
        secret_key: &[u8],
        entropy: &[u8],
        token: Option<String>,
        tls: Option<&Bound<'_, RelayTls>>,
        server_name: Option<String>,
    ) -> PyResult<()> {
        let link = match (tls, server_name) {
            (Some(tls), Some(name)) => {
                let name = ServerName::try_from(name)
                    .map_err(|_| PyValueError::new_err("the name of the relay is no host name"))?;
                Link::client(tls.get().0.clone(), name)
                    .map_err(|error| PyValueError::new_err(error.to_string()))?
            }
            (None, None) => Link::plain(),
            _ => return Err(PyValueError::new_err("TLS needs a server name, and nothing else does")),
        };
        let entropy = entropy.try_into().map_err(|_| PyValueError::new_err("24 random bytes are needed"))?;
        let secret_key = convert::key(secret_key, "a secret key")?;
        let options = Options { host, target, secret_key, token, entropy };
        self.state.lock().client = Some(Client::new(link, options));
        Ok(())
    }

    /// The TCP connection is over.
    fn drop_connection(&self) {
        self.state.lock().client = None;
    }

    /// Takes what came from the relay. Datagrams go to the engine.
    fn feed<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<(usize, Vec<Bound<'py, PyTuple>>)> {
        let data = Contiguous::new(data)?;
        let now = self.engine.now(py, None)?;
        let mut guard = self.state.lock();
        let State { client, peers } = &mut *guard;
        let Some(client) = client else { return Ok((0, Vec::new())) };
        let result = client.feed(data.as_slice());
        let mut arrived = 0;
        let mut news = Vec::new();
        let mut engine = self.engine.lock()?;
        while let Some(event) = client.poll() {
            match event {
                Event::Frame(Frame::Receive(datagrams)) => {
                    let Some(source) = peers.address(&mut engine.core, self.slot, &datagrams.peer) else {
                        continue;
                    };
                    let received = received(source, datagrams);
                    engine.with_output(|core, output| core.receive(now, received, output));
                    arrived += 1;
                }
                event => news.push(event),
            }
        }
        drop(engine);
        drop(guard);
        let mut events: Vec<Bound<'py, PyTuple>> =
            news.into_iter().map(|event| tuple(py, event)).collect::<PyResult<_>>()?;
        if let Err(error) = result {
            events.push(("over", error.kind(), error.to_string()).into_pyobject(py)?);
        }
        Ok((arrived, events))
    }

    /// The bytes for the relay: what the engine wants to send to peers behind it, and all else.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut guard = self.state.lock();
        let State { client, peers } = &mut *guard;
        let Some(client) = client else { return Ok(PyBytes::new(py, b"")) };
        while client.is_open() && client.queued() < MAX_QUEUED {
            let taken = self.engine.lock()?.core.router.take(self.slot, BATCHES);
            if taken.is_empty() {
                break;
            }
            for held in taken {
                let SocketAddr::V6(destination) = held.destination else { continue };
                if let Some(peer) = peers.use_it(destination.ip()) {
                    let ecn = held.ecn.map_or(0, |ecn| ecn as u8);
                    let size = held.segment_size.and_then(|size| u16::try_from(size).ok());
                    client.send(&peer, ecn, size, &held.contents);
                }
            }
        }
        Ok(PyBytes::new(py, &client.take()))
    }

    /// Throws away what waits for a relay that does not answer: QUIC sends it again.
    fn discard(&self) -> PyResult<usize> {
        let mut engine = self.engine.lock()?;
        let mut count = 0;
        loop {
            let taken = engine.core.router.take(self.slot, BATCHES).len();
            if taken == 0 {
                return Ok(count);
            }
            count += taken;
        }
    }

    fn ping(&self, data: &[u8]) -> PyResult<()> {
        let data = data.try_into().map_err(|_| PyValueError::new_err("a ping has 8 bytes"))?;
        if let Some(client) = &mut self.state.lock().client {
            client.ping(data);
        }
        Ok(())
    }

    /// Says goodbye; `take` has the bytes.
    fn close(&self) {
        if let Some(client) = &mut self.state.lock().client {
            client.close();
        }
    }

    /// The address under which the engine reaches that peer through this relay; None when it has no room.
    fn address(&self, peer: &[u8]) -> PyResult<Option<(String, u16)>> {
        let peer = convert::key(peer, "an endpoint id")?;
        let mut state = self.state.lock();
        let mut engine = self.engine.lock()?;
        let ip = state.peers.address(&mut engine.core, self.slot, &peer);
        Ok(ip.map(|ip| convert::address((ip, PORT).into())))
    }

    /// The engine has no way to any peer through this relay any more.
    fn release(&self) -> PyResult<()> {
        let mut state = self.state.lock();
        let mut engine = self.engine.lock()?;
        for (ip, _) in state.peers.by_ip.drain() {
            engine.core.router.drop_route(&ip);
        }
        state.peers.by_key.clear();
        state.client = None;
        Ok(())
    }

    /// The peer with that address.
    fn peer<'py>(&self, py: Python<'py>, ip: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let std::net::IpAddr::V6(ip) = convert::parse_ip(ip)? else { return Ok(None) };
        Ok(self.state.lock().peers.by_ip.get(&ip).map(|peer| PyBytes::new(py, &peer.key)))
    }

    /// Frames that came since the handshake of the connection at hand, and datagram frames that were dropped.
    #[getter]
    fn counters(&self) -> (u64, u64) {
        self.state.lock().client.as_ref().map_or((0, 0), |client| (client.frames_received, client.dropped))
    }
}

fn received(source: Ipv6Addr, datagrams: Datagrams) -> Received {
    let data = BytesMut::from(datagrams.contents);
    Received {
        slot: None,
        source: (source, PORT).into(),
        local_ip: None,
        // As upstream: who sent it marked the way to the relay, not this one.
        ecn: None::<EcnCodepoint>,
        segment_size: datagrams.segment_size.map_or(data.len(), usize::from),
        data,
    }
}

fn tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::Connected(version) => {
            ("connected", if version == Version::V1 { 1 } else { 2 }).into_pyobject(py)
        }
        Event::Frame(frame) => match frame {
            Frame::Gone(key) => ("gone", PyBytes::new(py, &key)).into_pyobject(py),
            Frame::Pong(data) => ("pong", PyBytes::new(py, &data)).into_pyobject(py),
            Frame::Health(text) => ("health", text).into_pyobject(py),
            Frame::Restarting { reconnect_in_ms, try_for_ms } => {
                ("restarting", reconnect_in_ms, try_for_ms).into_pyobject(py)
            }
            Frame::Status(code) => ("status", code).into_pyobject(py),
            // These are dealt with where they are.
            Frame::Send(_) | Frame::Receive(_) | Frame::Ping(_) => ("nothing",).into_pyobject(py),
        },
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RelayTls>()?;
    module.add_class::<Relay>()
}
