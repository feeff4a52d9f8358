"""The Python examples of the README and the documentation run as they are printed.

Each is a program of its own; what `print(…)  # comment` says in its comment is what it has to print.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from aioiroh.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def examples() -> Iterator[Any]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1):
            yield pytest.param(code, id=f"{page.name}-{number}")


@pytest.mark.parametrize("code", list(examples()))
def test_example(code: str, tmp_path: Path, isolated_network: None) -> None:
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == PROMISE.findall(code)


def test_the_readme_has_its_example() -> None:
    (code,) = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "aioiroh.connect" in code


def test_the_readme_names_the_two_commands_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("pip install .")


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands below that one, by their names."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from commands(each, f"{name} {each.name}".strip())
    else:
        yield name, command


COMMANDS = dict(commands(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_a_page(name: str) -> None:
    options = [each.opts for each in COMMANDS[name].params if isinstance(each, click.Option)]
    text = "".join(TEXT.values())
    missing = [
        spelled
        for spelled in options
        if not any(re.search(rf"`{re.escape(each)}[`= ]", text) for each in spelled)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_types_can_be_typed(page: Path) -> None:
    """The commands in its examples exist and know their options."""
    for block in re.findall(r"^```console\n(.*?)^```$", TEXT[page], re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^\$ aioiroh (.*)", block, re.MULTILINE):
            words = line.partition(" > ")[0].split()
            name = next(
                (known for known in (" ".join(words[:2]), words[0]) if known in COMMANDS), None
            )
            assert name, line
            known = {each for option in COMMANDS[name].params for each in option.opts}
            assert {word for word in words if word.startswith("-") and word != "-"} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", TEXT[page], flags=re.DOTALL)
    named = {
        text.strip("/")
        for text in re.findall(r"`([^`\n]+)`", prose)
        if re.fullmatch(r"[\w./-]+/([\w-]+\.(py|rs|toml))?", text)
    }
    here = [path.relative_to(ROOT).as_posix() for path in FILES]
    assert [
        name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in here)
    ] == []
    links = {link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose) if link}
    assert [link for link in links if not (page.parent / link).exists()] == []


FILES = [
    path
    for top in ("src", "rust", "tests", "tools", "examples", "docs", "benchmarks")
    for path in (ROOT / top, *(ROOT / top).rglob("*"))
]
