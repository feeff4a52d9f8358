"""Prints 'N passed, N failed' for a JUnit file; fails when a test failed, was skipped, or none ran."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def main(path: Path) -> int:
    if not path.exists():
        print("0 passed, 1 failed")
        return 1
    suites = list(ElementTree.parse(path).iter("testsuite"))

    def count(key: str) -> int:
        return sum(int(suite.get(key, "0")) for suite in suites)

    bad = count("failures") + count("errors")
    skipped = count("skipped")
    passed = count("tests") - bad - skipped
    print(f"{passed} passed, {bad} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed and not bad else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
