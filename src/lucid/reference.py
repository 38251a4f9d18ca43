"""Execution of networks in NumPy, clear rather than fast: it defines what correct means.

Every other executor is compared with it: float networks within a tolerance, int8 networks bit for
bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.errors import ConfigError, ShapeError
from lucid.images import Pixels, normalise
from lucid.network import (
    FloatLayer,
    FloatNetwork,
    FloatPool,
    Int8Layer,
    Int8Network,
    Int8Pool,
    Layer,
)

__all__ = ["class_activation_maps", "execute", "pad", "requantise", "run", "trace"]

Array = NDArray[Any]
FloatType = type[np.float32] | type[np.float64]


def run(
    network: FloatNetwork | Int8Network, pixels: Pixels, *, dtype: FloatType = np.float32
) -> Array:
    """Logits of images, (N, classes): float32, or ``dtype`` from a float network.

    Args:
        network: float networks are normalised by ``lucid.images.normalise`` first; int8 networks
            read bytes.
        pixels: uint8 (N, H, W, C), H and W of at least 1; any size runs.
        dtype: in which a float network computes, np.float32 or np.float64.
    Raises:
        ShapeError: pixels of another shape or dtype, or too many for an int8 network's pool.
        ConfigError: another dtype, or float64 for an int8 network, whose arithmetic is its own.
    """
    for _, output in trace(network, pixels, dtype=dtype):
        logits = output
    return logits


def trace(
    network: FloatNetwork | Int8Network, pixels: Pixels, *, dtype: FloatType = np.float32
) -> Iterator[tuple[Layer, Array]]:
    """Every layer in turn with its output; arguments and errors are as in ``run``.

    Outputs are (N, C, H, W) of a convolution, (N, C) of the pool, (N, classes) of the classifier.
    Those of an int8 network are uint8, but for float32 logits.
    """
    if dtype not in (np.float32, np.float64):
        raise ConfigError(f"dtype must be np.float32 or np.float64, got {dtype!r}")
    _check_pixels(pixels, network.layers[0].in_channels)
    if isinstance(network, FloatNetwork):
        return _trace_float(network, pixels, dtype)
    if dtype != np.float32:
        raise ConfigError("an int8 network has its own arithmetic: leave dtype out")
    return _trace_int8(network, pixels)


def class_activation_maps(
    network: FloatNetwork | Int8Network, pixels: Pixels, classes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What each cell before the pool adds to a class's logit (Zhou et al. 2016, arXiv:1512.04150).

    The mean of a map and the classifier's bias are the logit, but for the rounding of an int8
    network's pool.

    Args:
        pixels: as in ``run``.
        classes: (N,), the class of each image.
    Returns:
        float32 (N, h, w).
    """
    (last, features), _, (dense, _) = deque(trace(network, pixels), maxlen=3)
    assert isinstance(dense, FloatLayer | Int8Layer)
    weights = dense.weight[classes].astype(np.float32)  # (N, c)
    features = features.astype(np.float32)  # (N, c, h, w)
    if isinstance(dense, Int8Layer) and isinstance(last, Int8Layer):
        weights *= dense.weight_scale[classes, np.newaxis]
        features *= np.float32(last.output_scale)
    maps: NDArray[np.float32] = np.einsum("nchw,nc->nhw", features, weights)
    return maps


def execute(
    layer: FloatLayer | FloatPool | Int8Layer | Int8Pool, x: Array, outside: Array
) -> Array:
    """One layer's output for its input, as ``trace`` gives it.

    Args:
        x: normalised images or the output of the layer before, of a float layer in the dtype in
            which it computes; uint8 of an int8 layer. (N, C, H, W), or (N, C) of the classifier.
        outside: (in_channels,), what it sees outside the image: zeros for all but the first layer
            of an int8 network, which sees the network's ``outside``.
    """
    if isinstance(layer, Int8Pool):
        multiplier = layer.multiplier(x.shape[2] * x.shape[3])
        return requantise(x.sum(axis=(2, 3), dtype=np.int32), multiplier, 255)  # (N, C)
    if isinstance(layer, Int8Layer):
        return _execute_int8(layer, x, outside)
    if isinstance(layer, FloatLayer):
        weight, bias = layer.weight.astype(x.dtype), layer.bias.astype(x.dtype)
        sums = _products(layer, x, weight, outside.astype(x.dtype))
        clamped: Array = np.clip(sums + _per_channel(bias, sums), *layer.activation_range)
        return clamped
    means: Array = x.mean(axis=(2, 3), dtype=x.dtype)
    return means  # (N, C)


