//! The QUIC engine as a value: datagrams, time and calls go in, datagrams and events come out.
//!
//! Nothing here opens a socket, reads a clock or starts a thread.

pub mod stream;
