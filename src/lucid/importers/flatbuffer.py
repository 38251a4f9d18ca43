"""Reading flatbuffers that someone else wrote: every offset is checked before it is followed.

Layout: FlatBuffers documentation, "Internals". All numbers are little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lucid.errors import CheckpointError

T = TypeVar("T")

# Of a vector of tables or numbers; a network of a hundred layers has some hundred of each.
MAX_LENGTH = 100_000


@dataclass(frozen=True)
class Table:
    """A table in a flatbuffer; its fields are found by their number in the schema.

    Raises:
        CheckpointError: from every method, where an offset leads out of the file.
    """

    content: bytes
    position: int

    @classmethod
    def root(cls, content: bytes, identifier: bytes) -> Table:
        """The table that a file of this identifier starts with."""
        if content[4:8] != identifier:
            raise CheckpointError(f"not a flatbuffer of the kind {identifier.decode()}")
        return cls(content, _number(content, 0, "I"))

    def number(self, field: int, kind: str, default: float = 0) -> Any:
        """A number; ``kind`` is its letter in the ``struct`` module."""
        place = self._place(field)
        return default if place is None else _number(self.content, place, kind)

    def text(self, field: int) -> str:
        """A text, empty if there is none; bytes that are no UTF-8 are replaced."""
        return self.bytes(field).decode(errors="replace")

    def bytes(self, field: int) -> bytes:
        """A vector of bytes, empty if there is none."""
        vector = self._vector(field)
        if vector is None:
            return b""
        start, length = vector
        return cut(self.content, start, length)

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """A vector of numbers, empty if there is none."""
        size = struct.calcsize(f"<{kind}")
        return self._elements(field, lambda start, i: _number(self.content, start + i * size, kind))

    def table(self, field: int) -> Table | None:
        """The table that a field points to, if any."""
        place = self._place(field)
        return None if place is None else self._follow(place)

    def tables(self, field: int) -> tuple[Table, ...]:
        """A vector of tables, empty if there is none."""
        return self._elements(field, lambda start, i: self._follow(start + i * 4))

    def _elements(self, field: int, read: Callable[[int, int], T]) -> tuple[T, ...]:
        vector = self._vector(field)
        if vector is None:
            return ()
        start, length = vector
        if length > MAX_LENGTH:
            raise CheckpointError(f"a list of {length} entries; the limit is {MAX_LENGTH}")
        return tuple(read(start, i) for i in range(length))

    def _place(self, field: int) -> int | None:
        """Where a field's value stands; None if the table leaves it out."""
        fields = self.position - _number(self.content, self.position, "i")
        slot = 4 + 2 * field
        if slot >= _number(self.content, fields, "H"):
            return None
        offset: int = _number(self.content, fields + slot, "H")
        return self.position + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int] | None:
        """Where a vector's first element stands, and how many there are."""
        place = self._place(field)
        if place is None:
            return None
        start = place + _number(self.content, place, "I")
        return start + 4, _number(self.content, start, "I")

    def _follow(self, place: int) -> Table:
        return Table(self.content, place + _number(self.content, place, "I"))


def cut(content: bytes, start: int, length: int) -> bytes:
    """``length`` bytes from ``start``; raises CheckpointError where the file is shorter."""
    if start < 0 or length < 0 or start + length > len(content):
        raise CheckpointError(
            f"bytes {start} to {start + length} are needed, the file has {len(content)}; "
            "it is truncated or damaged"
        )
    return content[start : start + length]


def _number(content: bytes, place: int, kind: str) -> Any:
    size = struct.calcsize(f"<{kind}")
    return struct.unpack(f"<{kind}", cut(content, place, size))[0]
