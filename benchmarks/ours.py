"""Our end of a measurement: `python -m benchmarks.ours [--uvloop]`, JSON lines on stdin and stdout."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

from benchmarks.our_blobs import OurBlobs
from benchmarks.our_streams import Request, main


class Gaps:
    """How long the event loop did not come round, sampled while something else works."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    async def watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.gaps.append(now - last)
            last = now

    def p99(self) -> float:
        return sorted(self.gaps)[int(len(self.gaps) * 0.99)] if self.gaps else 0.0


class Ours(OurBlobs):
    """One endpoint and what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self._watching: tuple[Gaps, asyncio.Task[None]] | None = None

    async def do_bind(self, request: Request) -> dict[str, Any]:
        pairs = [address.rpartition(":") for address in request["addrs"]]
        endpoint = await self.bind(
            request,
            bind=[(host, int(port)) for host, _, port in pairs],
            relays=[request["relay"]] if "relay" in request else [],
            busy_poll=0.0001 if "--busy-poll" in sys.argv else 0.0,
        )
        await endpoint.online()
        slots = [f"{slot.host}:{slot.port}" for slot in endpoint.bound_sockets]
        return {"peer": bytes(endpoint.id).hex(), "addrs": slots}

    async def do_step_times(self, _request: Request) -> dict[str, Any]:
        """How often a native step took less than 2**n microseconds, since the last time."""
        assert self.endpoint is not None
        return {"classes": self.endpoint._driver.engine.stats()["step_micros"]}

    async def do_watch_gaps(self, _request: Request) -> dict[str, Any]:
        """From now until `gaps` the loop's gaps are sampled, which costs speed."""
        gaps = Gaps()
        self._watching = gaps, asyncio.ensure_future(gaps.watch())
        return {}

    async def do_gaps(self, _request: Request) -> dict[str, Any]:
        assert self._watching is not None
        gaps, watching = self._watching
        watching.cancel()
        return {"p99": gaps.p99()}

    async def do_collect(self, _request: Request) -> dict[str, Any]:
        gc.collect()
        return {}


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(main(Ours()))
    else:
        asyncio.run(main(Ours()))
