"""Reading and writing checkpoints: one .safetensors file that is complete on its own.

The file's ``__metadata__`` has three texts: ``format`` is ``lucid-checkpoint``, ``version`` a whole
number, and ``lucid`` one JSON object with the fields of ``Header``. The tensors are those of
``lucid.architecture.tensor_shapes``. There is no pickle, so no code runs from a file; and no byte
is trusted: sizes, names, types and ranges are checked before tensors are read.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from lucid.architecture import MobileNetArguments, tensor_shapes
from lucid.checks import check_names, check_number
from lucid.errors import CheckpointError, ConfigError, suggest
from lucid.files import atomic_path, open_file
from lucid.images import Preprocessing

__all__ = [
    "Checkpoint",
    "Header",
    "check_class_names",
    "read_checkpoint",
    "read_header",
    "write_checkpoint",
]

FORMAT = "lucid-checkpoint"
VERSION = 1

MAX_FILE_BYTES = 4 * 1024**3
MAX_HEADER_BYTES = 4 * 1024**2  # JSON takes up to thirty times its size in memory
MAX_TEXT_LENGTH = 256  # of a class name, and of the name of a metric
MAX_METRICS = 1000
MAX_DEPTH = 8  # of objects and lists in the provenance

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
Tensors = Mapping[str, NDArray[Any]]

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "I64": np.dtype(np.int64)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a checkpoint says of its tensors.

    Args:
        arguments: of the model.
        class_names: one for each class, in the order of the logits; unique, not empty.
        preprocessing: what is done to a picture before the model sees it.
        metrics: finite numbers by name, such as ``{"top1": 0.82}``.
        provenance: where the model came from, as a JSON object: command, seed, data, and so on.
    Raises:
        CheckpointError: a field is out of range or contradicts another; it is named.
    """

    arguments: MobileNetArguments
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if len(self.class_names) != self.arguments.num_classes:
            raise CheckpointError(
                f"class_names: {len(self.class_names)} names for a model of "
                f"{self.arguments.num_classes} classes"
            )
        if self.preprocessing.channels != self.arguments.in_channels:
            raise CheckpointError(
                f"preprocessing: {self.preprocessing.color} pictures have "
                f"{self.preprocessing.channels} channels, the model takes "
                f"{self.arguments.in_channels}"
            )
        _check_metrics(self.metrics)
        if not isinstance(self.provenance, Mapping):
            raise CheckpointError(f"provenance: expected an object, got {shorten(self.provenance)}")
        _check_json("provenance", dict(self.provenance), MAX_DEPTH)


# Arrays have no single truth value, so neither has a comparison of checkpoints.
@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint(Header):
    """A header and the tensors it describes.

    Args:
        tensors: those of ``lucid.architecture.tensor_shapes``, finite, all float32 but
            ``num_batches_tracked``, which is int64.
    Raises:
        CheckpointError: as ``Header``; or a tensor is missing, unknown, of another shape or dtype,
            not finite, or a negative variance.
    """

    tensors: Tensors

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = tensor_shapes(self.arguments)
        _check_tensor_names(self.tensors, shapes)
        for name, shape in shapes.items():
            _check_tensor(name, self.tensors[name], shape)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: the folder is missing, read-only or full.
        CheckpointError: the header is over the limit that readers accept.
    """
    values = {
        "arguments": checkpoint.arguments.to_dict(),
        "class_names": list(checkpoint.class_names),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "metrics": {name: float(value) for name, value in checkpoint.metrics.items()},
        "provenance": dict(checkpoint.provenance),
    }
    metadata = {"format": FORMAT, "lucid": _to_json(values), "version": str(VERSION)}
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.tensors.items()}
    content = safetensors.numpy.save(arrays)
    # safetensors writes metadata in a random order, so it is put in afterwards, in a fixed one.
    start = 8 + int.from_bytes(content[:8], "little")
    layout = {"__metadata__": metadata} | json.loads(content[8:start])
    header = _to_json(layout).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    if len(header) > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: the header takes {len(header)} bytes, the limit is {MAX_HEADER_BYTES}; "
            "shorten class names or provenance"
        )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(memoryview(content)[start:])


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, header and tensors.

    Raises:
        CheckpointError: the file is missing, truncated, oversized, of another program or version,
            or a field or tensor is wrong; the message names file and field.
    """
    with _open(path) as file:
        start, header = _read_start(file)
        try:
            tensors = safetensors.numpy.load(start + file.read())
        except SafetensorError as error:
            raise CheckpointError(f"tensors can't be read ({error}); copy it again") from error
        parts = {part.name: getattr(header, part.name) for part in fields(header)}
        return Checkpoint(tensors=tensors, **parts)


