"""The few concurrency pieces that every room shares, each exactly once."""

from __future__ import annotations

from aioiroh.aio.backoff import Backoff
from aioiroh.aio.fan_out import fan_out
from aioiroh.aio.pending import Pending
from aioiroh.aio.tasks import Tasks
from aioiroh.aio.watch import Watch

__all__ = ["Backoff", "Pending", "Tasks", "Watch", "fan_out"]
