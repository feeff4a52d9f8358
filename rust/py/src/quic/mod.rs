//! The engine as Python classes.

mod conn;
pub(crate) mod convert;
mod engine;
mod events;
mod relay;
mod shared;
mod stream;
mod streams;
mod transport;

use pyo3::{create_exception, exceptions::PyException, prelude::*};

create_exception!(aioiroh._native, NativeError, PyException, "A native call could not be carried out.");
create_exception!(aioiroh._native, StreamReset, NativeError, "The peer reset the stream: (code,).");
create_exception!(aioiroh._native, StreamStopped, NativeError, "The peer stopped the stream: (code,).");
create_exception!(aioiroh._native, StreamGone, NativeError, "The stream is unknown, finished or stopped.");
create_exception!(aioiroh._native, ConnectionGone, NativeError, "The connection is closed.");
create_exception!(aioiroh._native, EngineDead, NativeError, "The endpoint failed: (text,).");

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("NativeError", py.get_type::<NativeError>())?;
    module.add("StreamReset", py.get_type::<StreamReset>())?;
    module.add("StreamStopped", py.get_type::<StreamStopped>())?;
    module.add("StreamGone", py.get_type::<StreamGone>())?;
    module.add("ConnectionGone", py.get_type::<ConnectionGone>())?;
    module.add("EngineDead", py.get_type::<EngineDead>())?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<conn::Conn>()?;
    module.add_class::<transport::Transport>()?;
    module.add_class::<stream::TlsStream>()?;
    relay::register(module)?;
    streams::register(module)?;
    events::register(module)
}
