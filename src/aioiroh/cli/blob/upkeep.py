"""`aioiroh blob verify` and `gc`: whether the data are what they should be, and what nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aioiroh.blobs import BlobStatus, Hash, Store
from aioiroh.blobs.store.garbage import Marking

from .. import amounts
from ..display import Display
from ..failures import ExitCode
from .content import find, hashes_of
from .place import opened

__all__ = ["collect", "verify"]


async def verify(folder: Path, whats: Sequence[str], display: Display, *, repair: bool) -> int:
    """Reads the data of the contents (without any: of the whole store) and hashes them again."""
    async with opened(folder) as store:
        wanted = await _wanted(store, whats)
        total = sum(map(_here, wanted.values()))
        count = done = damaged = 0
        with display.bar("verifying", "progress") as bar:
            look = store.repair if repair else store.verify
            async for finding in look(list(wanted)):
                count += 1
                done += _here(wanted.get(finding.hash, finding.before))
                bar.update(done, total, blobs=count)
                if finding.is_good:
                    continue
                damaged += 1
                left = amounts.size(_here(finding.after))
                display.result(f"{finding.hash}: {finding.problem}; {left} of it are good")
                display.event(
                    "damaged",
                    hash=str(finding.hash),
                    problem=finding.problem,
                    good_bytes=_here(finding.after),
                )
    what = f"{amounts.counted(count, 'blob')}, {amounts.size(done)}"
    display.event("verified", blobs=count, bytes=done, damaged=damaged, repaired=repair)
    if not damaged:
        display.note(f"Verified {what}: all of it is good.")
        return ExitCode.OK
    verb = "is" if damaged == 1 else "are"
    if repair:
        advice = "what is bad of them is gone; get or add it again"
    else:
        advice = "run it with --repair to give up what is bad, then get or add it again"
    display.note(f"Verified {what}: {damaged:,} {verb} damaged; {advice}.")
    return ExitCode.BAD_CONTENT


async def _wanted(store: Store, whats: Sequence[str]) -> dict[Hash, BlobStatus]:
    if not whats:
        return {hash: status async for hash, status in store.blobs()}
    hashes = await hashes_of(store, [find(store, what).content for what in whats])
    found = dict(zip(hashes, await store.statuses(hashes), strict=True))
    return {hash: status for hash, status in found.items() if status.state.value != "missing"}


def _here(status: BlobStatus) -> int:
    return status.present.byte_count(status.size) if status.size else 0


async def collect(folder: Path, display: Display, *, dry_run: bool) -> int:
    """Deletes the blobs that no tag names, or only says which."""
    async with opened(folder) as store:
        garbage = await _garbage(store)
        size = sum(map(_here, garbage.values()))
        for hash, status in garbage.items():
            display.event("garbage", hash=str(hash), bytes=_here(status))
            if dry_run:
                display.result(str(hash))
        count = len(garbage) if dry_run else await store.collect_garbage()
    what = f"{amounts.counted(count, 'blob')}, {amounts.size(size)}"
    display.note(f"Would delete {what}." if dry_run else f"Deleted {what}.")
    display.event("collected", blobs=count, bytes=size, dry_run=dry_run)
    return ExitCode.OK


async def _garbage(store: Store) -> dict[Hash, BlobStatus]:
    marking = Marking()
    for _, content in store.tags.list():
        marking.spare(content)
    await marking.follow(store)
    return {hash: status async for hash, status in store.blobs() if hash not in marking.live}
