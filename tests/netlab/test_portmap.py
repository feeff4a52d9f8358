"""Port mapping against a real router's daemon: miniupnpd speaks all three protocols."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from aioiroh.metrics import PortmapMetrics
from aioiroh.net import SystemNetwork
from aioiroh.portmap import PortMapper, probe
from nat import Nat
from topology import Host, Internet, Uplink

PORT = 4444


@pytest.fixture(scope="module", autouse=True)
def the_daemon_is_installed(require: Callable[[object, str], None]) -> None:
    require(
        shutil.which("miniupnpd"), "miniupnpd is missing (Debian: apt install miniupnpd-nftables)"
    )


RULES = """
table inet filter {
    chain miniupnpd { }
    chain forward { type filter hook forward priority 0; jump miniupnpd; }
}
table ip nat {
    chain miniupnpd { }
    chain miniupnpd_post { }
    chain pre { type nat hook prerouting priority dstnat; iifname "wan" jump miniupnpd; }
    chain post { type nat hook postrouting priority 99; oifname "wan" jump miniupnpd_post; }
}
"""


class Daemon:
    """The daemon on a host's router, with these protocols."""

    def __init__(self, uplink: Uplink, folder: Path, *, pcp_pmp: bool, upnp: bool) -> None:
        assert uplink.router is not None
        self.router = uplink.router
        uplink.router.nft(RULES)
        config = folder / "miniupnpd.conf"
        yes_no = {True: "yes", False: "no"}
        config.write_text(
            "\n".join(
                [
                    "ext_ifname=wan",
                    "listening_ip=lan",
                    "port=0" if upnp else "port=5000",
                    f"enable_upnp={yes_no[upnp]}",
                    f"enable_natpmp={yes_no[pcp_pmp]}",
                    "min_lifetime=120",
                    "max_lifetime=86400",
                    "secure_mode=yes",
                    "uuid=00000000-0000-0000-0000-000000000001",
                    "upnp_table_name=filter",
                    "upnp_nat_table_name=nat",
                    "upnp_forward_chain=miniupnpd",
                    "upnp_nat_chain=miniupnpd",
                    "upnp_nat_postrouting_chain=miniupnpd_post",
                    "allow 1024-65535 0.0.0.0/0 1024-65535",
                ]
            )
            + "\n"
        )
        self._command = [
            *self.router.prefix,
            *("miniupnpd", "-d", "-f", str(config), "-P", str(folder / "pid")),
        ]
        self.log = folder / "miniupnpd.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