def pad(layer: Layer, x: Array, outside: Array) -> Array:
    """A convolution's input with what its windows see around it; arguments are as in ``execute``.

    The window of the output at (row, column) begins at (row, column) times the stride.
    """
    top, bottom = layer.border(x.shape[2])
    left, right = layer.border(x.shape[3])
    padded = np.empty((*x.shape[:2], top + x.shape[2] + bottom, left + x.shape[3] + right), x.dtype)
    padded[:] = _per_channel(outside, padded)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return padded


def requantise(
    accumulator: NDArray[np.int32], multiplier: NDArray[np.float32] | np.float32, maximum: int
) -> NDArray[np.uint8]:
    """Round accumulators to bytes: float32(accumulator) * multiplier, half to even, 0 to maximum.

    Conversion and product are rounded to float32, each by itself, as IEEE 754 says.

    Args:
        accumulator: int32, any shape that the multipliers fit.
        multiplier: float32, above 0.
        maximum: 0 to 255.
    """
    scaled = accumulator.astype(np.float32) * multiplier
    rounded: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, maximum).astype(np.uint8)
    return rounded


def _trace_float(
    network: FloatNetwork, pixels: Pixels, dtype: FloatType
) -> Iterator[tuple[Layer, Array]]:
    x: Array = normalise(pixels, network.preprocessing).astype(dtype)  # (N, C, H, W)
    for layer in network.layers:
        x = execute(layer, x, np.zeros(layer.in_channels, dtype))
        yield layer, x


def _trace_int8(network: Int8Network, pixels: Pixels) -> Iterator[tuple[Layer, Array]]:
    x: Array = pixels.transpose(0, 3, 1, 2)  # (N, C, H, W)
    outside = np.array(network.outside, np.uint8)  # (C,)
    for layer in network.layers:
        x = execute(layer, x, outside)
        outside = np.zeros(layer.out_channels, np.uint8)
        yield layer, x


def _execute_int8(layer: Int8Layer, x: Array, outside: Array) -> Array:
    # In float64, which multiplies matrices much faster than integers and is as exact: all products
    # and all sums of them are whole numbers below 2**31, and float64 holds those below 2**53.
    sums = _products(
        layer, x.astype(np.float64), layer.weight.astype(np.float64), outside.astype(np.float64)
    )
    accumulator = sums.astype(np.int32) + _per_channel(layer.bias, sums)
    multiplier = _per_channel(layer.multiplier, sums)
    if layer.kind == "dense":
        return accumulator.astype(np.float32) * multiplier
    return requantise(accumulator, multiplier, layer.maximum)


def _products(layer: Layer, x: Array, weight: Array, outside: Array) -> Array:
    """The sums of weights times inputs, without the bias.

    (N, I, H, W) -> (N, O, H', W'), or (N, I) -> (N, O) for the classifier, in the dtype of ``x``.
    ``outside`` (I,) is what each channel holds outside the image.
    """
    if layer.kind == "dense":
        product: Array = np.matmul(x, weight.T)
        return product
    height, width = layer.output_side(x.shape[2]), layer.output_side(x.shape[3])
    padded = pad(layer, x, outside)
    sums = np.zeros((len(x), layer.out_channels, height * width), x.dtype)
    for row in range(layer.kernel):
        for column in range(layer.kernel):
            # What this weight of the window sees, for all places of the window at once.
            seen = padded[:, :, row :: layer.stride, column :: layer.stride][:, :, :height, :width]
            seen = seen.reshape(*x.shape[:2], height * width)  # (N, I, H' * W')
            tap = weight[:, :, row, column]  # (O, I), or (O, 1) for a depthwise layer
            sums += tap * seen if layer.kind == "depthwise" else np.matmul(tap, seen)
    return sums.reshape(len(x), layer.out_channels, height, width)


def _per_channel(values: Array, batch: Array) -> Array:
    """Values (C,) shaped to go with a batch (N, C) or (N, C, H, W)."""
    return values.reshape(-1, *[1] * (batch.ndim - 2))


def _check_pixels(pixels: Pixels, channels: int) -> None:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 4 or shape[3] != channels or 0 in shape[1:3]:
        raise ShapeError(
            f"the network expects uint8 images (N, H, W, {channels}) of at least 1x1 pixels, "
            f"got {pixels.dtype} {shape}"
        )
