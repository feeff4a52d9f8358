"""Our program in the lab: the requests of `iroh-peer` that the lab makes, on stdin and stdout."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.our_streams import OurStreams, Request, main


class LabPeer(OurStreams):
    """One endpoint that is reached through relays, and tells how its data go."""

    async def do_bind(self, request: Request) -> dict[str, Any]:
        endpoint = await self.bind(request, relays=request["relays"], relay_ca=request["ca_file"])
        async with asyncio.timeout(20):
            await endpoint.online()
        assert endpoint.home_relay is not None
        slots = [f"{slot.host}:{slot.port}" for slot in endpoint.bound_sockets]
        return {"peer": str(endpoint.id), "addrs": slots, "relay": endpoint.home_relay.url}

    async def do_paths(self, request: Request) -> dict[str, Any]:
        """The open paths; with `until`, "direct" or "relay", once data go that way."""
        until = request.get("until")
        watch = self.conns[request["conn"]].paths
        paths = await watch.wait_for(
            lambda paths: (
                until is None
                or {path.relay is None for path in paths if path.status == "available"}
                == {until == "direct"}
            )
        )
        return {
            "paths": [
                {
                    "remote": "{}:{}".format(*path.remote) if path.relay is None else path.relay,
                    "direct": path.relay is None,
                    "selected": path.status == "available",
                    "rtt": path.rtt,
                }
                for path in paths
            ]
        }


async def run() -> None:
    peer = LabPeer()
    try:
        await main(peer)
    finally:
        if peer.endpoint is not None:
            await peer.endpoint.close()


if __name__ == "__main__":
    asyncio.run(run())
