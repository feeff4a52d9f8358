"""Measure, and write README.md.

python -m benchmarks                    everything, about a quarter of an hour
python -m benchmarks --only gets blob   these rows, printed only
python -m benchmarks --quick            everything, small and in two rounds, printed only
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import blobs, commands, endpoints, forwarding, held, memory
from benchmarks.measures import MEASURES
from benchmarks.steps import Plan
from benchmarks.table import render
from empty_network import enter_empty_namespace

SECTIONS = (held.SECTION, forwarding.SECTION, blobs.SECTION, commands.SECTION, memory.SECTION)
KEYS = [*(m.key for m in MEASURES), *(step.key for part in SECTIONS for step in part.steps)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="rounds at most [default: 15]")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=KEYS, metavar="KEY", help=", ".join(KEYS)
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds")
    parser.add_argument(
        "--folder", type=Path, help="where files go [default: the one for temporary files]"
    )
    arguments = parser.parse_args()
    # Upstream's programs would look for relays, and our own have nothing to look for.
    if problem := enter_empty_namespace():
        print(f"measuring in the network as it is: {problem}", file=sys.stderr)
    rounds = arguments.rounds or (2 if arguments.quick else 15)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as folder:
        plan = Plan(rounds, arguments.quick, Path(folder))
        found = endpoints.measure(plan, arguments.only)
        parts = [line for part in SECTIONS for line in part.lines(plan, arguments.only)]
    text = render(found, parts)
    if arguments.only or arguments.quick:
        print(text)
    else:
        Path(__file__).with_name("README.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
