"""HTTP/1.1 without I/O."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.errors import DecodeError
from aioiroh.net import http


def test_the_head_of_an_answer_is_read() -> None:
    data = b"HTTP/1.1 204 No Content\r\nX-Iroh-Response: response ts_a \r\nA:\r\n\r\nmore"
    fields = {"x-iroh-response": "response ts_a", "a": ""}
    assert http.read_head(data) == (http.Head(204, "No Content", fields), b"more")
    assert http.read_head(data[:60]) is None
    assert http.read_head(b"HTTP/1.0 200\r\n\r\n") == (http.Head(200, "", {}), b"")


@pytest.mark.parametrize(
    "head", [b"", b"SSH-2.0", b"HTTP/2 200", b"HTTP/1.1 2x0", b"HTTP/1.1 200 OK\r\nx"]
)
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with pytest.raises(DecodeError):
        http.read_head(head + b"\r\n\r\n")


@given(
    st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)
)
def test_any_head_is_an_answer_or_an_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        found = http.read_head(data + b"\r\n\r\n")
        assert found is not None and 100 <= found[0].status <= 599


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
        b"HTTP/1.0 200\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_http(data: bytes) -> None:
    assert http.read(data, ended=True) == http.Answer(200, b"hello")
    first = next(at for at in range(len(data) + 1) if http.read(data[:at], ended=at == len(data)))
    assert http.read(data[:first], ended=True) == http.Answer(200, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(http.MAX_SIZE),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 2_000
        + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x:\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_no_answer_of_http(data: bytes) -> None:
    with pytest.raises(DecodeError):
        http.read(data, ended=True)


def test_a_head_does_not_grow_for_ever() -> None:
    with pytest.raises(DecodeError):
        http.read(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, ended=False)


@given(st.binary(max_size=200), st.booleans(), st.sampled_from(["", "chunked", "gzip"]))
def test_http_is_total(data: bytes, ended: bool, encoding: str) -> None:
    with contextlib.suppress(DecodeError):
        http.read(data, ended=ended)
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {encoding}\r\n\r\n".encode()
    with contextlib.suppress(DecodeError):
        http.read(head + data, ended=ended)


def test_an_http_request() -> None:
    asked = http.request("POST", "/ctl", "192.168.1.1:80", {"SOAPAction": '"x#y"'}, b"body")
    assert asked.startswith(b"POST /ctl HTTP/1.1\r\nHost: 192.168.1.1:80\r\n")
    assert asked.endswith(b"Content-Length: 4\r\n\r\nbody")
