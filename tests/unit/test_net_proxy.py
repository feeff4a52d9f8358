"""Proxies: which one is used, and what is said to it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh import Proxies
from aioiroh.net import TcpDialler
from aioiroh.net.http import MAX_HEAD
from aioiroh.net.proxy import Proxy
from aioiroh.net.tunnel import RefusedError, negotiate
from aioiroh.testing import VirtualNetwork, simulated


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://p.example:3128", Proxy("http", "p.example", 3128)),
        ("p.example:3128", Proxy("http", "p.example", 3128)),
        ("https://u:p%40w@p.example/", Proxy("https", "p.example", 443, "u", "p@w")),
        ("socks5://[::1]", Proxy("socks5", "::1", 1080)),
        ("socks5h://u@192.0.2.1:1", Proxy("socks5", "192.0.2.1", 1, "u")),
    ],
)
def test_how_a_proxy_is_written(url, proxy):
    assert Proxy.parse(url) == proxy
    assert "p@w" not in repr(proxy)


@pytest.mark.parametrize("url", ["ftp://p.example", "http://", "http://p.example:x", "socks5://:1"])
def test_what_is_no_proxy(url):
    with pytest.raises(ValueError):
        Proxies.all(url)
    assert Proxies.from_environment({"ALL_PROXY": url}) == Proxies()


def test_what_the_environment_says():
    one, two, three = (Proxy("http", name, 80) for name in ("one", "two", "three"))
    environment = {"HTTP_PROXY": "http://one", "https_proxy": "two", "HTTPS_PROXY": "http://x"}
    assert Proxies.from_environment(environment) == Proxies(two, one)
    assert Proxies.from_environment({"ALL_PROXY": "three"}) == Proxies(three, three)
    environment |= {"ALL_PROXY": "three", "REQUEST_METHOD": "GET", "no_proxy": "a, b c"}
    # Whoever asks a CGI program chooses its HTTP_PROXY.
    assert Proxies.from_environment(environment) == Proxies(two, three, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("exceptions", "host", "is_direct"),
    [
        ("*", "r.example", True),
        ("r.example", "r.example.", True),
        (".example", "R.example", True),
        ("*.example", "a.r.example", True),
        ("example", "an-example", False),
        ("example:443", "r.example", True),
        ("example:80", "r.example", False),
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("[2001:db8::1]:443", "2001:db8::1", True),
        ("nonsense/24", "192.0.2.7", False),
        (".", "r.example", False),
        ("", "r.example", False),
    ],
)
def test_what_is_reached_without(exceptions, host, is_direct):
    proxies = Proxies.from_environment({"ALL_PROXY": "p", "NO_PROXY": exceptions})
    chosen = proxies.choose(host, 443, encrypted=True)
    assert (chosen is None) == is_direct


HTTP = Proxy.parse("http://u:p@p.example")
SOCKS = Proxy.parse("socks5://u:p@p.example")
CONSENT = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"
BOUND = b"\x05\x00\x00\x03\x04name\x00\x50"


def pieces(data: bytes) -> st.SearchStrategy[list[bytes]]:
    cuts = st.lists(st.integers(0, len(data)), max_size=6).map(sorted)
    return cuts.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)])


@given(pieces(CONSENT + b"first bytes"))
def test_http(answer):
    talk = negotiate(HTTP, "r.example", 443)
    assert talk.greeting == (
        b"CONNECT r.example:443 HTTP/1.1\r\nHost: r.example:443\r\n"
        b"Proxy-Connection: Keep-Alive\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    )
    rest = b""
    for piece in answer:
        if talk.done:
            rest += piece
        else:
            assert talk.feed(piece) == b""
    assert talk.done and talk.rest + rest == b"first bytes"


@given(pieces(b"\x05\x02" + b"\x01\x00" + BOUND + b"first bytes"))
def test_socks(answer):
    talk = negotiate(SOCKS, "192.0.2.1", 443)
    sent, rest = talk.greeting, b""
    for piece in answer:
        if talk.done:
            rest += piece
        else:
            sent += talk.feed(piece)
    assert sent == (
        b"\x05\x02\x00\x02" + b"\x01\x01u\x01p" + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
    )
    assert talk.done and talk.rest + rest == b"first bytes"


@pytest.mark.parametrize(
    ("proxy", "answer", "problem"),
    [
        (HTTP, b"HTTP/1.1 407 No\r\n\r\n", "407 No; put user:password@"),
        (HTTP, b"HTTP/1.0 502\r\n\r\n", "502"),
        (HTTP, b"SSH-2.0\r\n\r\n", "not HTTP"),
        (HTTP, b"x" * (MAX_HEAD + 1), "too long"),
        (SOCKS, b"\x05\xff", "another login"),
        (SOCKS, b"\x04\x00", "not SOCKS5"),
        (SOCKS, b"\x05\x02\x01\x01", "wrong"),
        (SOCKS, b"\x05\x00\x05\x05\x00\x01\x00", "the host refuses"),
        (SOCKS, b"\x05\x00\x05\x63\x00\x01\x00", "error 99"),
        (SOCKS, b"\x05\x00\x05\x00\x00\x02\x00", "not SOCKS5"),
    ],
)
def test_refusals(proxy, answer, problem):
    with pytest.raises(RefusedError, match=problem):
        negotiate(proxy, "r.example", 443).feed(answer)


@pytest.mark.parametrize("host", ["r." * 200, "a" * 300, "x\u0000ö" * 100, "a:b\r\nX: y"])
def test_names_that_cannot_be_asked_for(host):
    for proxy in (HTTP, SOCKS):
        with pytest.raises(RefusedError):
            negotiate(proxy, host, 443)
    with pytest.raises(RefusedError, match="255"):
        negotiate(Proxy.parse(f"socks5://{'u' * 256}@p"), "r.example", 443)


@given(st.sampled_from([HTTP, SOCKS]), st.lists(st.binary(max_size=40), max_size=10))
def test_whatever_a_proxy_says(proxy, said):
    talk = negotiate(proxy, "r.example", 443)
    try:
        for piece in said:
            if not talk.done:
                talk.feed(piece)
    except RefusedError:
        pass


@simulated()
async def test_no_password_goes_to_an_encrypted_proxy_in_clear(network: VirtualNetwork):
    came = asyncio.Queue()
    await network.host("proxy").listen_tcp(lambda: Listening(came), "0.0.0.0", 443)
    proxies = Proxies.all("https://user:secret@proxy")
    dialler = TcpDialler(network.host("client"), proxies)
    with pytest.raises(RefusedError, match="the https proxy proxy:443 refuses"):
        await dialler.connect(asyncio.Protocol, "server", 80, encrypted=False)
    assert came.empty()


class Listening(asyncio.Protocol):
    def __init__(self, came: asyncio.Queue):
        self._came = came

    def data_received(self, data: bytes) -> None:
        self._came.put_nowait(data)
