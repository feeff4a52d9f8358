//! Native ends of a stream: bytes that go from the wire to somewhere, or from somewhere to the wire,
//! without passing through the application.

use std::sync::Arc;

use bytes::Bytes;

/// Tells the engine, from any thread, that a [`StreamSink`] has room again or something to report,
/// or that a [`StreamSource`] has bytes again or something to report.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// How a receive stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The peer finished the stream; all bytes before the end have been pushed.
    Finished,
    /// The peer reset the stream with this code.
    Reset(u64),
    /// The connection ended.
    Lost,
}

/// Where the bytes of a receive stream go.
pub trait StreamSink: Send {
    /// Called once, before anything else.
    fn attach(&mut self, waker: Waker);

    /// How many bytes it takes now. With 0 the stream is not drained, so that flow control holds the
    /// peer, until the waker is called.
    fn capacity(&mut self) -> usize;

    /// Takes bytes in stream order, at most [`capacity`](Self::capacity) of them. After some pushes the engine asks
    /// [`notify`](Self::notify) or [`stopped`](Self::stopped).
    fn push(&mut self, data: Bytes);

    /// The stream is over; called at most once, after the last [`push`](Self::push).
    fn end(&mut self, end: StreamEnd);

    /// True once for each time that something new can be reported to the application.
    fn notify(&mut self) -> bool;

    /// A code when the sink wants no more bytes: the engine stops the stream and lets the sink go.
    fn stopped(&mut self) -> Option<u64>;
}

/// What a [`StreamSource`] has next.
#[derive(Debug)]
pub enum Next {
    /// Bytes to send, in order.
    Data(Bytes),
    /// Nothing now; the waker will be called.
    Pending,
    /// All is sent: finish the stream.
    Finish,
    /// Reset the stream with this code.
    Reset(u64),
}

/// Where the bytes of a send stream come from.
pub trait StreamSource: Send {
    /// Called once, before anything else.
    fn attach(&mut self, waker: Waker);

    /// The next bytes, at most `max` of them.
    fn next(&mut self, max: usize) -> Next;

    /// True once for each time that something new can be reported to the application.
    fn notify(&mut self) -> bool;

    /// The peer stopped the stream with this code, or the connection ended (none).
    fn abort(&mut self, code: Option<u64>);
}
