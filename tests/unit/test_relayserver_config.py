"""The configuration file of a relay: upstream's keys, and errors that say what to do."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioiroh import SecretKey
from aioiroh.relayserver.config import (
    AllowList,
    AskByHttp,
    CertMode,
    Config,
    ConfigError,
    DenyList,
    Everyone,
    SharedToken,
)
from aioiroh.relayserver.configfile import parse_config, read_config
from aioiroh.relayserver.limits import AcceptLimit, RateLimit

ID = SecretKey(bytes([42]) * 32).public
ID_BASE32 = base64.b32encode(bytes(ID)).decode().rstrip("=").lower()

EVERYTHING = f"""
enable_relay = true
http_bind_addr = "127.0.0.1:8080"
enable_quic_addr_discovery = true
enable_metrics = false
metrics_bind_addr = "127.0.0.1:9191"
key_cache_capacity = 1000
access.allowlist = ["{ID}"]

[tls]
https_bind_addr = "127.0.0.2:8443"
quic_bind_addr = "[::1]:7000"
hostname = "relay.example"
cert_mode = "Reloading"
cert_dir = "/etc/relay"
manual_cert_path = "/etc/relay/chain.pem"
manual_key_path = "/etc/relay/key.pem"
prod_tls = false
contact = "us@relay.example"
dangerous_http_only = false

[limits]
accept_conn_limit = 100
accept_conn_burst = 20

