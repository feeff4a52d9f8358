"""Transfers of ours reach their end whatever happens to their network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from expected import OURS
from faults import RESTART, SCENES, Transfer, play
from lab import Lab


async def _all_of_them(folder: Path) -> dict[str, Transfer]:
    (folder / "other").mkdir()
    async with Lab(folder) as lab, Lab(folder / "other") as restarted:
        plays = [play(lab, OURS, scene) for scene in SCENES]
        done = await asyncio.gather(*plays, play(restarted, OURS, RESTART))
    return {scene.name: each for scene, each in zip((*SCENES, RESTART), done, strict=True)}


@pytest.fixture(scope="module")
def transfers(
    upstream_is_built: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Transfer]:
    return asyncio.run(_all_of_them(tmp_path_factory.mktemp("faults")))


@pytest.mark.parametrize("name", [scene.name for scene in (*SCENES, RESTART)])
def test_transfer(transfers: dict[str, Transfer], name: str) -> None:
    assert transfers[name].seconds is not None, transfers[name].problem