def read_header(path: str | Path) -> Header:
    """Read what a checkpoint says of itself, without its tensors; raises as ``read_checkpoint``."""
    with _open(path) as file:
        return _read_start(file)[1]


def check_class_names(names: object) -> None:
    """Raise CheckpointError unless ``names`` can stand in a checkpoint.

    That is a tuple or list of unique texts of 1 to 256 characters, none a control character.
    """
    if not isinstance(names, tuple | list):
        raise CheckpointError(f"class_names: expected a list of names, got {shorten(names)}")
    seen = set()
    for index, name in enumerate(names):
        if not _is_text(name) or not name.strip() or len(name) > MAX_TEXT_LENGTH:
            raise CheckpointError(
                f"class_names: name {index} must be a text of 1 to {MAX_TEXT_LENGTH} printable "
                f"characters, got {shorten(name)}"
            )
        if name in seen:
            raise CheckpointError(f"class_names: {shorten(name)} stands there twice")
        seen.add(name)


@contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
    """Open a checkpoint and put its path before every CheckpointError of the block."""
    with open_file(path, max_bytes=MAX_FILE_BYTES, error=CheckpointError) as file:
        try:
            yield file
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except OSError as error:
            raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error


def _read_start(file: BinaryIO) -> tuple[bytes, Header]:
    """Read all that stands before the tensors, check it, and check that they can follow."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(_foreign(prefix, length, size))
    text = file.read(length)
    layout = _from_json(text, "header")
    metadata = layout.pop("__metadata__", None)
    _check_format(metadata)
    header = _parse_header(metadata["lucid"])
    _check_layout(layout, tensor_shapes(header.arguments), size - 8 - length)
    return prefix + text, header


def _foreign(prefix: bytes, length: int, size: int) -> str:
    """Say what a file is that does not start as safetensors does."""
    if prefix.startswith(b"PK\x03\x04") or prefix[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        return (
            "a PyTorch or pickle file, which could run code when it is read; lucid reads only "
            "checkpoints written by lucid.checkpoint.write_checkpoint"
        )
    return (
        f"not a whole safetensors file: it announces a header of {length} bytes (the limit is "
        f"{MAX_HEADER_BYTES}) and has {size} bytes; it is truncated or of another format"
    )


def _check_format(metadata: Any) -> None:
    """Check that the metadata is lucid's, of a version that this code reads."""
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"a safetensors file of another program: its metadata has no format {FORMAT!r}; "
            "lucid reads only checkpoints written by lucid.checkpoint.write_checkpoint"
        )
    version = metadata.get("version")
    if re.fullmatch("[1-9][0-9]{0,9}", str(version)) and int(str(version)) > VERSION:
        raise CheckpointError(
            f"version: {version} is newer than {VERSION}, the newest that this lucid reads; "
            "upgrade with: pip install --upgrade lucid-mobilenet"
        )
    if version != str(VERSION):
        raise CheckpointError(f"version: expected '{VERSION}', got {shorten(version)}")
    if set(metadata) != {"format", "version", "lucid"} or not isinstance(metadata["lucid"], str):
        raise CheckpointError("metadata: expected the texts 'format', 'version' and 'lucid'")


def _parse_header(text: str) -> Header:
    values = _from_json(text, "lucid")
    names = [part.name for part in fields(Header)]
    with _naming("lucid"):
        check_names("a checkpoint", values, known=names, required=names)
    for name in ("arguments", "preprocessing"):
        if not isinstance(values[name], dict):
            raise CheckpointError(f"{name}: expected an object, got {shorten(values[name])}")
    with _naming("arguments"):
        arguments = MobileNetArguments.from_dict(values.pop("arguments"))
    with _naming("preprocessing"):
        preprocessing = Preprocessing.from_dict(values.pop("preprocessing"))
    return Header(arguments=arguments, preprocessing=preprocessing, **values)