[limits.client.rx]
bytes_per_second = 400
max_burst_bytes = 800
"""


def test_nothing_is_upstreams_defaults() -> None:
    config = parse_config("")
    assert config == Config()
    assert config.http_address == ("::", 80)
    assert config.https_address == ("::", 443)
    assert config.quic_address == ("::", 7842)
    assert config.metrics_address == ("::", 9090)
    assert (config.enable_relay, config.enable_metrics, config.is_https) == (True, True, False)
    assert config.rate is None
    assert config.access == Everyone()
    assert config.for_development().http_address == ("::", 3340)


def test_every_key_of_upstream() -> None:
    config = parse_config(EVERYTHING)
    assert config.http_address == ("127.0.0.1", 8080)
    assert config.https_address == ("127.0.0.2", 8443)
    assert config.quic_address == ("::1", 7000)
    assert config.metrics_address == ("127.0.0.1", 9191)
    assert config.enable_quic_addr_discovery and not config.enable_metrics and config.is_https
    assert config.tls is not None and config.tls.cert_mode is CertMode.RELOADING
    assert config.tls.cert_path == Path("/etc/relay/chain.pem")
    assert config.tls.key_path == Path("/etc/relay/key.pem")
    assert config.accept == AcceptLimit(100.0, 20)
    assert config.rate == RateLimit(400, 800)
    assert config.access == AllowList(frozenset([ID]))
    # In development the file's address counts, and its certificate is only for address discovery.
    assert config.for_development().http_address == ("127.0.0.1", 8080)
    assert not config.for_development().is_https


def test_addresses_follow_each_other() -> None:
    config = parse_config('http_bind_addr = "10.0.0.1:8000"\n[tls]\ncert_mode = "Manual"\n')
    assert config.https_address == ("10.0.0.1", 443)
    assert config.quic_address == ("10.0.0.1", 7842)
    assert config.metrics_address == ("10.0.0.1", 9090)
    assert config.tls is not None
    assert (config.tls.cert_path, config.tls.key_path) == (Path("default.crt"), Path("default.key"))
    config = parse_config('[tls]\ncert_mode = "Manual"\nhttps_bind_addr = "10.0.0.2:8443"\n')
    assert config.quic_address == ("10.0.0.2", 7842)


def test_a_burst_is_a_tenth_unless_said() -> None:
    config = parse_config("[limits.client.rx]\nbytes_per_second = 5000\n")
    assert config.rate is not None and config.rate.burst == 500
    assert parse_config("[limits.client]\n").rate is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('access = "everyone"', Everyone()),
        (f'access.denylist = ["{ID_BASE32}"]', DenyList(frozenset([ID]))),
        (f'access.denylist = ["{ID_BASE32.upper()}"]', DenyList(frozenset([ID]))),
        ('access.shared_token = ["a", "b"]', SharedToken(("a", "b"))),
        ('access.http = { url = "https://x.example/a?b=c" }', AskByHttp("https://x.example/a?b=c")),
        (
            'access.http.url = "http://x.example"\naccess.http.bearer_token = "foo"',
            AskByHttp("http://x.example", "foo"),
        ),
    ],
)
def test_access(text: str, rule: object) -> None:
    assert parse_config(text).access == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('http_bind_address = ""', "unknown key http_bind_address; did you mean http_bind_addr?"),
        ("[limits.client.tx]", "unknown key limits.client.tx"),
        ("surprise = 1", "unknown key surprise; known: "),
        ('[tls]\ncert_mode = "Manual"\ncertpath = ""', "unknown key tls.certpath"),
        ("[tls]", "tls.cert_mode is missing"),
        ('[tls]\ncert_mode = "manual"', 'tls.cert_mode must be one of "Manual", "Reloading", '),
        ("tls = 1", "tls must be a table"),
        ("enable_relay = 1", "enable_relay must be true or false"),
        ('http_bind_addr = "localhost:80"', "http_bind_addr: not an IP address"),
        ('http_bind_addr = "1.2.3.4"', "http_bind_addr: not a socket address"),
        ("key_cache_capacity = -1", "key_cache_capacity must be a whole number from 0"),
        ("enable_quic_addr_discovery = true", "needs a certificate"),
        ("enable_relay = false", "nothing is left to do"),
        ("[limits.client.rx]\nmax_burst_bytes = 1", "needs limits.client.rx.bytes_per_second"),
        ("[limits.client.rx]\nbytes_per_second = 0", "must be a whole number from 1"),
        ("[limits.client.rx]\nbytes_per_second = 9", "must be at least 10; leave it out"),
        ("[limits]\naccept_conn_limit = 0", "accept_conn_limit must be a number above 0"),
        ("[limits]\naccept_conn_limit = nan", "accept_conn_limit must be a number above 0"),
        ("[limits]\naccept_conn_burst = 1", "needs limits.accept_conn_limit"),
        ('access = "nobody"', 'access must be "everyone" or have one of the keys allowlist, '),
        ("access = { allowlist = [], denylist = [] }", "must be"),
        ('access.allowlist = ["abc"]', "access.allowlist: 'abc': not an endpoint id"),
        ('access.allowlist = "abc"', "access.allowlist must be a list of strings"),
        ("access.http = {}", "access.http.url is missing"),
        ('access.http.url = "relay.example"', "must be an absolute URL of HTTP or HTTPS"),
        ('access.http.url = "http://[::1"', "must be an absolute URL of HTTP or HTTPS"),
        (
            'access.http = { url = "http://x", bearer_token = "a\\nb" }',
            "bearer_token must be printable ASCII",
        ),
        ("a = ", "this is no TOML: "),
    ],
)
def test_what_cannot_be_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    assert says in str(error.value)


VALUES = st.recursive(
    st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        line.split(" = ")[0]
        for line in EVERYTHING.splitlines()
        if " = " in line and not line.startswith("access")
    ]
    + [
        "access.allowlist",
        "access.http.url",
        "access.shared_token",
        "tls",
        "limits",
        "limits.client",
    ]
)


# A machine that is busy is no failure.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_value_anywhere_is_read_or_refused(content: dict[str, object]) -> None:
    lines = (f"{key} = {_toml(value)}" for key, value in content.items())
    try:
        parse_config("\n".join(lines))
    except ConfigError as error:
        assert str(error)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
        case list():
            return f"[{', '.join(map(_toml, value))}]"
    return str(value)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("enable_metrics = false\n")
    assert not read_config(path).enable_metrics
    path.write_text("enable_metrics = 0\n")
    with pytest.raises(ConfigError, match=r"relay\.toml: enable_metrics must be"):
        read_config(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"relay\.toml: this is no TOML: it is not UTF-8"):
        read_config(path)
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "other.toml")
