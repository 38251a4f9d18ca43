"""The content of a LiteRT (TFLite) file as plain records, read without TensorFlow or LiteRT.

Source of all numbers below: TensorFlow Lite, ``schema.fbs``, version 3, and for the metadata TFLite
Support, ``metadata_schema.fbs``, version 1.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.errors import CheckpointError
from lucid.importers.flatbuffer import Table, cut
from lucid.importers.parts import Array

IDENTIFIER = b"TFL3"

# Of the operators, those that a MobileNet has and those that others often have.
OPERATORS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    22: "RESHAPE",
    25: "SOFTMAX",
    34: "PAD",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    43: "SQUEEZE",
    114: "QUANTIZE",
}

UINT8, INT8 = 3, 9
_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    2: np.dtype("<i4"),
    UINT8: np.dtype("u1"),
    4: np.dtype("<i8"),
    INT8: np.dtype("i1"),
}
_MAX_RANK = 6
_MAX_ATTACHED_BYTES = 4 * 1024**2
_DESCRIPTION = "lucid.json"
_NORMALIZATION = 1  # of ProcessUnitOptions


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape (-1 where a size is open), and what its stored numbers mean."""

    name: str
    shape: tuple[int, ...]
    type: int
    buffer: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int

    @property
    def is_quantised(self) -> bool:
        """Whether it holds bytes under one scale."""
        return self.type in (UINT8, INT8) and len(self.scale) == 1 and len(self.zero_point) < 2

    @property
    def zero_byte(self) -> int:
        """The byte, 0 to 255, that stands for 0 in a quantised tensor."""
        zero_point = self.zero_point[0] if self.zero_point else 0
        return zero_point + 128 if self.type == INT8 else zero_point

    def to_real(self, stored: NDArray[Any], scale: tuple[float, ...] = ()) -> Array:
        """The numbers that stored ones stand for; ``scale`` is used if the tensor has none."""
        scales = np.array(self.scale or scale, np.float64)
        if not scales.size:
            return stored.astype(np.float32)
        zero_points = np.array(self.zero_point or 0, np.float64)
        for values in (scales, zero_points):
            if values.size > 1 and values.size != stored.shape[self.axis]:
                raise CheckpointError(f"tensor {self.name}: quantisation does not fit its shape")
        shape = [1] * stored.ndim
        if stored.ndim:
            shape[self.axis] = -1
        real = (stored - zero_points.reshape(shape)) * scales.reshape(shape)
        return real.astype(np.float32)


@dataclass(frozen=True)
class Operator:
    """A step: its kind, what it reads (-1 for nothing), what it gives, and its options."""

    kind: str
    label: str
    inputs: tuple[int, ...]
    output: int
    options: Table | None

    def option(self, field: int, kind: str, default: int = 0) -> int:
        """One of the options, by its number in the schema."""
        return default if self.options is None else int(self.options.number(field, kind, default))


