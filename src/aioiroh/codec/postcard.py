"""Postcard (wire format 1.0): the binary form of iroh's messages, tickets and records.

Integers are little-endian base-128 groups ("varint"), lengths are varints, structs and tuples are
their fields in order, an enum is the varint of its variant and then its payload.

`Reader` is total: any input gives a value or `DecodeError`. Nothing is allocated before a length
was compared with what is really there and with the limit that the caller names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioiroh.errors import DecodeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Reader", "Writer"]


class Reader:
    """Reads values one after the other from the front of `data`."""

    __slots__ = ("_data", "position")

    def __init__(self, data: Buffer) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.position

    def raw(self, size: int) -> bytes:
        """Exactly `size` bytes without a length before them (fixed-size arrays)."""
        start = self.position
        end = start + size
        if end > len(self._data):
            raise DecodeError(
                f"the input ends early: {size} bytes wanted at offset {start}, "
                f"{len(self._data) - start} left"
            )
        self.position = end
        return self._data[start:end]

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.raw(self.remaining)

    def u8(self) -> int:
        """One byte."""
        return self.raw(1)[0]

    def u16(self) -> int:
        """A varint of at most 16 bits."""
        return self._varint(3, 16)

    def u32(self) -> int:
        """A varint of at most 32 bits."""
        return self._varint(5, 32)

    def u64(self) -> int:
        """A varint of at most 64 bits; also `usize`."""
        return self._varint(10, 64)

    def _varint(self, groups: int, bits: int) -> int:
        data, start = self._data, self.position
        value = 0
        for index, byte in enumerate(data[start : start + groups]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >> bits:
                    break
                self.position = start + index + 1
                return value
        else:
            if len(data) - start < groups:
                raise DecodeError(f"the input ends inside the number at offset {start}")
        raise DecodeError(f"the number at offset {start} is larger than {bits} bits")

    def boolean(self) -> bool:
        """One byte, 0 or 1."""
        return bool(self._choice(2, "a boolean"))

    def option(self) -> bool:
        """Whether a value follows."""
        return bool(self._choice(2, "an option"))

    def _choice(self, count: int, what: str) -> int:
        value = self.u8()
        if value >= count:
            raise DecodeError(f"{what} cannot be {value} (offset {self.position - 1})")
        return value

    def variant(self, count: int) -> int:
        """Index of an enum's variant, below `count`."""
        value = self.u32()
        if value >= count:
            raise DecodeError(f"variant {value} is not known (there are {count})")
        return value

    def count(self, limit: int, *, size: int = 1) -> int:
        """Number of elements that follow.

        `limit` is the most the caller takes, `size` the least number of bytes an element has.
        """
        value = self.u64()
        if value > limit:
            raise DecodeError(f"{value} elements, at most {limit} are allowed")
        if value * size > self.remaining:
            raise DecodeError(f"{value} elements cannot fit in the {self.remaining} bytes left")
        return value

    def byte_string(self, limit: int) -> bytes:
        """Length-prefixed bytes, at most `limit` of them."""
        return self.raw(self.count(limit))

    def string(self, limit: int) -> str:
        """Length-prefixed UTF-8, at most `limit` bytes."""
        try:
            return self.byte_string(limit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"text is not UTF-8: {error.reason}") from None

    def end(self) -> None:
        """Raise DecodeError if anything is left."""
        if self.remaining:
            raise DecodeError(f"{self.remaining} bytes left over")


class Writer:
    """Appends values; `finish` gives the bytes. Methods mirror `Reader`.

    Numbers out of range raise ValueError.
    """

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def __len__(self) -> int:
        return len(self._out)

    def finish(self) -> bytes:
        """Everything written so far."""
        return bytes(self._out)

    def raw(self, data: Buffer) -> None:
        """Bytes without a length before them."""
        self._out += data

    def u8(self, value: int) -> None:
        """One byte."""
        self._out.append(value)

    def u16(self, value: int) -> None:
        """A varint of at most 16 bits."""
        self._varint(value, 16)

    def u32(self, value: int) -> None:
        """A varint of at most 32 bits."""
        self._varint(value, 32)

    def u64(self, value: int) -> None:
        """A varint of at most 64 bits; also `usize`."""
        self._varint(value, 64)

    def _varint(self, value: int, bits: int) -> None:
        if value >> bits:  # negative numbers shift to -1
            raise ValueError(f"{value} is not an unsigned number of {bits} bits")
        out = self._out
        while value >= 0x80:
            out.append((value & 0x7F) | 0x80)
            value >>= 7
        out.append(value)

    def boolean(self, value: bool) -> None:
        """One byte, 0 or 1."""
        self._out.append(1 if value else 0)

    def option(self, present: bool) -> None:
        """Announces whether a value follows."""
        self._out.append(1 if present else 0)

    def variant(self, index: int) -> None:
        """Index of an enum's variant."""
        self._varint(index, 32)

    def count(self, value: int) -> None:
        """Number of elements that follow."""
        self._varint(value, 64)

    def byte_string(self, data: Buffer) -> None:
        """Length-prefixed bytes."""
        view = memoryview(data)
        self._varint(view.nbytes, 64)
        self._out += view

    def string(self, text: str) -> None:
        """Length-prefixed UTF-8."""
        self.byte_string(text.encode("utf-8"))
