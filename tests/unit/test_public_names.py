"""Pins the public surface: every name and signature stands in `public_names.txt`.

A change there is a change for everybody who uses the package. To accept one, and to write the type stubs
of `aioiroh.sync` anew:

    python tests/unit/test_public_names.py
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aioiroh

PINNED = Path(__file__).with_name("public_names.txt")
MODULES = [
    "aioiroh",
    "aioiroh.blobs",
    "aioiroh.lookup",
    "aioiroh.ping",
    "aioiroh.presets",
    "aioiroh.relayserver",
    "aioiroh.testing",
]


def surface() -> str:
    """All public names with their signatures, one a line."""
    lines: list[str] = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            lines += describe(f"{module_name}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def signature(function: Any) -> str:
    """As it stands in the source: annotations are kept as text, and quoted by some versions."""
    text = re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", str(inspect.signature(function)))
    return re.sub(r"(<function \w+) at 0x[0-9a-f]+>", r"\1>", text)


def describe(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield from describe_class(path, value)
    elif inspect.isfunction(value):
        yield f"{path}{signature(value)}"
    elif inspect.ismodule(value):
        yield f"{path}: module"
    elif isinstance(value, (int, str, bytes)):
        yield f"{path} = {value!r}"
    else:
        yield path


def describe_class(path: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    yield f"{path}({bases})" if bases else path
    if isinstance(cls, enum.EnumType):
        yield from (f"{path}.{member.name} = {member.value!r}" for member in cls)
    listed = getattr(cls, "__members__", {})
    for name, value in sorted(members(cls).items()):
        if name not in listed and (name == "__init__" or not name.startswith("_")):
            yield from describe_member(f"{path}.{name}", value)


def members(cls: type) -> dict[str, Any]:
    """Attributes of the class and of its bases in this package."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("aioiroh"):
            found |= vars(base)
    return found


def describe_member(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        yield f"{path}: property {signature(value.fget)}"
    elif isinstance(value, (classmethod, staticmethod)):
        yield f"{path}: {type(value).__name__} {signature(value.__func__)}"
    elif inspect.isfunction(value):
        prefix = "async " if inspect.iscoroutinefunction(value) else ""
        yield f"{path}: {prefix}{signature(value)}"
    elif inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value):
        yield f"{path}: attribute"
    elif isinstance(value, (int, float, str, bytes, tuple, type(None))):
        yield f"{path} = {value!r}"


def test_nothing_has_changed():
    expected = PINNED.read_text(encoding="utf-8")
    found = surface()
    new = set(found.splitlines()) - set(expected.splitlines())
    gone = set(expected.splitlines()) - set(found.splitlines())
    assert found == expected, f"the public surface changed\nnew: {new}\ngone: {gone}"


@pytest.mark.parametrize("name", aioiroh.__all__)
def test_names_can_be_used_and_have_documentation(name):
    value = getattr(aioiroh, name)
    assert name in dir(aioiroh)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__


def test_unknown_names():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = aioiroh.nonsense
    with pytest.raises(ImportError):
        from aioiroh import nonsense  # noqa: F401


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(aioiroh.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(aioiroh.__all__)
    for name, module in aioiroh._HOMES.items():
        assert seen[name] == f"aioiroh.{module}"


def test_every_error_is_public():
    from aioiroh import errors

    public = [name for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    assert set(public) <= set(aioiroh.__all__)


def test_the_blocking_stubs_are_up_to_date():
    from sync_stub import stubs

    for path, text in stubs().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: see the top of this file"


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2] / "tools"))
    from sync_stub import stubs

    PINNED.write_text(surface(), encoding="utf-8")
    for stub, text in stubs().items():
        stub.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {PINNED.name}\n")
