"""What the tasks of a loop wait for, for people who wonder why nothing happens."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

__all__ = ["describe_tasks"]

MAX_TASKS = 50


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """One paragraph per pending task: its name and the chain of awaits, outermost first."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    lines = [f"{len(tasks)} pending task{'' if len(tasks) == 1 else 's'}:"]
    for task in tasks[:MAX_TASKS]:
        lines.append(f"  {task.get_name()}")
        lines.extend(f"    {place}" for place in _awaits(task.get_coro()))
    if len(tasks) > MAX_TASKS:
        lines.append(f"  and {len(tasks) - MAX_TASKS} more")
    return "\n".join(lines)


def _awaits(awaited: Any) -> list[str]:
    places = []
    while awaited is not None:
        frame: FrameType | None = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is None:
            break
        code = frame.f_code
        places.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    return places
