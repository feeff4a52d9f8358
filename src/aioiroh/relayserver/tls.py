"""The certificate of a relay server: read from files, and again when they have changed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from aioiroh.relayserver.certificate import Certificate
from aioiroh.relayserver.config import CertMode, ConfigError, TlsConfig

__all__ = ["CertificateFiles"]

MAX_FILE: Final = 1 << 20
"""Bytes of a file with certificates or a key."""

MISMATCH: Final = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""What OpenSSL says of a key of another certificate; the last if the two are of different kinds."""

NO_ACME: Final = (
    'tls.cert_mode = "LetsEncrypt" is not supported: this server has no ACME client. Let one of those '
    "that are made for it (certbot, lego, acme.sh, Caddy) fetch and renew the certificate, and say "
    'tls.cert_mode = "Reloading" with tls.manual_cert_path and tls.manual_key_path; renewed files are '
    "taken within a minute"
)


class CertificateFiles:
    """The files that `[tls]` names. Its methods block, shortly."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises ConfigError: there are no files, the certificate is to come by ACME."""
        if config.cert_mode is CertMode.LETS_ENCRYPT:
            raise ConfigError(NO_ACME)
        self._paths = (config.cert_path, config.key_path)
        self.is_watched = config.cert_mode is CertMode.RELOADING
        """Whether to look from time to time whether they have changed."""
        self._seen: object = None

    def load(self) -> Certificate:
        """What is in them now. Raises ConfigError."""
        self._seen = self._stamps()
        chain, key = map(_read, self._paths)
        # OpenSSL's opinion: complete, readable without a password, and belonging together.
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                *self._paths, password=_no_password
            )
        except ssl.SSLError as error:
            certificate, secret = self._paths
            if error.reason in MISMATCH:
                text = f"the key in {secret} is not that of the certificate in {certificate}"
            else:
                text = f"{certificate} and {secret} are no certificate with its key (PEM)"
            raise ConfigError(text) from None
        except OSError as error:
            raise ConfigError(f"{self._paths[0]}, {self._paths[1]}: {error.strerror}") from None
        try:
            return Certificate(chain, key)
        except ValueError as error:
            raise ConfigError(f"the certificate cannot be used: {error}") from None

    def have_changed(self) -> bool:
        """Whether they are other ones than those that `load` read last."""
        return self._stamps() != self._seen

    def _stamps(self) -> object:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{path} is too long for a certificate or a key")
    return content


def _no_password() -> str:
    raise ConfigError("the private key is protected by a password; store it without one")
