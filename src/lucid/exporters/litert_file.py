"""The content of a LiteRT (TensorFlow Lite) file as it is put together, a step at a time.

Source of all numbers below: TensorFlow Lite, ``schema.fbs``, version 3; versions of operators:
``tools/versioning/op_version.cc``. ``lucid.importers.litert_file`` reads such files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.exporters.flatbuffer import Bytes, Number, Table, Value, encode

__all__ = ["NONE", "RELU", "RELU6", "SAME", "VALID", "Model", "Quantisation", "Tensor"]

Array = NDArray[Any]

SAME, VALID = 0, 1  # paddings
NONE, RELU, RELU6 = 0, 1, 3  # activations

_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}
_ALIGNMENT = 16  # of constants, which are read in place


@dataclass(frozen=True)
class _Kind:
    """A kind of operator.

    ``options`` is its number in the union of all options, ``version`` the first that has all that
    is used here, of int8 networks the second; older runtimes refuse it.
    """

    code: int
    options: int
    version: int = 1
    int8_version: int = 1


_KINDS = {
    "CONCATENATION": _Kind(2, 10, 1, 2),
    "CONV_2D": _Kind(3, 1, 1, 3),
    "DEPTHWISE_CONV_2D": _Kind(4, 2, 1, 3),
    "DEQUANTIZE": _Kind(6, 38, 3, 3),
    "FULLY_CONNECTED": _Kind(9, 8, 1, 12),  # from 12 on with a scale for each channel
    "MUL": _Kind(18, 21),
    "PAD": _Kind(34, 22, 1, 2),
    "MEAN": _Kind(40, 27, 1, 2),
    "SUB": _Kind(41, 28),
    "SPLIT": _Kind(49, 35, 1, 2),
    "PADV2": _Kind(60, 43, 1, 2),
    "QUANTIZE": _Kind(114, 89, 1, 2),
}


@dataclass(frozen=True)
class Quantisation:
    """Scales and zero point; ``axis`` is that of the channels where there are several scales."""

    scale: Array | np.float32
    zero: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model; the first dimension of those that are no constants is the batch."""

    index: int
    shape: tuple[int, ...]
    dtype: str
    quantisation: Quantisation | None


@dataclass
class Model:
    """Tensors and operators as they are added."""

    is_int8: bool
    tensors: list[Table] = field(default_factory=list)
    buffers: list[Table] = field(default_factory=lambda: [{}])  # the first is that of no data
    operators: list[Table] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantisation: Quantisation | None = None,
        fields: Table = MappingProxyType({}),
    ) -> Tensor:
        """Any tensor; ``fields`` are those of the schema that are not among the arguments."""
        table = {0: np.array(shape, np.int32), 1: Number("b", _TYPES[dtype]), 3: name, **fields}
        if quantisation is not None:
            scale = np.atleast_1d(quantisation.scale).astype(np.float32)
            table[4] = {
                2: scale,
                3: np.full(scale.shape, quantisation.zero, np.int64),
                6: Number("i", quantisation.axis),
            }
        self.tensors.append(table)
        return Tensor(len(self.tensors) - 1, shape, dtype, quantisation)

    def values(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantisation: Quantisation | None = None,
    ) -> Tensor:
        """A tensor that is computed; its batch can be changed by whoever runs the file."""
        signature = np.array([-1, *shape[1:]], np.int32)
        return self.tensor(name, shape, dtype, quantisation, {7: signature})

    def constant(self, name: str, data: Array, quantisation: Quantisation | None = None) -> Tensor:
        """A tensor that stands in the file."""
        buffer = {2: Number("I", len(self.buffers))}
        content = np.ascontiguousarray(data).astype(data.dtype.newbyteorder("<")).tobytes()
        self.buffers.append({0: Bytes(content, _ALIGNMENT)})
        return self.tensor(name, data.shape, str(data.dtype), quantisation, buffer)

    def add(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        *outputs: Tensor,
        options: Mapping[int, Value] | None = None,
    ) -> Tensor:
        """Append an operator; gives the first of its outputs.

        Args:
            options: by their numbers; those left out have their default.
        """
        if kind not in self.kinds:
            self.kinds.append(kind)
        self.operators.append(
            {
                0: Number("I", self.kinds.index(kind)),
                1: _indices(inputs),
                2: _indices(outputs),
                3: Number("B", _KINDS[kind].options),
                4: options or {},
            }
        )
        return outputs[0]

    def content(self, taken: Tensor, given: Tensor, metadata: Mapping[str, bytes]) -> bytes:
        """The file of a model from one tensor to another; metadata stand in it by name."""
        entries: list[Table] = []
        buffers = list(self.buffers)
        for name, value in metadata.items():
            entries.append({0: name, 1: Number("I", len(buffers))})
            buffers.append({0: Bytes(value, _ALIGNMENT)})
        graph: Table = {
            0: self.tensors,
            1: _indices([taken]),
            2: _indices([given]),
            3: self.operators,
            4: "main",
        }
        signature: Table = {0: [self._named(taken)], 1: [self._named(given)], 2: "serving_default"}
        model: Table = {
            0: Number("I", 3),
            1: [self._code(_KINDS[kind]) for kind in self.kinds],
            2: [graph],
            3: "lucid",
            4: buffers,
            6: entries,
            7: [signature],
        }
        return encode(model, b"TFL3")

    def _code(self, kind: _Kind) -> Table:
        version = kind.int8_version if self.is_int8 else kind.version
        return {0: Number("b", kind.code), 2: Number("i", version), 3: Number("i", kind.code)}

    def _named(self, tensor: Tensor) -> Table:
        return {0: self.tensors[tensor.index][3], 1: Number("I", tensor.index)}


def _indices(tensors: Sequence[Tensor]) -> Array:
    return np.array([tensor.index for tensor in tensors], np.int32)
