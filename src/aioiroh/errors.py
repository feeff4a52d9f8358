"""Every exception of aioiroh, split by cause: the caller, the peer, the network, the engine.

All derive from `AioirohError` and, where one fits, from the built-in that people already catch
(`ValueError`, `ConnectionError`, `TimeoutError`, `EOFError`, `OSError`, `RuntimeError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

__all__ = [
    "AddressParsingError",
    "AioirohError",
    "ApplicationClosedError",
    "Attempt",
    "AuthenticationError",
    "BindError",
    "BusyError",
    "CidsExhaustedError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConnectionLostError",
    "ConnectionTimeoutError",
    "DatagramError",
    "DecodeError",
    "EndpointClosedError",
    "EndpointFailedError",
    "IncompleteReadError",
    "InvalidAlpnError",
    "KeyParsingError",
    "LocallyClosedError",
    "LocallyRejectedError",
    "LookupFailedError",
    "NoAddressError",
    "PeerTransportError",
    "ReadLimitError",
    "RelayError",
    "SelfConnectError",
    "StatelessResetError",
    "StreamClosedError",
    "StreamResetError",
    "StreamStoppedError",
    "TicketParsingError",
    "TransportError",
    "VersionMismatchError",
    "WrongLoopError",
    "ZeroRttRejectedError",
    "transport_code_name",
]


E = TypeVar("E", bound="AioirohError")


class AioirohError(Exception):
    """Base of every error that aioiroh raises on purpose."""

    # Subclasses take their facts as arguments, not their message: restore the state instead of
    # calling the class with `args`, so that errors survive pickling and copying.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(kind: type[E], args: tuple[object, ...], state: dict[str, object]) -> E:
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


# --- what the caller did ------------------------------------------------------------------------


class DecodeError(AioirohError, ValueError):
    """Bytes or text that do not have the announced form."""


class KeyParsingError(DecodeError):
    """Not a key: wrong alphabet, wrong length, or no point of the curve."""


class AddressParsingError(DecodeError):
    """Not an address: of a relay, of an endpoint or of a custom transport."""


class TicketParsingError(DecodeError):
    """Not a ticket of the expected kind."""


class InvalidAlpnError(AioirohError, ValueError):
    """An ALPN that QUIC cannot carry: empty, longer than 255 bytes, or none given."""


class SelfConnectError(AioirohError, ValueError):
    """An endpoint was asked to dial its own id."""


class ReadLimitError(AioirohError, ValueError):
    """A stream held more than the `limit` bytes that `read_all` was allowed to return.

    `limit` is in bytes. What was read stays consumed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the peer sent more than {limit} bytes; raise `limit` or read the stream piecewise"
        )
        self.limit = limit


DatagramErrorKind = Literal["too_large", "unsupported", "disabled"]

_DATAGRAM_MESSAGES: dict[DatagramErrorKind, str] = {
    "too_large": "the datagram is larger than `max_datagram_size`; send less or use a stream",
    "unsupported": "the peer does not accept datagrams; use a stream",
    "disabled": "datagrams are switched off here; set `datagram_receive_buffer` in the transport",
}


class DatagramError(AioirohError, ValueError):
    """A datagram cannot be sent on this connection.

    `kind` is `"too_large"`, `"unsupported"` (by the peer) or `"disabled"` (locally).
    """

    def __init__(self, kind: DatagramErrorKind, message: str | None = None) -> None:
        super().__init__(message or _DATAGRAM_MESSAGES[kind])
        self.kind = kind


class BusyError(AioirohError, RuntimeError):
    """A second reader or writer used a stream while the first was still waiting."""


class WrongLoopError(AioirohError, RuntimeError):
    """An object was used from another event loop or thread than the one it belongs to."""


class StreamClosedError(AioirohError, ConnectionError):
    """The stream was already finished, reset or stopped on this side."""


class EndpointClosedError(AioirohError, ConnectionError):
    """The endpoint is closed (or closing) and takes no new work."""

    def __init__(self, message: str = "the endpoint is closed; bind a new one") -> None:
        super().__init__(message)


class LocallyRejectedError(AioirohError, ConnectionError):
    """A hook of this endpoint refused the connection."""


# --- what the peer did --------------------------------------------------------------------------


