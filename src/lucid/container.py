"""The .safetensors files of lucid: tensors, and one JSON object that says what they are.

The file's ``__metadata__`` has three texts: ``format`` is the name of the format, ``version`` a
whole number, and ``lucid`` one JSON object. There is no pickle, so no code runs from a file; and no
byte is trusted: sizes, names, types and ranges are checked before tensors are read.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from lucid.errors import CheckpointError, ConfigError, NetworkError, suggest
from lucid.files import open_file, write_bytes

MAX_FILE_BYTES = 4 * 1024**3
MAX_HEADER_BYTES = 4 * 1024**2  # JSON takes up to thirty times its size in memory

Tensors = Mapping[str, NDArray[Any]]

# Safetensors' codes of the dtypes that lucid stores.
_CODES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
    np.dtype(np.int8): "I8",
}


@dataclass(frozen=True)
class Format:
    """A format's name and newest version in the metadata, and who writes such files."""

    name: str
    version: int
    written_by: str


class TensorType(NamedTuple):
    """The dtype and the shape that a tensor must have."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


TensorTypes = Mapping[str, TensorType]


class Container:
    """An open file whose metadata has been read.

    ``format`` is that of the ``kinds`` which it has, ``values`` the JSON object in it.
    """

    def __init__(self, file: BinaryIO, *kinds: Format) -> None:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(_foreign(prefix, length, size, kinds))
        text = file.read(length)
        self._file = file
        self._start = prefix + text
        self._data_bytes = size - len(self._start)
        self._layout = _from_json(text, "header")
        metadata = self._layout.pop("__metadata__", None)
        self.format = _check_format(metadata, kinds)
        self.values = _from_json(metadata["lucid"], "lucid")

    def check(self, expected: TensorTypes) -> None:
        """Check names, dtypes, shapes and offsets of all tensors, before any is read."""
        check_tensor_names(self._layout, expected)
        spans = []
        for name, (dtype, shape) in expected.items():
            wanted = {"dtype": _CODES[dtype], "shape": list(shape)}
            entry = dict(self._layout[name]) if isinstance(self._layout[name], dict) else {}
            span = entry.pop("data_offsets", None)
            if entry != wanted:
                raise CheckpointError(f"tensor {name}: expected {wanted}, got {shorten(entry)}")
            if not isinstance(span, list) or [type(offset) for offset in span] != [int, int]:
                raise CheckpointError(f"tensor {name}: data_offsets are no two whole numbers")
            if span[1] - span[0] != math.prod(shape) * dtype.itemsize:
                raise CheckpointError(f"tensor {name}: data_offsets do not fit its shape")
            spans.append((span[0], span[1], name))
        position = 0
        for begin, end, name in sorted(spans):
            if begin != position:
                raise CheckpointError(f"tensor {name}: starts at byte {begin}, expected {position}")
            position = end
        if position != self._data_bytes:
            raise CheckpointError(
                f"tensors: expected {position} bytes, the file has {self._data_bytes}; it is "
                "truncated or something was appended; copy it again"
            )

    def read_tensors(self) -> dict[str, NDArray[Any]]:
        """All tensors, which ``check`` must have passed; their values are still unknown."""
        try:
            return safetensors.numpy.load(self._start + self._file.read())
        except SafetensorError as error:
            raise CheckpointError(f"tensors can't be read ({error}); copy it again") from error


@contextmanager
def open_container(path: str | Path, *kinds: Format) -> Iterator[Container]:
    """Open a file of one of the formats and put its path before every error of the block.

    Raises:
        CheckpointError: the file is missing, truncated, oversized, of another format or version;
            or the block raised one, or a NetworkError.
    """
    with open_file(path, max_bytes=MAX_FILE_BYTES, error=CheckpointError) as file:
        try:
            yield Container(file, *kinds)
        except (CheckpointError, NetworkError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        except OSError as error:
            raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error


def container_bytes(kind: Format, values: Mapping[str, Any], tensors: Tensors) -> bytes:
    """The bytes of a file; the same content gives the same bytes.

    Raises:
        CheckpointError: the header is over the limit that readers accept.
    """
    metadata = {"format": kind.name, "lucid": _to_json(values), "version": str(kind.version)}
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    content = safetensors.numpy.save(arrays)
    # safetensors writes metadata in a random order, so it is put in afterwards, in a fixed one.
    start = 8 + int.from_bytes(content[:8], "little")
    layout = {"__metadata__": metadata} | json.loads(content[8:start])
    header = _to_json(layout).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    if len(header) > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"the header takes {len(header)} bytes, the limit is {MAX_HEADER_BYTES}; "
            "shorten class names or provenance"
        )
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(content)[start:]))


def write_container(
    path: str | Path, kind: Format, values: Mapping[str, Any], tensors: Tensors
) -> None:
    """Write a file whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: the folder is missing, read-only or full.
        CheckpointError: the header is over the limit that readers accept.
    """
    try:
        content = container_bytes(kind, values, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    write_bytes(path, content)


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Turn a ConfigError of the block into a CheckpointError that names a part of the file."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{part}: {error}") from error


def check_tensor_names(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless both have the same names; the nearest one is suggested."""
    for name in expected:
        if name not in found:
            raise CheckpointError(f"tensor {name} is missing")
    for name in found:
        if name not in expected:
            near = suggest(name, expected)
            raise CheckpointError(f"tensor {shorten(name)} is none of a MobileNet's{near}")


def _foreign(prefix: bytes, length: int, size: int, kinds: Sequence[Format]) -> str:
    """Say what a file is that does not start as safetensors does."""
    if prefix.startswith(b"PK\x03\x04") or prefix[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        writers = " or ".join(kind.written_by for kind in kinds)
        return (
            "a PyTorch or pickle file, which could run code when it is read; "
            f"expected one written by {writers}"
        )
    return (
        f"not a whole safetensors file: it announces a header of {length} bytes (the limit is "
        f"{MAX_HEADER_BYTES}) and has {size} bytes; it is truncated or of another format, which "
        "'lucid import' may read"
    )


def _check_format(metadata: Any, kinds: Sequence[Format]) -> Format:
    """Check that the metadata is lucid's, of a format and version that this code reads."""
    name = metadata.get("format") if isinstance(metadata, dict) else None
    kind = next((kind for kind in kinds if kind.name == name), None)
    if kind is None:
        expected = " or ".join(f"{kind.name!r}, which {kind.written_by} writes" for kind in kinds)
        raise CheckpointError(
            f"a safetensors file of another program or kind: the format in its metadata is "
            f"{shorten(name)}, expected {expected}"
        )
    version = metadata.get("version")
    if re.fullmatch("[1-9][0-9]{0,9}", str(version)) and int(str(version)) > kind.version:
        raise CheckpointError(
            f"version: {version} is newer than {kind.version}, the newest that this lucid reads; "
            "upgrade with: pip install --upgrade lucid-mobilenet"
        )
    if version != str(kind.version):
        raise CheckpointError(f"version: expected '{kind.version}', got {shorten(version)}")
    if set(metadata) != {"format", "version", "lucid"} or not isinstance(metadata["lucid"], str):
        raise CheckpointError("metadata: expected the texts 'format', 'version' and 'lucid'")
    return kind


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(
        values, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )


def _from_json(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse one JSON object; a constant such as NaN or a name that stands twice is refused."""
    try:
        # Left to itself, json.loads would take bytes of other encodings too.
        text = text.decode() if isinstance(text, bytes) else text
        values = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what}: no valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{what}: expected a JSON object, got {shorten(values)}")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return values
