"""A proxy by somebody else (pproxy), in a process of its own: prints its port, then what it is asked for.

Arguments: the kind (`http`, `socks5`) and the login (`user:password`, or nothing); `tls` has it speak TLS with the
certificate of the tests' relays.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import pproxy

CERTIFICATE = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"


async def main(kind: str, login: str, tls: str) -> None:
    encrypted = "+ssl" if tls else ""
    server = pproxy.Server(f"{kind}{encrypted}://127.0.0.1:0" + (f"/#{login}" if login else ""))
    if tls:
        server.sslserver = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.sslserver.load_cert_chain(CERTIFICATE)

    def say(line: object) -> None:
        print(line, flush=True)

    # Without `authtime` it remembers for a month who has logged in from where.
    listening = await server.start_server({"rserver": [], "verbose": say, "authtime": -1})
    say(listening.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
