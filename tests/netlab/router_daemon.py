"""A router's daemon that maps ports: miniupnpd, which speaks PCP, NAT-PMP and UPnP."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Self

from topology import Uplink


def missing() -> str | None:
    """What this machine lacks for it, None if nothing."""
    if shutil.which("miniupnpd") is None:
        return "the program miniupnpd is missing (Debian: apt install miniupnpd-nftables)"
    return None


RULES = """
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        type filter hook forward priority filter
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority dstnat
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 90
        jump postrouting_miniupnpd
    }
}
"""
"""Where it puts its own."""


class RouterDaemon:
    """The daemon on the router of an uplink, as a context manager; it can be stopped and started meanwhile."""

    def __init__(
        self, uplink: Uplink, folder: Path, *, pcp: bool = True, upnp: bool = True
    ) -> None:
        """`pcp`: with PCP and NAT-PMP, which it has both or none."""
        assert uplink.router is not None
        uplink.router.nft(RULES)
        config = folder / "miniupnpd.conf"
        lines = {
            "ext_ifname": "wan",
            "listening_ip": "lan",
            "port": 5000,
            "enable_upnp": "yes" if upnp else "no",
            "enable_natpmp": "yes" if pcp else "no",
            "secure_mode": "yes",
            "uuid": "00000000-0000-0000-0000-000000000001",
        }
        text = "\n".join(f"{key}={value}" for key, value in lines.items())
        config.write_text(f"{text}\nallow 1024-65535 0.0.0.0/0 1024-65535\n")
        self._command = [*uplink.router.prefix, "miniupnpd", "-d", "-f", str(config)]
        self._command += ["-P", str(folder / "miniupnpd.pid")]
        self.log = folder / "miniupnpd.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
