//! What an application asks of an endpoint.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use noq_proto::{ClientConfig, Connection, ConnectionHandle, VarInt, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    Instant,
    config::Transport,
    connection::Slot,
    engine::{CallError, Engine, Pending},
    event::{Close, ConnId},
    outcome::close_of,
    probe::probe,
    route::{Outgoing, Output, SlotId, Target, to_inner},
    silence::wake,
    tls::server_name,
};

impl Engine {
    fn insert(&mut self, handle: ConnectionHandle, conn: Connection, window: u64, keyless: bool) -> ConnId {
        let index = handle.0;
        while self.conns.len() <= index {
            self.conns.push(None);
            self.generations.push(1);
        }
        let id = (u64::from(self.generations[index]) << 32) | index as u64;
        self.conns[index] = Some(Box::new(Slot::new(id, conn, window, keyless)));
        self.live += 1;
        self.touch(id);
        id
    }

    /// Dials a peer by key at an address, which may be a mapped one with a route.
    pub fn connect(
        &mut self,
        now: Instant,
        address: SocketAddr,
        peer: [u8; 32],
        alpns: Vec<Vec<u8>>,
        transport: Option<&Transport>,
        early_data: bool,
    ) -> Result<ConnId, CallError> {
        if alpns.is_empty() || alpns.iter().any(|alpn| alpn.is_empty() || alpn.len() > 255) {
            return Err(CallError::Invalid("an ALPN has 1 to 255 bytes, and at least one is needed".into()));
        }
        let key = (alpns, early_data);
        let crypto = match self.clients.get(&key) {
            Some(crypto) => crypto.clone(),
            None => {
                if self.clients.len() >= 64 {
                    self.clients.clear();
                }
                let crypto = Arc::new(self.tls.client(key.0.clone(), early_data));
                self.clients.insert(key, crypto.clone());
                crypto
            }
        };
        self.dial(now, address, &server_name(&peer), crypto, transport, false)
    }

    /// Dials a server that proves its name by an ordinary certificate, as `crypto` judges it.
    pub fn connect_named(
        &mut self,
        now: Instant,
        address: SocketAddr,
        name: &str,
        crypto: Arc<QuicClientConfig>,
        transport: Option<&Transport>,
    ) -> Result<ConnId, CallError> {
        self.dial(now, address, name, crypto, transport, true)
    }

    fn dial(
        &mut self,
        now: Instant,
        address: SocketAddr,
        name: &str,
        crypto: Arc<QuicClientConfig>,
        transport: Option<&Transport>,
        keyless: bool,
    ) -> Result<ConnId, CallError> {
        if !self.accepting {
            return Err(CallError::Invalid("the endpoint is closing".into()));
        }
        let (config, window) = match transport {
            Some(settings) => (settings.build()?, settings.receive_window),
            None => (self.transport.clone(), self.transport_settings.receive_window),
        };
        let mut client = ClientConfig::new(crypto);
        client.transport_config(config).token_store(self.tokens.clone());
        let (handle, conn) =
            self.guarded(|engine| engine.endpoint.connect(now, client, to_inner(address), name))??;
        Ok(self.insert(handle, conn, window, keyless))
    }

    fn take_pending(&mut self, id: u64) -> Result<noq_proto::Incoming, CallError> {
        self.alive()?;
        let pending = self.pending.remove(&id).ok_or(CallError::Gone)?;
        if self.pending.is_empty() {
            self.pending_order.clear();
        }
        Ok(pending.incoming)
    }

