"""What is meant by a name or a hash, how large it is, and how much of it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobStatus,
    BlobTicket,
    Hash,
    HashAndFormat,
    HashSeq,
    NotFoundError,
    Store,
)
from aioiroh.blobs.store.sequences import read_hash_seq
from aioiroh.errors import AioirohError, DecodeError, TicketParsingError

from .. import amounts
from ..failures import ExitCode, Failure

__all__ = [
    "Extent",
    "Named",
    "extent",
    "find",
    "hashes_of",
    "require",
    "shown",
    "tag_name",
    "tags_of",
]


@dataclass(frozen=True, slots=True)
class Named:
    """Content of a store, and the tag it was named by; None: by its hash."""

    content: HashAndFormat
    tag: bytes | None = None

    def __str__(self) -> str:
        return str(self.content) if self.tag is None else shown(self.tag)


def tag_name(text: str) -> bytes:
    """The name of a tag as it was typed."""
    return text.encode("utf-8", "surrogateescape")


def shown(name: bytes) -> str:
    """A tag's name as text, from which `tag_name` makes the same name."""
    return name.decode("utf-8", "surrogateescape")


def find(store: Store, text: str) -> Named:
    """What `text` means: the name of a tag, a hash (with `s`: a sequence), or a ticket.

    Failure: none of these, or nothing of that hash is there.
    """
    name = tag_name(text)
    content = store.tags.get(name)
    if content is not None:
        return Named(content, name)
    for parse in (HashAndFormat.parse, _hash, _ticket):
        try:
            return Named(parse(text))
        except (DecodeError, TicketParsingError):
            continue
    raise Failure(
        f"nothing has the name {text!r}, and it is no hash; `aioiroh blob list` shows what there is",
        ExitCode.USAGE,
    )


def _hash(text: str) -> HashAndFormat:
    return HashAndFormat(Hash.parse(text))


def _ticket(text: str) -> HashAndFormat:
    return BlobTicket.parse(text).content


def tags_of(store: Store, content: HashAndFormat) -> list[bytes]:
    """The names that content has."""
    return [name for name, other in store.tags.list() if other == content]


async def hashes_of(store: Store, contents: Iterable[HashAndFormat]) -> list[Hash]:
    """The hashes of all blobs that belong to contents, each once, as far as that is known here."""
    found: dict[Hash, None] = {}
    for content in contents:
        found[content.hash] = None
        if content.format is BlobFormat.HASH_SEQ:
            found.update(dict.fromkeys(await _children(store, content.hash)))
    return list(found)


async def _children(store: Store, hash: Hash) -> HashSeq:
    """Empty if it is not all there, or no sequence after all."""
    try:
        return await read_hash_seq(store, hash)
    except (AioirohError, ValueError):
        return HashSeq()


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is: blobs, bytes as far as their sizes are known, bytes that are here."""

    state: BlobState
    blobs: int
    size: int
    present: int

    def __str__(self) -> str:
        whole = amounts.size(self.size)
        if self.state is BlobState.COMPLETE:
            return whole
        return f"{amounts.size(self.present)} of {whole}" if self.present else "nothing"


async def extent(store: Store, content: HashAndFormat) -> Extent:
    """What is there of content. Blobs that a sequence names several times count once."""
    hashes = await hashes_of(store, [content])
    statuses = await store.statuses(hashes)
    sequence = content.format is BlobFormat.HASH_SEQ
    return _sum(statuses, known=not sequence or statuses[0].is_complete)


def _sum(statuses: Sequence[BlobStatus], *, known: bool) -> Extent:
    """`known`: these are all blobs that belong to the content."""
    if known and all(status.is_complete for status in statuses):
        state = BlobState.COMPLETE
    elif all(status.state is BlobState.MISSING for status in statuses):
        state = BlobState.MISSING
    else:
        state = BlobState.PARTIAL
    size = sum(status.size or 0 for status in statuses)
    present = sum(status.present.byte_count(status.size) for status in statuses if status.size)
    return Extent(state, len(statuses), size, present)


async def require(store: Store, named: Named) -> None:
    """Raises NotFoundError if nothing of the content is there."""
    if (await store.status(named.content.hash)).state is BlobState.MISSING:
        raise NotFoundError(f"the store has nothing of {named}; get or add it first")
