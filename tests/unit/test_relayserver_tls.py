"""The certificate of a relay, from files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aioiroh.relayserver.config import CertMode, ConfigError, TlsConfig
from aioiroh.relayserver.tls import CertificateFiles

PAIR = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
"""A certificate and its key in one file."""


def files(folder: Path, mode: CertMode = CertMode.RELOADING) -> CertificateFiles:
    return CertificateFiles(TlsConfig(mode, cert_dir=folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("default.crt", "default.key"):
        shutil.copy(PAIR, tmp_path / name)
    return tmp_path


def test_loading(folder: Path) -> None:
    loaded = files(folder).load()
    assert loaded.chain == loaded.key == PAIR.read_bytes()
    assert str(loaded).count("PRIVATE KEY") == 0


def test_what_has_changed_is_seen(folder: Path) -> None:
    watched = files(folder)
    assert watched.is_watched and not files(folder, CertMode.MANUAL).is_watched
    watched.load()
    assert not watched.have_changed()
    # As ACME clients do it.
    (folder / "next").write_bytes(PAIR.read_bytes() + b"\n")
    (folder / "next").replace(folder / "default.crt")
    assert watched.have_changed()
    watched.load()
    assert not watched.have_changed()
    (folder / "default.key").unlink()
    assert watched.have_changed()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("default.crt", None, "default.crt: No such file"),
        ("default.key", None, "default.key: No such file"),
        ("default.crt", b"nothing", "no certificate with its key"),
        ("default.key", b"", "no certificate with its key"),
        ("default.key", bytes(2 << 20), "default.key is too long"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, name: str, content: bytes | None, says: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        files(folder).load()


def test_a_key_of_another_certificate(folder: Path) -> None:
    tests = Path(__file__).parents[1]
    for other in ("e2e/renewed.test.pem", "sim/relays.pem"):  # of the same kind, and of another one
        shutil.copy(tests / other, folder / "default.key")
        with pytest.raises(ConfigError, match=r"the key in \S*default.key is not that of") as error:
            files(folder).load()
        assert "ssl" not in str(error.value).lower()


def test_acme_is_left_to_others(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r'no ACME client.*certbot.*"Reloading"'):
        files(folder, CertMode.LETS_ENCRYPT)
