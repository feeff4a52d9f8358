"""`aioiroh receive`: fetch what a ticket names, verified, and put it in its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aioiroh.blobs import (
    BlobFormat,
    ExportPlan,
    Fate,
    NotAvailableError,
    OnConflict,
    Place,
    export_files,
    get,
    plan_export,
)
from aioiroh.quic import Connection

from . import amounts
from .contents import Content, Sender, content_in, lacking, look
from .display import Display, Part
from .failures import ExitCode
from .placing import check_space, describe, target, tell_fates
from .stalling import again_while_it_moves, give_up_when_silent
from .workfolder import WorkFolder, size_on_disk

__all__ = ["ReceiveOptions", "receive"]


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What was typed."""

    sender: Sender
    directory: Path
    on_conflict: OnConflict = OnConflict.REFUSE
    only: tuple[str, ...] = ()
    verbose: int = 0


async def receive(options: ReceiveOptions, display: Display) -> int:
    """Fetches the content of the ticket into the directory."""
    return await _Receive(options, display).run()


@dataclass(slots=True)
class _Receive:
    """One call; keeps what there is to say at its end."""

    options: ReceiveOptions
    display: Display
    content: Content | None = None
    plan: ExportPlan | None = None
    placed: set[int] = field(default_factory=set)
    """Files that were put in their places, by index."""
    received: int = 0
    """Bytes that came over the network."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        with target(self.options.directory):
            work = await WorkFolder.open(self.options.directory, self.options.sender.ticket)
            begun = loop.time()
            try:
                plan = await self._fetch(work)
                await self._place(work, plan)
                kept = await self._kept(work, self._unplaced(plan)) if self.options.only else 0
            except BaseException as error:
                await self._leave(work, error)
                raise
            await (work.keep() if kept else work.remove())
            self._report(plan, loop.time() - begun)
            if kept:
                self.display.note(
                    f"{amounts.size(kept)} of other files, from an earlier receive, stay in "
                    f"{work.folder}; `aioiroh clean {self.options.directory}` removes them."
                )
        return ExitCode.OK

    # --- fetching ---------------------------------------------------------------------------------

    async def _fetch(self, work: WorkFolder) -> ExportPlan:
        """Brings what is wanted and missing into the store, if it can be put where it belongs."""
        sender = self.options.sender
        content = await content_in(work.store, sender.ticket)
        if content is not None:
            self.display.note("All of it is here from an earlier time.")
            return await self._plan(work, content)
        return await again_while_it_moves(
            lambda: self._ask(work), lambda: self.received, self.display
        )

    async def _ask(self, work: WorkFolder) -> ExportPlan:
        """Connects and gets what is missing."""
        sender = self.options.sender
        async with sender.connected(self.display) as connection:
            async with give_up_when_silent(connection, sender.timeout):
                content = await look(connection, work.store, sender.ticket, self.display)
            # Comparing with what is there may take longer than a sender may be silent.
            plan = await self._plan(work, content)
            async with give_up_when_silent(connection, sender.timeout):
                await self._get(connection, work, content, plan)
        return plan

    async def _plan(self, work: WorkFolder, content: Content) -> ExportPlan:
        """Where what is wanted goes. Tells what it is, and what of it is here."""
        options, display = self.options, self.display
        self.content = content
        chosen = content.chosen(options.only)
        display.note(f"The sender has {describe(content.sizes)}.")
        if options.only:
            display.note(
                f"Wanted of these: {describe([content.sizes[index] for index in chosen])}."
            )
        display.event(
            "content",
            hash=str(options.sender.ticket.hash),
            files=len(content.sizes),
            bytes=content.payload,
            wanted_files=len(chosen),
            wanted_bytes=sum(content.sizes[index] for index in chosen),
        )
        with display.bar("comparing with what is there") as bar:
            plan = await plan_export(
                work.store,
                content.collection,
                content.sizes,
                options.directory,
                indexes=chosen,
                on_conflict=options.on_conflict,
                on_compared=bar.update,
                staging=work.staging,
            )
        self.plan = plan
        tell_fates(plan, content.sizes, display, every=bool(options.verbose))
        if options.verbose:
            for name, hash in content.collection:
                display.note(f"{hash} {name}")
        here = await self._kept(work, (place.index for place in plan.missing))
        if here:
            display.note(f"Going on: {amounts.size(here)} of it came with an earlier receive.")
        size = sum(content.sizes[place.index] for place in plan.missing)
        # The hashes that go with large files take 1/256 of their size.
        check_space(options.directory, size + size // 256 - here)
        return plan

    async def _get(
        self, connection: Connection, work: WorkFolder, content: Content, plan: ExportPlan
    ) -> None:
        """Downloads what is missing."""
        ticket = self.options.sender.ticket
        total = content.extra + sum(content.sizes[place.index] for place in plan.missing)
        ranges = plan.ranges() if ticket.format is BlobFormat.HASH_SEQ else None
        if not plan.missing:
            return
        names = content.collection.names
        first = 2 if ranges is not None else 0

        def in_flight() -> list[Part]:
            return [
                Part(names[index - first], done, size or 0)
                for index, done, size in transfer.arriving
                if index >= first
            ]

        with self.display.bar("receiving", "progress") as bar:
            transfer = get(connection, ticket.content, into=work.store, ranges=ranges)
            try:
                async for progress in transfer:
                    bar.update(progress.bytes, total, parts=in_flight)
            except NotAvailableError as error:
                raise lacking(error, content.collection) from None
            finally:
                self.received += transfer.progress.received

    # --- placing ----------------------------------------------------------------------------------

    async def _place(self, work: WorkFolder, plan: ExportPlan) -> None:
        assert self.content is not None
        names, sizes = self.content.collection.names, self.content.sizes
        count = amounts.counted(len(plan.missing), "file")
        with self.display.bar("putting files in place") as bar:

            def on_file(place: Place, path: Path) -> None:
                index = place.index
                self.placed.add(index)
                self.display.event("file", name=names[index], path=str(path), bytes=sizes[index])
                bar.update(0, detail=f"{len(self.placed):,} of {count}")

            await export_files(work.store, plan, on_file=on_file, staging=work.staging)

    # --- the end ----------------------------------------------------------------------------------

    async def _kept(self, work: WorkFolder, indexes: Iterable[int]) -> int:
        """Bytes that the work folder has of these files."""
        if self.content is None:
            return 0
        hashes = self.content.collection.hashes
        sizes = {hashes[index]: self.content.sizes[index] for index in indexes}
        statuses = await work.store.statuses(list(sizes))
        return sum(
            status.present.select(size).byte_count(size)
            for status, size in zip(statuses, sizes.values(), strict=True)
        )

    def _unplaced(self, plan: ExportPlan | None) -> Iterable[int]:
        """Files that are in no place of their own: those that were not put there, or not wanted."""
        assert self.content is not None
        placed = set(self.placed)
        if plan is not None:
            placed.update(place.index for place in plan.places if place.fate is Fate.SAME)
        return (index for index in range(len(self.content.sizes)) if index not in placed)

    async def _leave(self, work: WorkFolder, error: BaseException) -> None:
        """Says what there is after an error, and keeps what can be of use."""
        directory = self.options.directory
        if self.content is not None:
            kept, total = await self._kept(work, self._unplaced(self.plan)), self.content.payload
        else:
            kept, total = size_on_disk(work.folder) if work.is_resumed else 0, None
        # What is wrong here is no news after the error, and the data stay anyway.
        with contextlib.suppress(OSError):
            await (work.keep() if kept else work.remove())
        if self.placed or isinstance(error, asyncio.CancelledError):
            files = amounts.counted(len(self.placed), "file")
            what = f"only {files}" if self.placed else "nothing"
            self.display.note(f"Interrupted: {what} was put into {directory}.")
        if kept:
            of = "" if total is None else f" of {amounts.size(total)}"
            self.display.note(
                f"{amounts.size(kept)}{of} are kept in {work.folder}; the same command goes on "
                f"from there, and `aioiroh clean {directory}` removes them."
            )
            self.display.event("kept", bytes=kept, total_bytes=total, folder=str(work.folder))

    def _report(self, plan: ExportPlan, seconds: float) -> None:
        assert self.content is not None
        directory, content = self.options.directory, self.content
        there = [place for place in plan.places if place.fate is not Fate.SKIP]
        rate = amounts.rate(self.received / seconds) if seconds else "at once"
        sizes = [content.sizes[place.index] for place in plan.missing]
        self.display.note(
            f"Received {describe(sizes)} in {amounts.duration(seconds)} ({rate}), verified."
        )
        for top in dict.fromkeys(place.parts[0] for place in there):
            self.display.result(str(directory / top))
        self.display.event(
            "done",
            files=len(sizes),
            bytes=sum(sizes),
            received_bytes=self.received,
            seconds=round(seconds, 3),
            directory=str(directory),
        )
