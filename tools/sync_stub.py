"""Writes the type stubs of `aioiroh.sync` from the source of the asynchronous package.

python tools/sync_stub.py    # after a change of the public surface
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import aioiroh
from aioiroh.sync.live import PACKAGE, is_live

FOLDER = Path(aioiroh.__file__).parent / "sync"
ROOMS = {"": PACKAGE, "blobs": f"{PACKAGE}.blobs", "lookup": f"{PACKAGE}.lookup"}
NATIVE = f"{PACKAGE}._native"
AWAITED = {"Coroutine": 2, "Awaitable": 0, "Pending": 0, "Opening": 0, "Generator": 2}
"""Types whose argument at this place is what a blocking call returns."""
ITERATED = {"AsyncIterator": "Iterator", "AsyncGenerator": "Iterator", "AsyncIterable": "Iterable"}
SPECIALS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__await__": "result",
}
KEPT = ("__init__", "__len__", "__getitem__", "__contains__", "__bool__")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def imports_of(module: str) -> dict[str, tuple[str, str | None]]:
    """From each imported name, also those for type checkers, to module and name there."""
    found: dict[str, tuple[str, str | None]] = {}
    package = module if hasattr(importlib.import_module(module), "__path__") else None
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = (module + ".x" if package else module).split(".")[: -node.level]
                source = ".".join([*parts, source] if source else parts)
            found |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
    return found


def resolve(module: str, name: str) -> tuple[str, str | None]:
    """Where a name is defined: module, and name there (None: it is the module itself)."""
    while module != NATIVE and name in imports_of(module):
        source, original = imports_of(module)[name]
        if original is None:
            return source, None
        if not source.startswith(PACKAGE):
            return source, original
        found = getattr(importlib.import_module(source), original, None)
        if isinstance(found, ModuleType):
            return found.__name__, None
        if isinstance(found, type) and found.__module__ != source:
            return found.__module__, found.__qualname__
        module, name = source, original
    return module, name


def definition(module: str, name: str) -> ast.stmt | None:
    if module == NATIVE or not module.startswith(PACKAGE):
        return None
    for node in tree_of(module).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name == name:
                return node
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                return node
    return None


@dataclass
class Stub:
    """One file in the making."""

    room: str
    imports: set[str] = field(default_factory=set)
    heads: dict[str, str] = field(default_factory=dict)
    """Type variables and aliases."""
    bodies: dict[str, str] = field(default_factory=dict)


class Writer:
    """Goes through the public names, and through what their signatures mention."""

    def __init__(self) -> None:
        self.stubs = {room: Stub(room) for room in ROOMS}
        self.public: dict[Any, tuple[str, str]] = {}
        for room, module in ROOMS.items():
            for name in importlib.import_module(module).__all__:
                value = getattr(importlib.import_module(module), name)
                if isinstance(value, type) and is_live(value):
                    self.public.setdefault(value, (room, name))
        self.waiting: list[type] = []
        self.naming_hidden = False
        """Whether a class that is not public gets a name: only where a method returns it."""
        self.bound: dict[tuple[str, str], tuple[str, ast.expr]] = {}
        """What a type variable (module and name) of a base class stands for in the current class."""

    def write(self) -> dict[Path, str]:
        for room, module in ROOMS.items():
            self.room(room, module)
        while self.waiting:
            self.emit_class(self.waiting.pop())
        return {
            FOLDER / f"{room or '__init__'}.pyi": self.text(stub)
            for room, stub in self.stubs.items()
        }

    def text(self, stub: Stub) -> str:
        module = ROOMS[stub.room]
        lines = [f'"""Written by tools/sync_stub.py from {module}."""', ""]
        lines += sorted(stub.imports)
        if not stub.room:
            lines += [f"from {PACKAGE}.sync import blobs as blobs, lookup as lookup"]
            lines += [f"from {PACKAGE}.sync.facade import Facade as Facade"]
            lines += [f"from {PACKAGE}.sync.portal import timeout as timeout"]
        else:
            lines += [f"from {PACKAGE}.sync.facade import Facade"]
        lines += [*stub.heads.values(), *stub.bodies.values()]
        return formatted("\n".join(lines) + "\n")

    def room(self, room: str, module: str) -> None:
        stub = self.stubs[room]
        source = importlib.import_module(module)
        skipped = {"testing", "sync", "fsspec", *ROOMS} if not room else set()
        for name in source.__all__:
            if name in skipped:
                continue
            value = getattr(source, name)
            if isinstance(value, type) and is_live(value):
                if self.public[value] == (room, name):
                    self.emit_class(value)
                else:
                    stub.imports.add(f"from {PACKAGE}.sync import {name} as {name}")
            elif inspect.isfunction(value):
                node = definition(value.__module__, name)
                assert isinstance(node, Function)
                stub.bodies[name] = self.function(stub, value.__module__, node, None)
            elif not isinstance(value, (type, ModuleType)):
                # An alias, or a constant.
                home = resolve(module, name)
                if home[1] is None or not self.alias(stub, name, home[0], home[1]):
                    stub.imports.add(f"from {module} import {name} as {name}")
            else:
                stub.imports.add(f"from {module} import {name} as {name}")

    # --- annotations

    def name(self, stub: Stub, module: str, name: str) -> str:
        """A name in an annotation, as the stub writes it."""
        home, original = resolve(module, name)
        if original is None:
            stub.imports.add(f"from {PACKAGE} import {name}" if home != name else f"import {name}")
            return name
        if home == module and home != NATIVE and definition(home, name) is None:
            assert hasattr(builtins, name), (module, name)
            return name
        value = getattr(importlib.import_module(home), original, None)
        if isinstance(value, type) and is_live(value):
            if value not in self.public and not self.naming_hidden:
                stub.imports.add("from typing import Any")
                return "Any"
            return self.live(stub, value)
        if (home, original) in self.bound:
            return ast.unparse(self.annotation(stub, *self.bound[home, original]))
        if isinstance(value, TypeVar):
            stub.imports.add("from typing import TypeVar")
            node = definition(home, original)
            assert isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            node = deepcopy(node)
            for keyword in node.value.keywords:
                keyword.value = self.annotation(stub, home, keyword.value)
            assert isinstance(node.value.args[0], ast.Constant)
            node.targets, node.value.args[0].value = [ast.Name(f"_{original}")], f"_{original}"
            stub.heads[f"_{original}"] = ast.unparse(node)
            return f"_{original}"
        if home.startswith(PACKAGE) and self.alias(stub, original, home, original):
            return original
        shown = importlib.import_module(ROOMS[stub.room])
        if original in shown.__all__:
            if getattr(shown, original) is value:
                return original
            stub.imports.add(f"from {home} import {original} as _{original}")
            return f"_{original}"
        stub.imports.add(f"from {home} import {original}")
        return original

    def live(self, stub: Stub, cls: type) -> str:
        room, name = self.public.get(cls) or (self.room_of(cls), f"_{cls.__name__}")
        if cls not in self.public and name not in self.stubs[room].bodies:
            self.stubs[room].bodies[name] = ""
            self.waiting.append(cls)
        if room != stub.room:
            where = f"{PACKAGE}.sync.{room}" if room else f"{PACKAGE}.sync"
            stub.imports.add(f"from {where} import {name}")
        return name

    def room_of(self, cls: type) -> str:
        part = cls.__module__.split(".")[1]
        return part if part in ROOMS else ""

    def alias(self, stub: Stub, shown: str, home: str, original: str) -> bool:
        """Writes an alias out if the blocking form differs; False: it does not."""
        node = definition(home, original)
        if shown in stub.heads:
            return True
        match node:
            case ast.AnnAssign(value=ast.expr() as value):
                pass
            case ast.Assign(value=(ast.BinOp() | ast.Subscript()) as value):
                pass
            case _:
                return False
        trial = Stub(stub.room)
        after = ast.unparse(self.annotation(trial, home, value))
        names = [part.id for part in ast.walk(value) if isinstance(part, ast.Name)]
        if after == ast.unparse(value) and not any(self.is_live_name(home, name) for name in names):
            return False
        stub.imports |= trial.imports | {"from typing import TypeAlias"}
        stub.heads |= trial.heads | {shown: f"{shown}: TypeAlias = {after}"}
        return True

    def is_live_name(self, module: str, name: str) -> bool:
        home, original = resolve(module, name)
        value = None if original is None else getattr(importlib.import_module(home), original, None)
        return isinstance(value, type) and is_live(value)

    def annotation(self, stub: Stub, module: str, node: ast.expr) -> ast.expr:
        """The blocking form of an annotation."""
        match node:
            case ast.Constant(value=str(text)):
                return self.annotation(stub, module, ast.parse(text, mode="eval").body)
            case ast.Subscript(value=ast.Name(id=name)) if name in AWAITED:
                return self.annotation(stub, module, part(node, AWAITED[name]))
            case ast.Subscript(value=ast.Name(id=name)) if name in ITERATED:
                stub.imports.add(f"from collections.abc import {ITERATED[name]}")
                inner = self.annotation(stub, module, part(node, 0))
                return ast.Subscript(ast.Name(ITERATED[name]), inner)
            case ast.Subscript(value=ast.Attribute(attr="Task" | "Future")):
                stub.imports.add("from concurrent.futures import Future")
                inner = self.annotation(stub, module, part(node, 0))
                return ast.Subscript(ast.Name("Future"), inner)
            case ast.Subscript(value=ast.Name(id="Literal")):
                stub.imports.add("from typing import Literal")
                return node
            case ast.Name(id=name):
                return ast.Name(self.name(stub, module, name))
            case ast.Attribute(value=ast.Name(id=name)):
                self.name(stub, module, name)
                return node
            case ast.Subscript(value=value, slice=inner):
                return ast.Subscript(
                    self.annotation(stub, module, value), self.annotation(stub, module, inner)
                )
            case ast.BinOp(left=left, right=right):
                alternatives: list[ast.expr] = []
                for side in (left, right):
                    changed = self.annotation(stub, module, side)
                    if ast.unparse(changed) not in map(ast.unparse, alternatives):
                        alternatives.append(changed)
                if len(alternatives) == 1:
                    return alternatives[0]
                return ast.BinOp(alternatives[0], ast.BitOr(), alternatives[1])
            case ast.Tuple(elts=items):
                return ast.Tuple([self.annotation(stub, module, item) for item in items])
            case ast.List(elts=items):
                return ast.List([self.annotation(stub, module, item) for item in items])
        return node

    # --- functions and classes

    def function(self, stub: Stub, module: str, node: Function, name: str | None) -> str:
        arguments = deepcopy(node.args)
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.annotation is not None:
                argument.annotation = self.annotation(stub, module, argument.annotation)
        arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
        arguments.kw_defaults = [
            None if default is None else ast.Constant(...) for default in arguments.kw_defaults
        ]
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        self.naming_hidden = "property" not in decorators
        returns = self.returned(stub, module, node)
        self.naming_hidden = False
        if "asynccontextmanager" in decorators or "contextlib.asynccontextmanager" in decorators:
            stub.imports.add("from contextlib import AbstractContextManager")
            returns = ast.Subscript(ast.Name("AbstractContextManager"), part(returns, 0))
        kept = [d for d in decorators if d in ("property", "classmethod", "staticmethod")]
        text = "".join(f"@{decorator}\n" for decorator in kept)
        text += f"def {name or node.name}({ast.unparse(arguments)}) -> {ast.unparse(returns)}:"
        return text + " ..."

    def returned(self, stub: Stub, module: str, node: Function) -> ast.expr:
        if node.returns is None:
            stub.imports.add("from typing import Any")
            return ast.Name("Any")
        return self.annotation(stub, module, node.returns)

    def emit_class(self, cls: type) -> None:
        room, name = self.public.get(cls) or (self.room_of(cls), f"_{cls.__name__}")
        stub = self.stubs[room]
        bases = ["Facade"]
        members: dict[str, str] = {}
        self.bound = {}
        for base in cls.__mro__:
            node = definition(base.__module__, base.__name__)
            for written in node.bases if isinstance(node, ast.ClassDef) else []:
                self.bind(base.__module__, written)
        for base in reversed(cls.__mro__):
            if base.__module__.partition(".")[0] != PACKAGE or base.__module__ == NATIVE:
                continue
            node = definition(base.__module__, base.__name__)
            assert isinstance(node, ast.ClassDef)
            for written in node.bases:
                match written:
                    case ast.Name(id="Protocol"):
                        stub.imports.add("from typing import Protocol")
                        bases = ["Protocol"]
                    case ast.Subscript(value=ast.Name(id="Generic")) if base is cls:
                        stub.imports.add("from typing import Generic")
                        bases.append(ast.unparse(self.annotation(stub, base.__module__, written)))
                    case ast.Name(id="NamedTuple"):
                        types = [
                            ast.unparse(self.annotation(stub, base.__module__, item.annotation))
                            for item in node.body
                            if isinstance(item, ast.AnnAssign)
                        ]
                        bases = [f"tuple[{', '.join(types)}]"]
            for item in node.body:
                members |= self.member(stub, base.__module__, item)
        if "aclose" in members:
            closing = members.pop("aclose").replace("def aclose(", "def close(")
            members.setdefault("close", closing)
        if name.startswith("_") or bases[0].startswith("tuple") or not is_made_by_programs(cls):
            members.pop("__init__", None)
        if bases[0].startswith("tuple"):
            members.pop("__iter__", None)  # it unpacks
        if "__iter__" not in members:
            members.pop("result", None)
        self.bound = {}
        text = f"class {name}({', '.join(bases)}):\n" + indented("\n".join(members.values()))
        stub.bodies[name] = text

    def bind(self, module: str, written: ast.expr) -> None:
        """Notes what the arguments of a generic base class are."""
        if not (isinstance(written, ast.Subscript) and isinstance(written.value, ast.Name)):
            return
        home, original = resolve(module, written.value.id)
        generic = definition(home, original or "")
        if not isinstance(generic, ast.ClassDef):
            return
        for base in generic.bases:
            if isinstance(base, ast.Subscript) and ast.unparse(base.value) == "Generic":
                for variable, argument in zip(parts(base), parts(written), strict=True):
                    key = resolve(home, ast.unparse(variable))
                    self.bound[key[0], key[1] or ""] = module, argument

    def member(self, stub: Stub, module: str, node: ast.stmt) -> dict[str, str]:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if name.startswith("_"):
                return {}
            kind = ast.unparse(self.annotation(stub, module, node.annotation))
            return {name: f"{name}: {kind}"}
        if not isinstance(node, Function):
            return {}
        name = SPECIALS.get(node.name, node.name)
        found = self.attributes(stub, module, node) if node.name == "__init__" else {}
        if not name.startswith("_") or name in KEPT or name in SPECIALS.values():
            found[name] = self.function(stub, module, node, name)
        return found

    def attributes(self, stub: Stub, module: str, node: Function) -> dict[str, str]:
        """Public attributes that `__init__` sets."""
        given = {argument.arg: argument.annotation for argument in node.args.args}
        found: dict[str, str] = {}
        for statement in ast.walk(node):
            target: ast.expr | None = None
            kind: ast.expr | None = None
            match statement:
                case ast.AnnAssign():
                    target, kind = statement.target, statement.annotation
                case ast.Assign(targets=[target], value=ast.Name(id=name)):
                    kind = given.get(name)
                case ast.Assign(targets=[target], value=ast.Call(func=ast.Name() as made)):
                    kind = made
                case ast.Assign(targets=[target]):
                    kind = None
            match target:
                case ast.Attribute(value=ast.Name(id="self"), attr=attribute):
                    if attribute.startswith("_"):
                        continue
                    if kind is None:
                        stub.imports.add("from typing import Any")
                        kind = ast.Name("Any")
                    else:
                        kind = self.annotation(stub, module, kind)
                    found[attribute] = f"{attribute}: {ast.unparse(kind)}"
        return found


def is_made_by_programs(cls: type) -> bool:
    """False if the documentation of `__init__` says so."""
    return not (cls.__init__.__doc__ or "").startswith(("For `", "Not for "))


def parts(node: ast.expr) -> list[ast.expr]:
    assert isinstance(node, ast.Subscript)
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def part(node: ast.expr, at: int) -> ast.expr:
    return parts(node)[at]


def indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


def formatted(text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (["check", "--select", "I,F401", "--fix-only"], ["format"]):
        text = subprocess.run(
            [ruff, *arguments, "--quiet", "--stdin-filename", FOLDER / "x.pyi", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


def stubs() -> dict[Path, str]:
    """Each stub file, and what has to be in it."""
    return Writer().write()


if __name__ == "__main__":
    for path, text in stubs().items():
        path.write_text(text, encoding="utf-8")
