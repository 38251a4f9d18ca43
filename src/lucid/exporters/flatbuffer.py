"""Writing flatbuffers without their schema compiler: tables are dicts from a field's number.

Written front to back, a table before what it points to. Layout: FlatBuffers documentation,
"Internals". All numbers are little endian. ``lucid.importers.flatbuffer`` reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bytes", "Number", "Table", "Value", "encode"]


@dataclass(frozen=True)
class Number:
    """A scalar; ``kind`` is its letter in the ``struct`` module."""

    kind: str
    value: float


@dataclass(frozen=True)
class Bytes:
    """A vector of bytes whose first stands at a multiple of ``alignment``."""

    content: bytes
    alignment: int = 1


# Arrays are vectors of numbers, of their own dtype.
Value = Number | Bytes | str | NDArray[Any] | Sequence["Table"] | Mapping[int, Any]
Table = Mapping[int, Value]


def encode(root: Table, identifier: bytes) -> bytes:
    """A flatbuffer whose root is a table; the same content gives the same bytes.

    Args:
        root: fields by their number in the schema; those that are left out have their default.
        identifier: 4 bytes that say what kind of file it is.
    """
    writer = _Writer(bytearray(4) + identifier)
    writer.point(0, writer.table(root))
    return bytes(writer.content)


@dataclass
class _Writer:
    content: bytearray
    layouts: dict[bytes, int] = field(default_factory=dict)

    def table(self, fields: Table) -> int:
        """Append a table and all that it points to; gives its position."""
        # A slot's size is its alignment; the largest first, so that none is padded but the first.
        slots = {
            number: struct.calcsize(f"<{value.kind}") if isinstance(value, Number) else 4
            for number, value in fields.items()
        }
        largest = max(slots.values(), default=4)
        end = first = max(largest, 4)  # behind the offset of the layout
        places: dict[int, int] = {}
        for number in sorted(slots, key=lambda number: -slots[number]):
            places[number] = end
            end += slots[number]
        layout = self._layout(places, end)
        # The position of the first slot is a multiple of the largest.
        self._align(first, 0)
        start = len(self.content)
        self.content += struct.pack("<i", start - layout) + bytes(end - 4)
        for number, value in fields.items():
            place = start + places[number]
            if isinstance(value, Number):
                struct.pack_into(f"<{value.kind}", self.content, place, value.value)
            else:
                self.point(place, self._value(value))
        return start

    def point(self, place: int, target: int) -> None:
        """Write where something stands, relative to the place that says it."""
        struct.pack_into("<I", self.content, place, target - place)

    def _layout(self, places: Mapping[int, int], size: int) -> int:
        """The position of a table of slots; tables of one layout share it."""
        offsets = [places.get(number, 0) for number in range(max(places, default=-1) + 1)]
        layout = struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), size, *offsets)
        if layout not in self.layouts:
            self._align(2, 0)
            self.layouts[layout] = len(self.content)
            self.content += layout
        return self.layouts[layout]

    def _value(self, value: Any) -> int:
        if isinstance(value, Mapping):
            return self.table(value)
        if isinstance(value, str):
            content = value.encode()
            return self._vector(len(content), content + b"\0", 1)
        if isinstance(value, Bytes):
            return self._vector(len(value.content), value.content, value.alignment)
        if isinstance(value, np.ndarray):
            content = value.astype(value.dtype.newbyteorder("<")).tobytes()
            return self._vector(len(value), content, value.dtype.itemsize)
        start = self._vector(len(value), bytes(4 * len(value)), 4)
        for index, element in enumerate(value):
            self.point(start + 4 + 4 * index, self._value(element))
        return start

    def _vector(self, length: int, content: bytes, alignment: int) -> int:
        """Its length in 4 bytes, then its content at a multiple of ``alignment``."""
        self._align(max(alignment, 4), 4)
        start = len(self.content)
        self.content += struct.pack("<I", length) + content
        return start

    def _align(self, alignment: int, ahead: int) -> None:
        """Fill up until what begins ``ahead`` bytes from here stands at a multiple."""
        self.content += bytes(-(len(self.content) + ahead) % alignment)