@contextmanager
def _naming(part: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{part}: {error}") from error


def _check_layout(
    layout: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], data_bytes: int
) -> None:
    """Check names, dtypes, shapes and offsets of all tensors against the architecture."""
    _check_tensor_names(layout, shapes)
    spans = []
    for name, shape in shapes.items():
        code = _dtype_code(name)
        expected = {"dtype": code, "shape": list(shape)}
        entry = dict(layout[name]) if isinstance(layout[name], dict) else {}
        span = entry.pop("data_offsets", None)
        if entry != expected:
            raise CheckpointError(f"tensor {name}: expected {expected}, got {shorten(entry)}")
        if not isinstance(span, list) or [type(offset) for offset in span] != [int, int]:
            raise CheckpointError(f"tensor {name}: data_offsets are no two whole numbers")
        if span[1] - span[0] != math.prod(shape) * _DTYPES[code].itemsize:
            raise CheckpointError(f"tensor {name}: data_offsets do not fit its shape")
        spans.append((span[0], span[1], name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise CheckpointError(f"tensor {name}: starts at byte {begin}, expected {position}")
        position = end
    if position != data_bytes:
        raise CheckpointError(
            f"tensors: expected {position} bytes, the file has {data_bytes}; it is truncated or "
            "something was appended; copy it again"
        )


def _check_tensor_names(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in expected:
        if name not in found:
            raise CheckpointError(f"tensor {name} is missing")
    for name in found:
        if name not in expected:
            near = suggest(name, expected)
            raise CheckpointError(f"tensor {shorten(name)} is none of a MobileNet's{near}")


def _check_tensor(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    dtype = _DTYPES[_dtype_code(name)]
    if array.dtype != dtype or array.shape != shape:
        raise CheckpointError(
            f"tensor {name}: expected {dtype} {shape}, got {array.dtype} {array.shape}"
        )
    if not np.isfinite(array).all():
        raise CheckpointError(f"tensor {name}: holds values that are not finite (NaN or infinity)")
    if name.endswith(".running_var") and array.min() < 0:
        raise CheckpointError(f"tensor {name}: holds a negative variance")


def _dtype_code(name: str) -> str:
    """Safetensors' code of a tensor's dtype."""
    return "I64" if name.endswith(".num_batches_tracked") else "F32"


def _check_metrics(metrics: Any) -> None:
    if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
        raise CheckpointError(
            f"metrics: expected an object of at most {MAX_METRICS} numbers, got {shorten(metrics)}"
        )
    for name, value in metrics.items():
        if not _is_text(name) or not 0 < len(name) <= MAX_TEXT_LENGTH:
            raise CheckpointError(f"metrics: {shorten(name)} is no name")
        with _naming("metrics"):
            check_number(name, value, "a finite number", lambda _: True)


def _check_json(where: str, value: Any, depth: int) -> None:
    """Check that a value is JSON that every reader takes, with at most ``depth`` nested levels."""
    if isinstance(value, list | dict):
        if depth == 0:
            raise CheckpointError(f"{where}: nested more than {MAX_DEPTH} levels deep")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(value, dict) and not _is_text(key):
                raise CheckpointError(f"{where}: {shorten(key)} is no name")
            _check_json(f"{where}[{shorten(key)}]", item, depth - 1)
        return
    is_whole = isinstance(value, int) and abs(value) < 2**63
    is_number = isinstance(value, float) and math.isfinite(value)
    if not (value is None or is_whole or is_number or _is_text(value, allowed="\n\t")):
        raise CheckpointError(f"{where}: expected a JSON value, got {shorten(value)}")


def _is_text(value: object, allowed: str = "") -> bool:
    """Whether a value is a text that a terminal can show: no control code, no lone surrogate."""
    return isinstance(value, str) and not any(
        unicodedata.category(character) in ("Cc", "Cs") and character not in allowed
        for character in value
    )


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
