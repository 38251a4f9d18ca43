"""Core ML's files, interpreted: Core ML itself predicts on Apple's systems only.

The program is read from the package by coremltools and executed in NumPy, operation by operation as
coremltools documents them. Float16 values are rounded to float16 after each operation; how exactly
Apple's units sum is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lucid.errors import require
from lucid.exporters.coreml import coremltools
from lucid.exporters.runners import Runner

__all__ = ["prepare"]

Array = np.ndarray[Any, Any]


def prepare(path: Path, threads: int) -> Runner:  # noqa: ARG001
    """One image at a time; NumPy chooses its threads itself."""
    ct = coremltools()
    load = require("coremltools.converters.mil.frontend.milproto.load", extra="coreml").load
    data = path / "Data" / "com.apple.CoreML"
    specification = ct.models.utils.load_spec(str(path))
    program = load(specification, specification.specificationVersion, str(data / "weights"))
    (image,) = specification.description.input
    main = program.functions["main"]
    version = f"coremltools {ct.__version__}"
    return Runner(
        lambda pixels: {image.name: pixels.transpose(0, 3, 1, 2).astype(np.float32)},
        lambda feed: _execute(main, feed)["logits"],
        lambda logits: logits.astype(np.float32),
        {"version": version},
    )


def _execute(main: Any, feed: Mapping[str, Array]) -> dict[str, Array]:
    """All values of a program by name."""
    values: dict[str, Array] = dict(feed)

    def value(variable: Any) -> Any:
        if isinstance(variable, tuple | list):
            return [value(part) for part in variable]
        return values.get(variable.name, variable.val)

    for operation in main.operations:
        if operation.op_type in ("const", "classify"):  # the latter sorts what is known
            continue
        inputs = {name: value(variable) for name, variable in operation.inputs.items()}
        (output,) = operation.outputs
        values[output.name] = _OPERATIONS[operation.op_type](**inputs)
    return values


def _conv(
    x: Array,
    weight: Array,
    bias: Array,
    strides: Array,
    pad: Array,
    groups: int,
    pad_type: str,
    dilations: Array,
) -> Array:
    """(1, C, H, W); pads are top, bottom, left, right."""
    if (
        pad_type not in ("custom", "valid")
        or set(dilations) != {1}
        or groups not in (1, x.shape[1])
    ):
        raise ValueError(
            "expected a convolution as lucid writes them, got one with "
            f"padding {pad_type}, dilations {dilations}, {groups} groups"
        )
    top, bottom, left, right = pad
    padded = np.pad(x[0], ((0, 0), (top, bottom), (left, right)))  # (C, H, W)
    windows = sliding_window_view(padded, weight.shape[2:], axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]].astype(np.float32)  # (C, H', W', k, k)
    kernel = weight.astype(np.float32)
    if groups == 1:
        sums = np.tensordot(kernel, windows, ((1, 2, 3), (0, 3, 4)))  # (O, H', W')
    else:
        sums = np.einsum("chwyx,cyx->chw", windows, kernel[:, 0])
    found: Array = (sums + bias.astype(np.float32)[:, None, None])[None].astype(x.dtype)
    return found


def _linear(x: Array, weight: Array, bias: Array) -> Array:
    found: Array = (x.astype(np.float32) @ weight.T.astype(np.float32) + bias).astype(x.dtype)
    return found


def _mean(x: Array, axes: Array, keep_dims: bool) -> Array:
    found: Array = x.mean(axis=tuple(axes), keepdims=bool(keep_dims), dtype=np.float32).astype(
        x.dtype
    )
    return found


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    found: Array = powers / powers.sum(axis=axis, keepdims=True)
    return found


def _quantize(input: Array, scale: Array, output_dtype: str, zero_point: Array | int = 0) -> Array:
    limits = np.iinfo(output_dtype)
    steps = np.rint(input / scale) + zero_point
    found: Array = np.clip(steps, limits.min, limits.max).astype(output_dtype)
    return found


def _dequantize(input: Array, scale: Array, zero_point: Array | int = 0) -> Array:
    return (input.astype(np.float32) - np.float32(zero_point)) * scale


def _affine(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    shape = [-1 if place == axis else 1 for place in range(quantized_data.ndim)]
    zero, step = (np.broadcast_to(one, quantized_data.shape[axis]) for one in (zero_point, scale))
    found: Array = (quantized_data - zero.reshape(shape).astype(np.float32)) * step.reshape(shape)
    return found


_OPERATIONS: Mapping[str, Callable[..., Array]] = {
    "add": lambda x, y: (x + y).astype(x.dtype),
    "cast": lambda x, dtype: x.astype({"fp16": "float16", "fp32": "float32"}[dtype]),
    "clip": lambda x, alpha, beta: np.clip(x, alpha, beta),
    "constexpr_affine_dequantize": _affine,
    "conv": _conv,
    "dequantize": _dequantize,
    "linear": _linear,
    "mul": lambda x, y: (x * y).astype(x.dtype),
    "quantize": _quantize,
    "reduce_mean": _mean,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "softmax": _softmax,
}
