//! The Python module `aioiroh._native`: argument checks, conversions, event tuples, and what every request does on
//! a stream (`quic/streams`).

mod blob;
mod identity;
mod quic;
mod relay;
mod turn;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        quic::register(module)?;
        identity::register(module)?;
        blob::register(module)?;
        relay::register(module)?;
        turn::register(module)
    }
}
