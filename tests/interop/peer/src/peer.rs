//! The endpoint, and the connections and streams that requests name by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_lite::StreamExt;
use iroh::endpoint::{
    ConnectOptions, Connection, IncomingZeroRtt, OutgoingZeroRtt, QuicTransportConfig, RecvStream,
    SendStream, VarInt, ZeroRttStatus, presets,
};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, RelayMode, RelayUrl, SecretKey};
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc;

use crate::blobs::Blobs;
use crate::failure::{Failure, connection};
use crate::request::{Request, pattern};
use crate::serve::Door;

/// What serves the connections of an ALPN.
#[derive(Clone, Copy, Default)]
pub enum Role {
    /// They wait for the request `accept`.
    #[default]
    Queue,
    Echo,
    Bench,
    Blobs,
}

#[derive(Clone)]
pub enum Conn {
    Ready(Connection),
    Outgoing(Connection<OutgoingZeroRtt>),
    Incoming(Connection<IncomingZeroRtt>),
}

/// The same expression for each state that a connection may be in.
macro_rules! each {
    ($conn:expr, $name:ident => $body:expr) => {
        match $conn {
            Conn::Ready($name) => $body,
            Conn::Outgoing($name) => $body,
            Conn::Incoming($name) => $body,
        }
    };
}

pub struct Peer {
    endpoint: Mutex<Option<Endpoint>>,
    pub roles: Mutex<HashMap<Vec<u8>, Role>>,
    pub door: Mutex<Door>,
    pub blobs: Mutex<Option<Blobs>>,
    pub arrivals: (
        mpsc::UnboundedSender<Conn>,
        AsyncMutex<mpsc::UnboundedReceiver<Conn>>,
    ),
    pub failed_handshakes: Mutex<Vec<Value>>,
    next: AtomicU64,
    conns: Mutex<HashMap<u64, Conn>>,
    sends: Mutex<HashMap<u64, Arc<AsyncMutex<SendStream>>>>,
    recvs: Mutex<HashMap<u64, Arc<AsyncMutex<RecvStream>>>>,
}

impl Default for Peer {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            endpoint: Mutex::default(),
            roles: Mutex::default(),
            door: Mutex::default(),
            blobs: Mutex::default(),
            arrivals: (sender, AsyncMutex::new(receiver)),
            failed_handshakes: Mutex::default(),
            next: AtomicU64::new(1),
            conns: Mutex::default(),
            sends: Mutex::default(),
            recvs: Mutex::default(),
        }
    }
}

impl Peer {
    pub fn endpoint(&self) -> Result<Endpoint, Failure> {
        let endpoint = self.endpoint.lock().unwrap().clone();
        endpoint.ok_or_else(|| Failure::text("request", "the first request must be bind"))
    }

    fn conn(&self, request: &Request) -> Result<Conn, Failure> {
        let number = request.number("conn")?;
        let found = self.conns.lock().unwrap().get(&number).cloned();
        found.ok_or_else(|| Failure::text("request", format!("no connection {number}")))
    }

    /// A connection whose handshake is complete.
    pub fn connection(&self, request: &Request) -> Result<Connection, Failure> {
        match self.conn(request)? {
            Conn::Ready(connection) => Ok(connection),
            _ => Err(Failure::text("request", "the handshake is not complete")),
        }
    }

    fn send(&self, request: &Request) -> Result<Arc<AsyncMutex<SendStream>>, Failure> {
        let number = request.number("stream")?;
        let found = self.sends.lock().unwrap().get(&number).cloned();
        found.ok_or_else(|| Failure::text("request", format!("no send stream {number}")))
    }

