from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from aioiroh import RelayAddr, errors
from aioiroh.errors import (
    AioirohError,
    ApplicationClosedError,
    Attempt,
    ConnectError,
    ConnectionLostError,
    ConnectionTimeoutError,
    DatagramError,
    IncompleteReadError,
    LookupFailedError,
    PeerTransportError,
    ReadLimitError,
    StreamResetError,
    TransportError,
    transport_code_name,
)

SAMPLES: list[AioirohError] = [
    ApplicationClosedError(7, b"bye"),
    PeerTransportError(0x178, None, b""),
    TransportError(0x0A, 0x3E, b"bad"),
    StreamResetError(9),
    IncompleteReadError(b"ab", 5),
    DatagramError("too_large"),
    ReadLimitError(10),
    ConnectionTimeoutError(),
    ConnectError("cannot reach it", [Attempt("127.0.0.1:1", "timed out")]),
    LookupFailedError("not found", [ValueError("no record")]),
    errors.BindError(98, "Address already in use"),
    errors.StreamStoppedError(3),
    errors.EndpointClosedError(),
    errors.ZeroRttRejectedError(),
    errors.StatelessResetError(),
    errors.VersionMismatchError(),
    errors.CidsExhaustedError(),
    errors.LocallyClosedError(),
    errors.NoAddressError("nothing is known of the peer"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("clone", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_errors_survive_pickling_and_copying(error, clone):
    twin = clone(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__.keys() == error.__dict__.keys()


def test_every_error_is_exported_and_has_the_base():
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == errors.__name__
    ]
    assert all(issubclass(kind, AioirohError) for kind in classes)
    assert {kind.__name__ for kind in classes} <= set(errors.__all__)


def test_built_ins_catch_what_people_expect():
    assert issubclass(errors.KeyParsingError, ValueError)
    assert issubclass(errors.ConnectionTimeoutError, TimeoutError)
    assert issubclass(errors.ConnectionTimeoutError, ConnectionError)
    assert issubclass(errors.IncompleteReadError, EOFError)
    assert issubclass(errors.NoAddressError, ConnectError)
    assert issubclass(errors.BindError, OSError)
    lost = {
        ApplicationClosedError,
        PeerTransportError,
        TransportError,
        errors.StatelessResetError,
        errors.VersionMismatchError,
        errors.CidsExhaustedError,
        errors.LocallyClosedError,
        ConnectionTimeoutError,
    }
    assert all(issubclass(kind, ConnectionLostError) for kind in lost)
    assert not issubclass(errors.EndpointFailedError, OSError)


def test_bind_error_keeps_errno():
    error = errors.BindError(98, "Address already in use")
    assert error.errno == 98
    assert pickle.loads(pickle.dumps(error)).errno == 98


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x00, "NO_ERROR (0x0)"),
        (0x02, "CONNECTION_REFUSED (0x2)"),
        (0x0F, "AEAD_LIMIT_REACHED (0xf)"),
        (0x10, "NO_VIABLE_PATH (0x10)"),
        (0x130, "TLS alert unknown_ca (0x130)"),
        (0x174, "TLS alert certificate_required (0x174)"),
        (0x178, "TLS alert no_application_protocol (0x178)"),
        (0x1FF, "TLS alert 255 (0x1ff)"),
        (0x3E75, "PATH_RESOURCE_LIMIT_REACHED (0x3e75)"),
        (0x9999, "transport error 0x9999"),
    ],
)
def test_transport_codes_are_named(code, name):
    assert transport_code_name(code) == name


def test_messages_name_the_facts():
    assert "ALPN" in str(PeerTransportError(0x178))
    assert "127.0.0.1:1: timed out" in str(SAMPLES[8])
    assert "2 of 5" in str(SAMPLES[4])
    assert "'bye'" in str(ApplicationClosedError(7, b"bye"))
    assert "\ufffd" in str(ApplicationClosedError(7, b"\xff"))


def test_a_thousand_addresses_do_not_fill_the_message():
    attempts = [Attempt(f"address {number}", "no answer") for number in range(1000)]
    error = ConnectError("no connection", attempts)
    assert len(str(error)) < 500
    assert "and 992 more" in str(error)
    assert len(error.attempts) == 1000


def test_the_token_of_a_relay_is_not_in_the_message():
    relay = RelayAddr("https://relay.test/?token=secret")
    error = ConnectError("no connection", [Attempt(relay, "no answer")])
    assert str(error) == "no connection (tried relay:https://relay.test/: no answer)"
    assert error.attempts[0].address == relay
