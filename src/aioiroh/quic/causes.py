"""What the engine says about an end, as the exceptions that awaiting code gets."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from aioiroh import _native
from aioiroh.errors import (
    ApplicationClosedError,
    CidsExhaustedError,
    ConnectionLostError,
    ConnectionTimeoutError,
    EndpointFailedError,
    LocallyClosedError,
    PeerTransportError,
    StatelessResetError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
    TransportError,
    VersionMismatchError,
    ZeroRttRejectedError,
)
from aioiroh.quic.rejected import EarlyDataRejected

__all__ = ["connection_lost", "loss_copy", "stream_failure"]

Detail = tuple[int, int | None, bytes]
"""Error code, type of the frame that caused it, reason phrase."""


def _panicked(code: int, frame: int | None, reason: bytes) -> ConnectionLostError:
    text = reason.decode(errors="replace")
    return ConnectionLostError(
        f"the engine failed while working on this connection ({text}); connect again, "
        "and please report it"
    )


_CAUSES: dict[int, Callable[[int, int | None, bytes], ConnectionLostError]] = {
    _native.CLOSE_APPLICATION: lambda code, _, reason: ApplicationClosedError(code, reason),
    _native.CLOSE_PEER_TRANSPORT: PeerTransportError,
    _native.CLOSE_TRANSPORT: TransportError,
    _native.CLOSE_TIMEOUT: lambda *_: ConnectionTimeoutError(),
    _native.CLOSE_RESET: lambda *_: StatelessResetError(),
    _native.CLOSE_VERSION: lambda *_: VersionMismatchError(),
    _native.CLOSE_CIDS: lambda *_: CidsExhaustedError(),
    _native.CLOSE_LOCAL: lambda *_: LocallyClosedError(),
    _native.CLOSE_PANIC: _panicked,
}


def connection_lost(cause: int, detail: Detail) -> ConnectionLostError:
    """The exception for a CLOSED event with this cause and detail."""
    return _CAUSES[cause](*detail)


def loss_copy(loss: Exception) -> Exception:
    """A copy to raise in one task: a shared instance would collect the tracebacks of all."""
    fresh = copy(loss)
    fresh.__cause__ = loss.__cause__
    return fresh


def stream_failure(error: _native.NativeError, lost: Exception | None) -> Exception:
    """What a failed native call on a stream means; `lost` is why its connection ended, if it did."""
    match error:
        case _native.StreamReset():
            return StreamResetError(error.args[0])
        case _native.StreamStopped():
            return StreamStoppedError(error.args[0])
        case EarlyDataRejected():
            return ZeroRttRejectedError()
        case _native.EngineDead():
            return loss_copy(lost) if lost is not None else EndpointFailedError(str(error))
    if lost is not None:
        return loss_copy(lost)
    if isinstance(error, _native.ConnectionGone):
        return LocallyClosedError()
    return StreamClosedError("the stream is closed on this side; open a new one")