    fn recv(&self, request: &Request) -> Result<Arc<AsyncMutex<RecvStream>>, Failure> {
        let number = request.number("stream")?;
        let found = self.recvs.lock().unwrap().get(&number).cloned();
        found.ok_or_else(|| Failure::text("request", format!("no receive stream {number}")))
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn keep(&self, conn: Conn) -> Value {
        let number = self.number();
        let mut known = json!({"conn": number});
        if let Conn::Ready(connection) = &conn {
            known["peer"] = connection.remote_id().to_string().into();
            known["alpn"] = String::from_utf8_lossy(connection.alpn()).into();
        }
        self.conns.lock().unwrap().insert(number, conn);
        known
    }

    fn keep_stream(&self, send: Option<SendStream>, recv: Option<RecvStream>) -> Value {
        let number = self.number();
        let mut known = json!({"stream": number});
        if let Some(send) = send {
            known["quic_id"] = u64::from(VarInt::from(send.id())).into();
            let send = Arc::new(AsyncMutex::new(send));
            self.sends.lock().unwrap().insert(number, send);
        }
        if let Some(recv) = recv {
            known["quic_id"] = u64::from(VarInt::from(recv.id())).into();
            known["early"] = recv.is_0rtt().into();
            let recv = Arc::new(AsyncMutex::new(recv));
            self.recvs.lock().unwrap().insert(number, recv);
        }
        known
    }

    pub async fn shut_down(&self) {
        let endpoint = self.endpoint.lock().unwrap().take();
        if let Some(endpoint) = endpoint {
            let _ = tokio::time::timeout(Duration::from_secs(2), endpoint.close()).await;
        }
    }

    pub async fn act(
        self: &Arc<Self>,
        action: &str,
        request: &Request,
    ) -> Option<Result<Value, Failure>> {
        Some(match action {
            "bind" => self.bind(request).await,
            "door" => self.set_door(request),
            "connect" => self.connect(request).await,
            "completed" => self.completed(request).await,
            "accept" => self.accept(request).await,
            "failed_handshakes" => Ok(json!({"failed": *self.failed_handshakes.lock().unwrap()})),
            "shut_down" => {
                self.shut_down().await;
                Ok(json!({}))
            }
            "close" | "closed" | "open" | "accept_stream" | "send_datagram" | "read_datagram"
            | "info" | "paths" | "export_key" => self.on_connection(action, request).await,
            "write" | "finish" | "reset" | "stopped" | "priority" => {
                self.on_send(action, request).await
            }
            "read" | "read_all" | "stop" | "received_reset" => self.on_recv(action, request).await,
            _ => return None,
        })
    }

    async fn bind(self: &Arc<Self>, request: &Request) -> Result<Value, Failure> {
        let relays = relays(request)?;
        let relay = if relays.is_empty() {
            RelayMode::Disabled
        } else {
            RelayMode::custom(relays.clone())
        };
        let mut builder = Endpoint::builder(presets::Minimal)
            .relay_mode(relay)
            .clear_address_lookup()
            .clear_ip_transports()
            .transport_config(transport(request)?);
        if request.get("secret").is_some() {
            let secret: [u8; 32] = request.bytes("secret")?.as_slice().try_into()?;
            builder = builder.secret_key(SecretKey::from_bytes(&secret));
        }
        for addr in request.list("addrs")? {
            builder = builder.bind_addr(addr.as_str().unwrap_or_default())?;
        }
        if request.get("ca").is_some() {
            builder =
                builder.ca_tls_config(CaTlsConfig::custom_roots([request.bytes("ca")?.into()]));
        }
        if request.flag("keylog") {
            builder = builder.keylog(true);
        }
        if request.get("max_tickets").is_some() {
            builder = builder.max_tls_tickets(request.number("max_tickets")? as usize);
        }
        let mut alpns = Vec::new();
        let roles = request.get("alpns").and_then(Value::as_object).cloned();
        for (alpn, role) in roles.unwrap_or_default() {
            let role = match role.as_str() {
                Some("queue") => Role::Queue,
                Some("echo") => Role::Echo,
                Some("bench") => Role::Bench,
                Some("blobs") => Role::Blobs,
                _ => return Err(Failure::text("request", format!("no such role: {role}"))),
            };
            alpns.push(alpn.clone().into_bytes());
            self.roles.lock().unwrap().insert(alpn.into_bytes(), role);
        }
        let endpoint = builder.alpns(alpns).bind().await?;
        let addrs: Vec<String> = endpoint
            .bound_sockets()
            .iter()
            .map(|addr| addr.to_string())
            .collect();
        if !relays.is_empty() {
            endpoint.online().await;
        }
        let home = endpoint.addr().relay_urls().next().map(RelayUrl::to_string);
        let known = json!({"peer": endpoint.id().to_string(), "addrs": addrs, "relay": home});
        *self.endpoint.lock().unwrap() = Some(endpoint);
        tokio::spawn(crate::serve::accept_all(self.clone()));
        Ok(known)
    }

    fn set_door(&self, request: &Request) -> Result<Value, Failure> {
        *self.door.lock().unwrap() = match request.text("mode")? {
            "accept" => Door::Accept,
            "early" => Door::Early,
            "refuse" => Door::Refuse,
            "retry" => Door::Retry,
            "ignore" => Door::Ignore,
            other => return Err(Failure::text("request", format!("no such mode: {other}"))),
        };
        Ok(json!({}))
    }

    async fn connect(&self, request: &Request) -> Result<Value, Failure> {
        let alpn = request.text("alpn")?.as_bytes();
        let more = request.get("more_alpns").and_then(Value::as_array);
        let more = more.into_iter().flatten().filter_map(Value::as_str);
        let mut options = ConnectOptions::new()
            .with_additional_alpns(more.map(|alpn| alpn.as_bytes().to_vec()).collect());
        if request.get("transport").is_some() {
            options = options.with_transport_config(transport(request)?);
        }
        let address = request.address()?;
        let endpoint = self.endpoint()?;
        let connecting = endpoint.connect_with_opts(address, alpn, options).await?;
        if request.flag("early") {
            return match connecting.into_0rtt() {
                Ok(early) => {
                    let mut known = self.keep(Conn::Outgoing(early));
                    known["early"] = true.into();
                    Ok(known)
                }
                Err(connecting) => {
                    let mut known = self.keep(Conn::Ready(connecting.await?));
                    known["early"] = false.into();
                    Ok(known)
                }
            };
        }
        Ok(self.keep(Conn::Ready(connecting.await?)))
    }

    /// Waits for the handshake of an early connection, which gets a second number for what it became.
    async fn completed(&self, request: &Request) -> Result<Value, Failure> {
        match self.conn(request)? {
            Conn::Ready(connection) => Ok(self.keep(Conn::Ready(connection))),
            Conn::Incoming(early) => Ok(self.keep(Conn::Ready(early.handshake_completed().await?))),
            Conn::Outgoing(early) => {
                let (accepted, connection) = match early.handshake_completed().await? {
                    ZeroRttStatus::Accepted(connection) => (true, connection),
                    ZeroRttStatus::Rejected(connection) => (false, connection),
                };
                let mut known = self.keep(Conn::Ready(connection));
                known["accepted"] = accepted.into();
                Ok(known)
            }
        }
    }

    async fn accept(&self, _request: &Request) -> Result<Value, Failure> {
        let arrived = self.arrivals.1.lock().await.recv().await;
        let conn = arrived.ok_or_else(|| Failure::text("closed", "the endpoint is closed"))?;
        Ok(self.keep(conn))
    }

    async fn on_connection(&self, action: &str, request: &Request) -> Result<Value, Failure> {
        let conn = self.conn(request)?;
        let uni = request.flag("uni");
        match action {
            "close" => {
                let reason = request.text("reason").unwrap_or_default();
                each!(&conn, c => c.close(request.code()?, reason.as_bytes()));
                Ok(json!({}))
            }
            "closed" => Ok(connection(&each!(&conn, c => c.closed().await))),
            "open" if uni => {
                let send = each!(&conn, c => c.open_uni().await)?;
                Ok(self.keep_stream(Some(send), None))
            }
            "open" => {
                let (send, recv) = each!(&conn, c => c.open_bi().await)?;
                Ok(self.keep_stream(Some(send), Some(recv)))
            }
            "accept_stream" if uni => {
                let recv = each!(&conn, c => c.accept_uni().await)?;
                Ok(self.keep_stream(None, Some(recv)))
            }
            "accept_stream" => {
                let (send, recv) = each!(&conn, c => c.accept_bi().await)?;
                Ok(self.keep_stream(Some(send), Some(recv)))
            }
            "paths" => match &conn {
                Conn::Ready(connection) => paths(connection, request).await,
                _ => Err(Failure::text("request", "the handshake is not complete")),
            },
            "send_datagram" => {
                let data = Bytes::from(request.data()?);
                if request.flag("wait") {
                    each!(&conn, c => c.send_datagram_wait(data).await)?;
                } else {
                    each!(&conn, c => c.send_datagram(data))?;
                }
                Ok(json!({}))
            }
            "read_datagram" => {
                let data = each!(&conn, c => c.read_datagram().await)?;
                Ok(json!({"hex": HEXLOWER.encode(&data)}))
            }
            "export_key" => {
                let mut key = vec![0; request.number("length")? as usize];
                let (label, context) = (request.bytes("label")?, request.bytes("context")?);
                each!(&conn, c => c.export_keying_material(&mut key, &label, &context))
                    .map_err(|_| Failure::text("export", "no such length"))?;
                Ok(json!({"hex": HEXLOWER.encode(&key)}))
            }
            _ => Ok(json!({
                "max_datagram_size": each!(&conn, c => c.max_datagram_size()),
                "datagram_send_buffer_space": each!(&conn, c => c.datagram_send_buffer_space()),
                "close_reason": each!(&conn, c => c.close_reason()).map(|error| connection(&error)),
            })),
        }
    }

    async fn on_send(&self, action: &str, request: &Request) -> Result<Value, Failure> {
        let stream = self.send(request)?;
        if action == "stopped" {
            let stopped = stream.lock().await.stopped();
            let code = stopped.await?.map(VarInt::into_inner);
            return Ok(json!({"code": code}));
        }
        let mut stream = stream.lock().await;
        match action {
            "write" => {
                let (data, most) = (request.data()?, request.number_or("chunk", 1 << 20));
                for chunk in data.chunks(most as usize) {
                    stream.write_all(chunk).await?;
                }
                if request.flag("finish") {
                    stream.finish()?;
                }
            }
            "finish" => stream.finish()?,
            "reset" => stream.reset(request.code()?)?,
            _ => {
                let priority = request.0["priority"].as_i64().unwrap_or(0);
                stream.set_priority(priority as i32)?;
            }
        }
        Ok(json!({}))
    }

    async fn on_recv(&self, action: &str, request: &Request) -> Result<Value, Failure> {
        let stream = self.recv(request)?;
        let mut stream = stream.lock().await;
        match action {
            "read" => {
                let most = request.number_or("max", 65536) as usize;
                match stream.read_chunk(most).await? {
                    Some(data) => Ok(json!({"hex": HEXLOWER.encode(&data), "end": false})),
                    None => Ok(json!({"hex": "", "end": true})),
                }
            }
            // Says whether the bytes followed the pattern; short ones are told as well.
            "read_all" => {
                let limit = request.number_or("limit", 1 << 32) as usize;
                let (mut data, cycle) = (Vec::new(), pattern(251));
                let (mut total, mut follows) = (0, true);
                while let Some(chunk) = stream.read_chunk(1 << 20).await? {
                    let mut expected = cycle.iter().cycle().skip(total % 251);
                    follows &= chunk.iter().all(|byte| expected.next() == Some(byte));
                    total += chunk.len();
                    if total > limit {
                        return Err(Failure::text(
                            "too_long",
                            format!("more than {limit} bytes"),
                        ));
                    }
                    if total <= 65536 {
                        data.extend_from_slice(&chunk);
                    }
                }
                let hex = (total <= 65536).then(|| HEXLOWER.encode(&data));
                Ok(json!({"length": total, "pattern": follows, "hex": hex}))
            }
            "stop" => {
                stream.stop(request.code()?)?;
                Ok(json!({}))
            }
            _ => {
                let code = stream.received_reset().await?;
                Ok(json!({"code": code.map(VarInt::into_inner)}))
            }
        }
    }
}

/// The relays that may be used: `relay`, one URL, or `relays`, several.
fn relays(request: &Request) -> Result<Vec<RelayUrl>, Failure> {
    let urls = match request.get("relays") {
        Some(_) => request.list("relays")?,
        None => request.get("relay").map_or(&[][..], std::slice::from_ref),
    };
    let urls = urls.iter().map(|url| url.as_str().unwrap_or_default());
    Ok(urls.map(str::parse).collect::<Result<_, _>>()?)
}

/// The open paths of the connection. With `until`, "direct" or "relay", once data go that way.
async fn paths(connection: &Connection, request: &Request) -> Result<Value, Failure> {
    let until = request.text("until").ok();
    let mut lists = connection.paths_stream();
    while let Some(list) = lists.next().await {
        let way = list.iter().find(|path| path.is_selected());
        let way = way.map(|path| if path.is_ip() { "direct" } else { "relay" });
        if until.is_none() || until == way {
            let paths = list.iter().map(|path| {
                json!({
                    "remote": path.remote_addr().to_string(),
                    "direct": path.is_ip(),
                    "selected": path.is_selected(),
                    "rtt": path.rtt().as_secs_f64(),
                })
            });
            return Ok(json!({"paths": paths.collect::<Vec<_>>()}));
        }
    }
    Err(Failure::text("closed", "the connection has ended"))
}

/// `transport`: an object of limits; what it leaves out keeps upstream's default. Times are in seconds.
fn transport(request: &Request) -> Result<QuicTransportConfig, Failure> {
    let mut config = QuicTransportConfig::builder();
    let options = request.get("transport").and_then(Value::as_object);
    for (key, value) in options.into_iter().flatten() {
        let number = value.as_u64().unwrap_or_default();
        let time = Duration::from_secs_f64(value.as_f64().unwrap_or_default());
        config = match key.as_str() {
            "max_bidi_streams" => config.max_concurrent_bidi_streams(VarInt::from_u64(number)?),
            "max_uni_streams" => config.max_concurrent_uni_streams(VarInt::from_u64(number)?),
            "idle_timeout" => config.max_idle_timeout(Some(time.try_into()?)),
            "keep_alive" => config.keep_alive_interval(time),
            "stream_receive_window" => config.stream_receive_window(VarInt::from_u64(number)?),
            "receive_window" => config.receive_window(VarInt::from_u64(number)?),
            "send_window" => config.send_window(number),
            "datagrams" => config
                .datagram_receive_buffer_size(value.as_bool().unwrap_or(true).then_some(1_250_000)),
            "segmentation_offload" => {
                config.enable_segmentation_offload(value.as_bool().unwrap_or(true))
            }
            _ => return Err(Failure::text("request", format!("no such option: {key}"))),
        };
    }
    Ok(config.build())
}
