//! The QUIC engine as a value: datagrams, time and calls go in, datagrams and events come out.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. The state machine is `noq-proto`; this
//! crate adds iroh's TLS, what an application may wait for, routes, and bounds.

#![forbid(unsafe_code)]

pub mod config;
pub mod connection;
pub mod engine;
pub mod event;
mod mapped;
mod outcome;
mod probe;
pub mod provider;
mod reset;
pub mod route;
pub mod silence;
pub mod stream;
pub mod streams;
pub mod tls;
mod wall;
mod witness;

pub use noq_proto::{self, Dir, EcnCodepoint, PathId, PathStats, PathStatus, StreamId, VarInt};

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use std::time::Instant;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use std::time::{SystemTime, UNIX_EPOCH};
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use web_time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::{SystemTime, UNIX_EPOCH};
