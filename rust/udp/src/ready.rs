//! Readiness: an inner epoll instance with the sockets, a timer and a wake-up counter.

#[cfg(target_os = "linux")]
#[path = "epoll.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "portable.rs"]
mod imp;

pub(crate) use imp::Ready;
pub use imp::Signal;
