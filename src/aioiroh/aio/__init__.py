"""The few concurrency pieces that every room shares, each exactly once."""

from __future__ import annotations

from aioiroh.aio.backoff import Backoff
from aioiroh.aio.bucket import TokenBucket
from aioiroh.aio.closing import Closing
from aioiroh.aio.fan_out import fan_out
from aioiroh.aio.job import Job
from aioiroh.aio.pending import Pending
from aioiroh.aio.tasks import Tasks
from aioiroh.aio.watch import Watch
from aioiroh.aio.weakly import weakly
from aioiroh.aio.within import within

__all__ = [
    "Backoff",
    "Closing",
    "Job",
    "Pending",
    "Tasks",
    "TokenBucket",
    "Watch",
    "fan_out",
    "weakly",
    "within",
]