    /// Goes on with the handshake of a connection attempt.
    ///
    /// An error with a close says that the attempt failed at once.
    pub fn accept(
        &mut self,
        now: Instant,
        id: u64,
        transport: Option<&Transport>,
        alpns: Option<Vec<Vec<u8>>>,
        output: &mut dyn Output,
    ) -> Result<Result<ConnId, Close>, CallError> {
        let mut window = self.transport_settings.receive_window;
        let mut config = None;
        if transport.is_some() || alpns.is_some() {
            let mut server = self.server.clone();
            if let Some(settings) = transport {
                server.transport_config(settings.build()?);
                window = settings.receive_window;
            }
            if let Some(alpns) = alpns {
                server.crypto = Arc::new(self.tls.server(alpns));
            }
            config = Some(Arc::new(server));
        }
        let incoming = self.take_pending(id)?;
        self.buffer.clear();
        let result = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let result = engine.endpoint.accept(incoming, now, &mut buffer, config);
            engine.buffer = buffer;
            result
        })?;
        match result {
            Ok((handle, conn)) => {
                self.stats.accepted += 1;
                Ok(Ok(self.insert(handle, conn, window, self.tls.is_certified())))
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(&transmit, output);
                }
                Ok(Err(close_of(error.cause)))
            }
        }
    }

    pub fn refuse(&mut self, id: u64, output: &mut dyn Output) -> Result<(), CallError> {
        let incoming = self.take_pending(id)?;
        self.stats.refused += 1;
        self.buffer.clear();
        let transmit = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let transmit = engine.endpoint.refuse(incoming, &mut buffer);
            engine.buffer = buffer;
            transmit
        })?;
        self.respond(&transmit, output);
        Ok(())
    }

    /// False if a Retry is not possible; the attempt then still waits.
    pub fn retry(&mut self, now: Instant, id: u64, output: &mut dyn Output) -> Result<bool, CallError> {
        self.date_tokens(now);
        let incoming = self.take_pending(id)?;
        self.buffer.clear();
        let result = self.guarded(|engine| {
            let mut buffer = std::mem::take(&mut engine.buffer);
            let result = engine.endpoint.retry(incoming, &mut buffer);
            engine.buffer = buffer;
            result
        })?;
        match result {
            Ok(transmit) => {
                self.stats.retried += 1;
                self.respond(&transmit, output);
                Ok(true)
            }
            Err(error) => {
                self.pending.insert(id, Pending { incoming: error.into_incoming(), since: now });
                self.pending_order.push_back(id);
                Ok(false)
            }
        }
    }

    pub fn ignore(&mut self, id: u64) -> Result<(), CallError> {
        let incoming = self.take_pending(id)?;
        self.guarded(|engine| engine.endpoint.ignore(incoming))
    }

    /// Protocols for connections accepted from now on; none accepts nothing.
    pub fn set_alpns(&mut self, alpns: Vec<Vec<u8>>) -> Result<(), CallError> {
        self.alive()?;
        self.alpns = alpns;
        self.server.crypto = Arc::new(self.tls.server(self.alpns.clone()));
        self.endpoint.set_server_config(Some(Arc::new(self.server.clone())));
        Ok(())
    }

    /// Those who connect from now on see this certificate in place of the endpoint's key, and stay
    /// without one. May be called again, with the next certificate.
    pub fn use_certificate(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), CallError> {
        self.alive()?;
        self.tls.use_certificate(chain, key).map_err(|error| CallError::Invalid(error.to_string()))?;
        self.set_alpns(self.alpns.clone())
    }

    /// Closes every connection and takes no more.
    pub fn close(&mut self, now: Instant, code: u64, reason: Bytes, output: &mut dyn Output) {
        self.accepting = false;
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let _ = self.refuse(id, output);
        }
        if self.failed.is_some() {
            return;
        }
        for id in self.conns.iter().flatten().map(|slot| slot.id).collect::<Vec<_>>() {
            let _ = self.close_connection(now, id, code, reason.clone());
        }
    }

    pub fn close_connection(
        &mut self,
        now: Instant,
        id: ConnId,
        code: u64,
        reason: Bytes,
    ) -> Result<(), CallError> {
        let code =
            VarInt::from_u64(code).map_err(|_| CallError::Invalid("a close code is below 2^62".into()))?;
        self.call(id, |slot, events| {
            slot.conn.close(now, code, reason.clone());
            slot.closed(Close::Local { code: code.into_inner(), reason }, events);
        })
    }

    /// Local addresses have changed: every path looks for its way anew, and asks whether it works.
    ///
    /// None is given up here. What was under way on one that is given up is sent again late; and the peer follows one
    /// that comes from another address of ours, if it gets there.
    pub fn network_changed(&mut self, now: Instant) {
        let open: Vec<ConnId> = self.conns.iter().flatten().map(|slot| slot.id).collect();
        for id in open {
            // Connections that are closed have no paths left to look at.
            let _ = self.call(id, |slot, _| wake(&mut slot.conn, now));
        }
    }

    pub fn set_route(&mut self, ip: Ipv6Addr, targets: Vec<Target>) -> bool {
        self.router.set_route(ip, targets)
    }

    /// Sends a small datagram that is not QUIC from each of these slots to each of these ports.
    pub fn probe(&mut self, slots: &[SlotId], ip: IpAddr, ports: &[u16], output: &mut dyn Output) {
        for &slot in slots {
            for &port in ports {
                let contents = probe(port);
                let outgoing = Outgoing {
                    destination: SocketAddr::new(ip, port),
                    source_ip: None,
                    ecn: None,
                    segment_size: None,
                    contents: &contents,
                };
                self.router.send_from(slot, &outgoing, output);
                self.router.stats.sent_probes += 1;
            }
        }
    }

    /// Sockets have changed: connections that waited for room look again.
    pub fn unpark(&mut self) {
        self.dirty.extend(self.parked.drain(..));
    }

    /// A socket has room again.
    pub fn writable(&mut self, slot: SlotId, output: &mut dyn Output) {
        self.router.writable(slot, output);
        self.unpark();
    }
}
