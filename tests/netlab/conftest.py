"""What the lab needs of the machine; see CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import upstream
from namespaces import missing


@pytest.fixture(scope="session", autouse=True)
def the_machine_has_it(require: Callable[[object, str], None]) -> None:
    """Gives up, and says why, where no lab can be built."""
    problem = missing()
    require(problem is None, problem or "")


@pytest.fixture(scope="session")
def upstream_is_built(require: Callable[[object, str], None]) -> None:
    """Its relay and its peer."""
    for name in ("iroh-relay", "iroh-peer"):
        require(upstream.program(name).path.exists(), f"{name} is not built; run: make upstream")
