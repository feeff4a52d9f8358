//! The relay protocol without I/O, for clients and servers.
//!
//! Bytes from a TCP connection go in by `feed`, bytes for it come out by `take`, what happened by `poll`. Inside are
//! TLS, the WebSocket upgrade, the proof of the client's key and frames of datagrams. There is no clock: time limits,
//! pings and reconnection belong to whoever drives it.

mod channel;
pub mod client;
mod error;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod hub;
mod link;
pub mod server;
mod websocket;

pub use error::Error;
pub use link::{Link, MAX_QUEUED};
