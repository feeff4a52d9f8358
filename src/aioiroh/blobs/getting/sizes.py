"""Proved sizes, without the content: of one blob, or of all children of a hash sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh import _native

from ..errors import BlobTooLargeError, NotAvailableError, VerificationError
from ..hash import HASH_SIZE, Hash
from ..hashseq import MAX_HASH_SEQ_SIZE, HashSeq
from ..messages import GetRequest, encode_request
from ..ranges import CHUNK_SIZE, GROUP_SIZE, ChunkRanges, chunk_count
from ..rangeseq import ChunkRangesSeq
from .answer import HEADER, Answer

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection

__all__ = ["Sizes", "get_size", "get_sizes", "probe"]

PAIR = 2 * HASH_SIZE


@dataclass(frozen=True, slots=True)
class Sizes:
    """A hash sequence and the proved size, in bytes, of each child."""

    sequence: HashSeq
    sizes: tuple[int, ...]


async def get_size(connection: Connection, hash: Hash) -> int:
    """The proved size of a blob in bytes, at the price of one chunk and its proof.

    Raises ProviderError (see its subclasses) or ConnectionLostError.
    """
    async with connection.open_bi() as stream:
        await stream.write(
            encode_request(GetRequest(hash, ChunkRangesSeq.blob(ChunkRanges.last_chunk())))
        )
        await stream.finish()
        return await _read_size(Answer(stream.recv), hash)


async def probe(connection: Connection, hash: Hash, chunk: int) -> int:
    """Asks for one chunk of a blob, to see whether the provider has it; gives the size that it says.

    The size is proved if it is the last chunk, which is also what comes for any number behind it. Errors
    as `get_size`: NotAvailableError, if the provider does not have the chunk.
    """
    ranges = ChunkRanges.chunks(chunk, chunk + 1)
    async with connection.open_bi() as stream:
        await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob(ranges))))
        await stream.finish()
        return await _read_chunk(Answer(stream.recv), hash, ranges)


async def get_sizes(connection: Connection, root: Hash, *, max_children: int = 1 << 20) -> Sizes:
    """A hash sequence and the proved sizes of its children, in one round trip.

    BlobTooLargeError: the sequence has more than `max_children`. Others as `get_size`; DecodeError:
    the blob is no hash sequence.
    """
    async with connection.open_bi() as stream:
        await stream.write(encode_request(GetRequest(root, ChunkRangesSeq.sizes())))
        await stream.finish()
        limit = min(max_children * HASH_SIZE, MAX_HASH_SEQ_SIZE)
        answer = Answer(stream.recv)
        sequence = HashSeq.from_bytes(await read_blob(answer, root, limit))
        return Sizes(sequence, tuple([await _read_size(answer, hash) for hash in sequence]))


async def read_blob(answer: Answer, hash: Hash, limit: int) -> bytes:
    """The answer to a request for all of a blob, verified."""
    size = await answer.header(hash)
    if size > limit:
        raise BlobTooLargeError(f"blob {hash} has {size} bytes, over the limit of {limit}")
    if 0 < size <= GROUP_SIZE:
        data = answer.at_once(size)
        if data is None:
            data = await answer.take(hash, size)
        # One group has no pairs: its hash is that of the blob.
        if _native.blake3(data) != bytes(hash):
            raise _wrong(hash, "leaf_mismatch")
        return data
    groups = max(1, -(-size // GROUP_SIZE))
    body = await answer.take(hash, size + PAIR * (groups - 1))
    pieces = _verify(hash, ChunkRanges.all(), size, body)
    return pieces[0][1] if len(pieces) == 1 else b"".join(data for _, data in pieces)


async def _read_size(answer: Answer, hash: Hash) -> int:
    """The answer to a request for the last chunk of a blob, verified."""
    return await _read_chunk(answer, hash, ChunkRanges.last_chunk())


async def _read_chunk(answer: Answer, hash: Hash, ranges: ChunkRanges) -> int:
    """The answer to a request for one chunk of a blob, verified; the size."""
    size = await answer.header(hash)
    ((chunk, _),) = ranges.select(size).spans()
    pairs, leaf = chunk_proof(size, chunk)
    body = await answer.take(hash, PAIR * pairs + leaf)
    _verify(hash, ranges, size, body)
    return size


def chunk_proof(size: int, chunk: int) -> tuple[int, int]:
    """How many hash pairs, and how many bytes, prove a chunk of a blob of `size` bytes."""
    chunks = chunk_count(size)
    leaf = min(size - chunk * CHUNK_SIZE, CHUNK_SIZE)
    pairs = 0
    while chunks > 1:
        # The left side is the largest power of two below the number of chunks.
        left = 1 << ((chunks - 1).bit_length() - 1)
        if chunk < left:
            chunks = left
        else:
            chunk -= left
            chunks -= left
        pairs += 1
    return pairs, leaf


def _verify(hash: Hash, ranges: ChunkRanges, size: int, body: bytes) -> list[tuple[int, bytes]]:
    encoded = size.to_bytes(HEADER, "little") + body
    try:
        return _native.decode_blob(bytes(hash), ranges.boundaries, encoded)
    except ValueError as error:
        if not size:
            raise NotAvailableError(
                f"blob {hash}: the provider lacks it, and says that it is empty; ask another one"
            ) from None
        raise _wrong(hash, error) from None


def _wrong(hash: Hash, why: object) -> VerificationError:
    return VerificationError(
        f"blob {hash}: the provider sent bytes that do not belong to it ({why})"
    )