class LiteRTFile:
    """A file with one network of one input and one output.

    Attributes:
        tensors: by index.
        operators: in the order in which they run.
        input, output: indices of tensors.
    Raises:
        CheckpointError: from the constructor and every method, for a file that is no such one.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._model = Table.root(content, IDENTIFIER)
        subgraphs = self._model.tables(2)
        if len(subgraphs) != 1:
            raise CheckpointError(f"{len(subgraphs)} networks in the file, expected one")
        graph = subgraphs[0]
        self.tensors = tuple(_read_tensor(table) for table in graph.tables(0))
        self.operators = self._read_operators(graph)
        inputs, outputs = graph.numbers(1, "i"), graph.numbers(2, "i")
        if len(inputs) != 1 or len(outputs) != 1:
            raise CheckpointError(
                f"{len(inputs)} inputs and {len(outputs)} outputs, expected one each"
            )
        self.input, self.output = int(inputs[0]), int(outputs[0])
        self.tensor(self.input)

    def tensor(self, index: int) -> Tensor:
        """A tensor by its index."""
        if not 0 <= index < len(self.tensors):
            raise CheckpointError(f"tensor {index} is none of the {len(self.tensors)} in the file")
        return self.tensors[index]

    def is_constant(self, index: int) -> bool:
        """Whether a tensor's numbers stand in the file, or are dequantised ones that do."""
        if index < 0:
            return False
        origin = self._dequantised.get(index, index)
        buffer = self._buffer(self.tensor(origin))
        return buffer is not None

    def stored(self, index: int) -> NDArray[Any]:
        """The numbers of a constant as they stand in the file, in the tensor's shape."""
        tensor = self.tensor(index)
        dtype = _DTYPES.get(tensor.type)
        if dtype is None:
            raise CheckpointError(f"tensor {tensor.name}: type {tensor.type} can't be read")
        content = self._buffer(tensor) or b""
        is_filled = len(tensor.shape) <= _MAX_RANK and all(size > 0 for size in tensor.shape)
        if not is_filled or len(content) != math.prod(tensor.shape) * dtype.itemsize:
            raise CheckpointError(
                f"tensor {tensor.name}: {len(content)} bytes for {dtype} {tensor.shape[:_MAX_RANK]}"
            )
        return np.frombuffer(content, dtype).reshape(tensor.shape)

    def constant(self, index: int, scale: tuple[float, ...] = ()) -> Array:
        """The numbers of a constant, float32; ``scale`` is for one that has none of its own."""
        origin = self._dequantised.get(index, index)
        tensor = self.tensor(origin)
        with np.errstate(over="ignore", invalid="ignore"):  # checked when the tensors are
            return tensor.to_real(self.stored(origin), scale)

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of pixels, 0 to 255, that the metadata gives the input."""
        for entry in self._model.tables(6):
            if entry.text(0) != "TFLITE_METADATA":
                continue
            metadata = Table.root(self._buffer_bytes(entry.number(1, "I")) or b"", b"M001")
            for graph in metadata.tables(3)[:1]:
                for image in graph.tables(2)[:1]:
                    for unit in image.tables(4):
                        options = unit.table(1)
                        if unit.number(0, "B") == _NORMALIZATION and options is not None:
                            return options.numbers(0, "f"), options.numbers(1, "f")
        return None

    def labels(self) -> tuple[str, ...]:
        """The lines of the one text file that is packed behind the network, if there is one."""
        names = [name for name in self._attached if name.endswith(".txt")]
        if len(names) != 1 or self._attached[names[0]] > _MAX_ATTACHED_BYTES:
            return ()
        return tuple(self._read_attached(names[0]).decode(errors="replace").splitlines())

    @cached_property
    def description(self) -> dict[str, Any]:
        """What lucid said of a network that it exported; empty if another program did."""
        if self._attached.get(_DESCRIPTION, _MAX_ATTACHED_BYTES + 1) > _MAX_ATTACHED_BYTES:
            return {}
        try:
            found = json.loads(self._read_attached(_DESCRIPTION))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{_DESCRIPTION} packed in the file is no JSON ({error})"
            ) from error
        return found if isinstance(found, dict) else {}

    @cached_property
    def _attached(self) -> dict[str, int]:
        """The size of each file that is packed behind the network."""
        if not zipfile.is_zipfile(io.BytesIO(self._content)):
            return {}
        with _unpacking(self._content) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}

    def _read_attached(self, name: str) -> bytes:
        with _unpacking(self._content) as archive, archive.open(name) as file:
            return file.read(_MAX_ATTACHED_BYTES)

    @cached_property
    def _dequantised(self) -> dict[int, int]:
        """For tensors that are only dequantised constants: those constants."""
        found = {}
        for operator in self.operators:
            if operator.kind == "DEQUANTIZE" and operator.inputs:
                tensor = self.tensor(operator.inputs[0])
                if self._buffer(tensor) is not None:
                    found[operator.output] = operator.inputs[0]
        return found

    @cached_property
    def _buffers(self) -> tuple[Table, ...]:
        return self._model.tables(4)

    def _buffer(self, tensor: Tensor) -> bytes | None:
        return self._buffer_bytes(tensor.buffer)

    def _buffer_bytes(self, index: int) -> bytes | None:
        """What a buffer holds, inside the flatbuffer or behind it; None if that is nothing."""
        if not 0 <= index < len(self._buffers):
            raise CheckpointError(f"buffer {index} is none of the {len(self._buffers)} in the file")
        buffer = self._buffers[index]
        offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset > 1:  # 0 and 1 mean that it is inside
            return cut(self._content, offset, size)
        return buffer.bytes(0) or None

    def _read_operators(self, graph: Table) -> tuple[Operator, ...]:
        codes = [
            # Old files have the first field only, new ones both.
            max(table.number(0, "b"), table.number(3, "i"))
            for table in self._model.tables(1)
        ]
        operators = []
        for number, table in enumerate(graph.tables(3)):
            index, outputs = table.number(0, "I"), table.numbers(2, "i")
            if index >= len(codes) or len(outputs) != 1:
                raise CheckpointError(f"operator {number} has no kind or not one output")
            kind = OPERATORS.get(codes[index], f"operator {codes[index]}")
            name = self.tensor(outputs[0]).name
            operators.append(
                Operator(
                    kind=kind,
                    label=f"{number} ({kind}{f' {name[:80]!r}' if name else ''})",
                    inputs=table.numbers(1, "i"),
                    output=int(outputs[0]),
                    options=table.table(4),
                )
            )
        return tuple(operators)


@contextmanager
def _unpacking(content: bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"what is packed in the file can't be read ({error})") from error


def _read_tensor(table: Table) -> Tensor:
    quantisation = table.table(4)
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis = 0
    if quantisation is not None:
        scale, zero_point = quantisation.numbers(2, "f"), quantisation.numbers(3, "q")
        axis = quantisation.number(6, "i")
    shape = table.numbers(0, "i")
    return Tensor(
        name=table.text(3),
        shape=table.numbers(7, "i") or shape,
        type=table.number(1, "b"),
        buffer=table.number(2, "I"),
        scale=scale,
        zero_point=zero_point,
        axis=axis if axis in range(len(shape)) else 0,
    )
