//! Two engines on a simulated link, with a virtual clock.

mod brief;
mod calls;
mod early;
mod hostile;
mod named;
mod random;
mod reader;
mod world;
