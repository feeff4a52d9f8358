"""Runs the whole lab and writes docs/netlab.md: `make lab`.

python tests/netlab [--rounds N] [--relays upstream|ours …] [--programs ours-ours …] [--no-write]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import page
from expected import BOTH_STRICT, MIXED, MIXED_BACK, OURS, UPSTREAM, Programs
from faults import RESTART, SCENES, Transfer, play
from lab import RELAY_PROGRAMS, ROOT, Lab
from namespaces import missing
from pairs import ALL, Outcome, meet

PATIENCE = 15
"""Seconds for a direct path."""
GROUPS: tuple[Programs, ...] = (OURS, MIXED, MIXED_BACK, UPSTREAM)


async def _pairs(folder: Path, relays: str, programs: Programs) -> list[Outcome]:
    """Of all pairs of NATs, and of the hardest one where both sides have IPv6 as well."""
    async with Lab(folder, relays) as lab:
        return await asyncio.gather(
            *(meet(lab, programs, nats, PATIENCE) for nats in ALL),
            meet(lab, programs, BOTH_STRICT, PATIENCE, ipv6=True),
        )


async def _transfers(folder: Path, relays: str, programs: Programs) -> list[Transfer]:
    async with Lab(folder, relays) as lab:
        done = await asyncio.gather(*(play(lab, programs, scene) for scene in SCENES))
        return [*done, await play(lab, programs, RESTART)]


async def _all_of_it(options: argparse.Namespace) -> page.Results:
    results = page.Results(options.rounds)
    groups = [programs for programs in GROUPS if "-".join(programs) in options.programs]
    for relays in options.relays:
        for programs in groups:
            print(f"{' to '.join(programs)} over relays of {relays}", file=sys.stderr)
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as folder:
                    *outcomes, ipv6 = await _pairs(Path(folder), relays, programs)
                results.add_pairs(relays, programs, dict(zip(ALL, outcomes, strict=True)), ipv6)
    for programs in groups:
        print(f"{' to '.join(programs)}, faults", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            transfers = await _transfers(Path(folder), options.relays[0], programs)
        names = [scene.name for scene in (*SCENES, RESTART)]
        results.add_transfers(programs, dict(zip(names, transfers, strict=True)))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lab", description="The lab of NATs, all of it.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each pair meets")
    parser.add_argument("--relays", nargs="+", default=["upstream", "ours"], choices=RELAY_PROGRAMS)
    names = ["-".join(programs) for programs in GROUPS]
    parser.add_argument("--programs", nargs="+", default=names, choices=names)
    parser.add_argument("--no-write", action="store_true", help="print the page only")
    options = parser.parse_args()
    problem = missing()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    results = asyncio.run(_all_of_it(options))
    text = page.text(results)
    print(text)
    if not options.no_write:
        (ROOT / "docs" / "netlab.md").write_text(text)
    return 1 if results.disappointments else 0


if __name__ == "__main__":
    sys.exit(main())
