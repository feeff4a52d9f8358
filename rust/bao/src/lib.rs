//! BLAKE3 verified streaming as iroh speaks it: chunk groups of 16 KiB, pre-order outboards,
//! responses for any set of chunks.
//!
//! Pure computation: nothing here reads a file, a socket or a clock.
#![forbid(unsafe_code)]

pub mod decode;
pub mod encode;
pub mod hash;
pub mod outboard;
pub mod plan;
pub mod ranges;
pub mod tree;

pub use decode::{DecodeError, Decoder, Event, Need, Verifier};
pub use encode::{EncodeError, Encoder, Memory, Source};
pub use hash::{EMPTY, Hash};
pub use outboard::Builder;
pub use ranges::ChunkRanges;