class IncompleteReadError(AioirohError, EOFError):
    """The peer finished the stream before `expected` bytes had come.

    `partial` holds the bytes that did come; they are consumed.
    """

    def __init__(self, partial: bytes, expected: int) -> None:
        super().__init__(
            f"the stream ended after {len(partial)} of {expected} bytes; see `partial`"
        )
        self.partial = partial
        self.expected = expected


class StreamResetError(AioirohError, ConnectionError):
    """The peer gave up sending: it reset the stream with the application error `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer reset the stream with code {code}; the rest will not come")
        self.code = code


class StreamStoppedError(AioirohError, ConnectionError):
    """The peer no longer reads: it stopped the stream with the application error `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer stopped reading the stream with code {code}; stop writing")
        self.code = code


class ZeroRttRejectedError(AioirohError, ConnectionError):
    """The peer did not take the early data; send them again on a new stream."""

    def __init__(
        self, message: str = "the peer rejected early data; open a new stream and send again"
    ) -> None:
        super().__init__(message)


class AuthenticationError(AioirohError, ConnectionError):
    """The peer has no valid Ed25519 identity, or no protocol was agreed with it."""


class ConnectionLostError(AioirohError, ConnectionError):
    """The connection is over; the subclass says who ended it and why."""

    # Each task that waits gets one of its own, and the general way takes ten times as long.
    def __copy__(self) -> Self:
        return _rebuild(type(self), self.args, self.__dict__)


class ApplicationClosedError(ConnectionLostError):
    """The peer's application closed the connection with `code` and `reason`."""

    def __init__(self, code: int, reason: bytes = b"") -> None:
        super().__init__(f"the peer closed the connection with code {code}{_quote(reason)}")
        self.code = code
        self.reason = reason


class PeerTransportError(ConnectionLostError):
    """The peer's QUIC layer closed the connection (RFC 9000 section 19.19).

    `code` is the transport error code, `frame` the frame type that caused it (None: unknown).
    """

    def __init__(self, code: int, frame: int | None = None, reason: bytes = b"") -> None:
        super().__init__(
            f"the peer closed the connection: {transport_code_name(code)}"
            f"{_in_frame(frame)}{_quote(reason)}{_advice(code)}"
        )
        self.code = code
        self.frame = frame
        self.reason = reason


class TransportError(ConnectionLostError):
    """This side found the peer breaking a rule of QUIC or TLS and closed the connection.

    Attributes as in `PeerTransportError`.
    """

    def __init__(self, code: int, frame: int | None = None, reason: bytes = b"") -> None:
        super().__init__(
            f"closed the connection because the peer misbehaved: {transport_code_name(code)}"
            f"{_in_frame(frame)}{_quote(reason)}"
        )
        self.code = code
        self.frame = frame
        self.reason = reason


class StatelessResetError(ConnectionLostError):
    """The peer does not know the connection (it restarted, most likely); connect again."""

    def __init__(
        self, message: str = "the peer no longer knows this connection; connect again"
    ) -> None:
        super().__init__(message)


class VersionMismatchError(ConnectionLostError):
    """The peer and this side share no QUIC version."""

    def __init__(
        self, message: str = "the peer speaks no QUIC version we know; update one of the two"
    ) -> None:
        super().__init__(message)


class CidsExhaustedError(ConnectionLostError):
    """All connection ids were used up; connect again."""

    def __init__(self, message: str = "no connection id is left; connect again") -> None:
        super().__init__(message)


class LocallyClosedError(ConnectionLostError):
    """This side closed the connection."""

    def __init__(self, message: str = "the connection was closed on this side") -> None:
        super().__init__(message)


# --- what the network did -----------------------------------------------------------------------


class ConnectionTimeoutError(ConnectionLostError, TimeoutError):
    """The peer did not answer in time."""

    def __init__(
        self,
        message: str = "the peer did not answer in time; it may be offline, unreachable, "
        "or run an incompatible version of iroh",
    ) -> None:
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One address that was tried while connecting, and why it did not work."""

    address: object
    reason: str

    def __str__(self) -> str:
        # Messages are logged and shown to others, and the query of a relay's URL may be a token.
        address = str(self.address).partition("?")[0]
        return f"{address}: {self.reason}"


MAX_SHOWN = 8
"""Addresses named in a message: a ticket may hold a thousand."""


class ConnectError(AioirohError, ConnectionError):
    """No connection came about. `attempts` says which addresses were tried and why each failed."""

    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        tried = "; ".join(map(str, attempts[:MAX_SHOWN]))
        if len(attempts) > MAX_SHOWN:
            tried += f"; and {len(attempts) - MAX_SHOWN} more"
        super().__init__(f"{message} (tried {tried})" if tried else message)
        self.attempts: tuple[Attempt, ...] = tuple(attempts)


class ConnectTimeoutError(ConnectError, ConnectionTimeoutError):
    """No connection came about in time; `attempts` as in `ConnectError`."""

    # Of the two bases only one takes the attempts.
    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        ConnectError.__init__(self, message, attempts)


class NoAddressError(ConnectError):
    """Nothing is known about where the peer is: no address given and no lookup found one."""


class BindError(AioirohError, OSError):
    """The endpoint could not be bound: an address in use, no permission, no such interface."""

    def __reduce__(self) -> tuple[object, ...]:  # keeps errno
        return OSError.__reduce__(self)  # type: ignore[return-value]


class LookupFailedError(AioirohError, ConnectionError):
    """No lookup service found the peer. `errors` holds what each service said."""

    def __init__(self, message: str, errors: Sequence[BaseException] = ()) -> None:
        causes = "; ".join(str(error) or type(error).__name__ for error in errors)
        super().__init__(f"{message} ({causes})" if causes else message)
        self.errors: tuple[BaseException, ...] = tuple(errors)


class RelayError(AioirohError, ConnectionError):
    """A relay cannot be used. `kind` is a word for the cause that does not change with the message:
    "denied", "tls", "not_upgraded", "timeout", "dial", "silent", "lost", "closed"; or "http", "websocket",
    "frame", "handshake" for what breaks the protocol.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.kind, str(self))


# --- the engine ---------------------------------------------------------------------------------


class EndpointFailedError(AioirohError, RuntimeError):
    """The native engine failed; the endpoint is dead. This is a bug worth a report."""


# --- names of transport error codes ---------------------------------------------------------------

_TRANSPORT_CODES = {
    0x00: "NO_ERROR",
    0x01: "INTERNAL_ERROR",
    0x02: "CONNECTION_REFUSED",
    0x03: "FLOW_CONTROL_ERROR",
    0x04: "STREAM_LIMIT_ERROR",
    0x05: "STREAM_STATE_ERROR",
    0x06: "FINAL_SIZE_ERROR",
    0x07: "FRAME_ENCODING_ERROR",
    0x08: "TRANSPORT_PARAMETER_ERROR",
    0x09: "CONNECTION_ID_LIMIT_ERROR",
    0x0A: "PROTOCOL_VIOLATION",
    0x0B: "INVALID_TOKEN",
    0x0C: "APPLICATION_ERROR",
    0x0D: "CRYPTO_BUFFER_EXCEEDED",
    0x0E: "KEY_UPDATE_ERROR",
    0x0F: "AEAD_LIMIT_REACHED",
    0x10: "NO_VIABLE_PATH",
    0x3E: "APPLICATION_ABANDON_PATH",
    0x3E75: "PATH_RESOURCE_LIMIT_REACHED",
    0x3E76: "PATH_UNSTABLE_OR_POOR",
    0x3E77: "NO_CID_AVAILABLE_FOR_PATH",
}

# RFC 8446 section 6
_TLS_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}

# What a person can do about the refusals that are met in practice.
_ADVICE = {
    0x02: "; it takes no connections now, or not from here",
    0x100 + 48: "; another key answers at this address",
    0x100 + 120: "; it does not serve the protocol (ALPN) that was asked for",
}


def transport_code_name(code: int) -> str:
    """Name of a QUIC transport error code (RFC 9000 section 20.1), with TLS alerts spelled out.

    >>> transport_code_name(0x178)
    'TLS alert no_application_protocol (0x178)'
    """
    if 0x100 <= code <= 0x1FF:
        alert = _TLS_ALERTS.get(code - 0x100, str(code - 0x100))
        return f"TLS alert {alert} ({code:#x})"
    name = _TRANSPORT_CODES.get(code)
    return f"{name} ({code:#x})" if name else f"transport error {code:#x}"


def _in_frame(frame: int | None) -> str:
    return "" if frame is None else f" in frame {frame:#x}"


def _quote(reason: bytes) -> str:
    return f": {reason.decode(errors='replace')!r}" if reason else ""


def _advice(code: int) -> str:
    return _ADVICE.get(code, "")
