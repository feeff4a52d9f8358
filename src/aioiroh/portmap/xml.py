"""XML from routers, read with expat: bounded, and without the parts of XML that are dangerous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from aioiroh.errors import DecodeError

__all__ = ["Element", "read"]

MAX_SIZE: Final = 1 << 18
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 10_000


@dataclass(slots=True)
class Element:
    """An element without its namespace prefix and attributes."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Element]:
        """Every element of this name below, in the order of the document."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def child(self, name: str) -> str:
        """The text of the first direct child of this name; empty if there is none."""
        return next((each.text.strip() for each in self.children if each.name == name), "")


def read(data: bytes) -> Element:
    """The element that holds the document's root. Raises DecodeError.

    A document type is refused, and with it entities and everything that a parser could be made to
    fetch or to multiply.
    """
    if len(data) > MAX_SIZE:
        raise DecodeError("the XML is too long")
    parser = expat.ParserCreate()
    parser.buffer_text = True
    document = Element("")
    open_elements = [document]
    count = 0

    def start(name: str, _attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(open_elements) > MAX_DEPTH or count > MAX_ELEMENTS:
            raise DecodeError("the XML is too deep or has too many elements")
        element = Element(name.rpartition(":")[2])
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_name: str) -> None:
        open_elements.pop()

    def text(data: str) -> None:
        open_elements[-1].text += data

    def doctype(*_: object) -> None:
        raise DecodeError("the XML has a document type, which nobody needs here")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DecodeError(f"not XML: {error}") from None
    except (ValueError, LookupError) as error:  # An encoding that it does not have.
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"not XML: {error}") from None
    return document
