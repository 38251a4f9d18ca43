"""The folded network in int8: every device that executes it gives the same bits.

A value is a whole number times a scale. For a convolution, with float32 scales,

- input and output are uint8 with one scale each, the weights int8 in [-127, 127] with a scale for
  each output channel, the bias int32 with scale input * weight;
- the accumulator is the sum of bias and products in int32. It can't overflow in any order of the
  sum, which is proven when a layer is built;
- the output is the accumulator converted to float32, times ``multiplier`` in float32, rounded half
  to even, clamped to 0 .. ``maximum``. Each step is one correctly rounded IEEE-754 operation.

The first layer reads the image's bytes: its input scale is 1, and normalisation is folded into its
weights and bias. The classifier's output scale is 1: its logits are the accumulator converted to
float32, times the multiplier, neither rounded nor clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lucid.description import Description
from lucid.errors import NetworkError, ShapeError
from lucid.network.consistency import check_chain, read_only
from lucid.network.layers import Layer

MAX_WEIGHT = 127
MAX_ACTIVATION = 255

# The pool's sums of bytes stay below 2**31.
MAX_POOL_CELLS = 2**23

# What a layer's result may be at most before it is clamped: far inside int32, so that a conversion
# that does not saturate is safe too.
MAX_REQUANTISED = 2.0**30

# Logits are not rounded; they only have to be finite.
MAX_LOGIT = 2.0**127

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Layer(Layer):
    """A convolution or the classifier in int8.

    uint8 (N, in_channels, H, W) -> uint8 (N, out_channels, H', W'), or uint8 (N, in_channels) ->
    float32 (N, out_channels) for the classifier.

    Args:
        weight: int8 of ``weight_shape``, -127 to 127.
        bias: int32 (out_channels,).
        weight_scale: float32 (out_channels,), above 0, not subnormal.
        input_scale: of the input, likewise; a float32 value.
        output_scale: of the output, likewise; 1 for the classifier.
    Raises:
        ConfigError: as ``Layer``.
        NetworkError: an array has another dtype or shape, a value is out of range, or the layer's
            numbers could overflow for some input.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    weight_scale: NDArray[np.float32]
    input_scale: float
    output_scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        per_channel = (self.out_channels,)
        weight = read_only(f"{self.name}.weight", self.weight, np.int8, self.weight_shape)
        bias = read_only(f"{self.name}.bias", self.bias, np.int32, per_channel)
        scale = read_only(f"{self.name}.weight_scale", self.weight_scale, np.float32, per_channel)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "weight_scale", scale)
        if (weight < -MAX_WEIGHT).any():
            raise NetworkError(f"{self.name}.weight: must be from -127 to 127, got -128")
        check_scale(f"{self.name}.input_scale", self.input_scale)
        check_scale(f"{self.name}.output_scale", self.output_scale)
        if (scale < _SMALLEST_NORMAL).any():
            raise NetworkError(f"{self.name}.weight_scale: must be above 0 and not subnormal")
        if self.kind == "dense" and self.output_scale != 1:
            raise NetworkError(
                f"{self.name}.output_scale: the classifier's is 1, got {self.output_scale!r}"
            )
        self._check_overflow()

    @property
    def multiplier(self) -> NDArray[np.float32]:
        """float32 (out_channels,): input scale * weight scale / output scale.

        The product is exact in float64; the quotient is rounded to float64, then to float32.
        """
        return _to_float32(
            np.float64(self.input_scale) * self.weight_scale.astype(np.float64) / self.output_scale
        )

    @property
    def maximum(self) -> int:
        """The largest value of the output: 255, or the byte nearest to 6 after ReLU6."""
        if self.activation != "relu6":
            return MAX_ACTIVATION
        return int(min(np.rint(6 / self.output_scale), MAX_ACTIVATION))

    def accumulator_bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 (out_channels,) twice: no sum of some of the products, with or without the bias,
        is below the first or above the second, whatever the input.
        """
        weight = self.weight.reshape(self.out_channels, -1).astype(np.int64)  # (O, products)
        bias = self.bias.astype(np.int64)
        low = np.minimum(weight, 0).sum(axis=1) * MAX_ACTIVATION + np.minimum(bias, 0)
        high = np.maximum(weight, 0).sum(axis=1) * MAX_ACTIVATION + np.maximum(bias, 0)
        return low, high

    def _check_overflow(self) -> None:
        """Prove that accumulators fit int32 and that results are neither huge nor subnormal."""
        low, high = self.accumulator_bounds()
        limits = np.iinfo(np.int32)
        if (low < limits.min).any() or (high > limits.max).any():
            channel = int(np.argmax(np.maximum(high, -low)))
            raise NetworkError(
                f"{self.name}: the accumulator of channel {channel} could be from {low[channel]} "
                f"to {high[channel]}, which int32 can't hold; a larger weight scale makes weights "
                "and bias smaller"
            )
        multiplier = self.multiplier
        limit = MAX_LOGIT if self.kind == "dense" else MAX_REQUANTISED
        if (
            not np.isfinite(multiplier).all()
            or (multiplier < _SMALLEST_NORMAL).any()
            or (np.maximum(high, -low) * multiplier.astype(np.float64) >= limit).any()
        ):
            raise NetworkError(
                f"{self.name}: the multipliers, {multiplier.min():g} to {multiplier.max():g}, give "
                f"results that are subnormal or reach {limit:g}; the scales do not fit one another"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Pool(Layer):
    """The mean over all pixels of each channel: uint8 (N, C, H, W) -> uint8 (N, C).

    The bytes of a channel are summed in int32; the sum is converted to float32, times
    ``multiplier`` in float32, rounded half to even, clamped to 0 .. 255. Means are smaller than the
    values that they are made of, so the output has a scale of its own.

    Args:
        input_scale: of the input, above 0, not subnormal; a float32 value.
        output_scale: of the output, likewise.
    Raises:
        ConfigError: as ``Layer``.
        NetworkError: a scale is out of range, or the two are too far apart.
    """

    input_scale: float
    output_scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(f"{self.name}.input_scale", self.input_scale)
        check_scale(f"{self.name}.output_scale", self.output_scale)
        ratio = self.input_scale / self.output_scale
        if (
            not MAX_ACTIVATION * ratio < MAX_REQUANTISED
            or ratio / MAX_POOL_CELLS < _SMALLEST_NORMAL
        ):
            raise NetworkError(
                f"{self.name}: an output scale of {self.output_scale:g} does not fit an input "
                f"scale of {self.input_scale:g}; results would be subnormal or reach "
                f"{MAX_REQUANTISED:g}"
            )

    def multiplier(self, cells: int) -> np.float32:
        """Input scale / (output scale * cells), for an input of H * W = ``cells`` pixels.

        The divisor is exact in float64; the quotient is rounded to float64, then to float32.

        Raises:
            ShapeError: ``cells`` is not from 1 to 2**23, for which sums are sure to fit int32.
        """
        if not 1 <= cells <= MAX_POOL_CELLS:
            raise ShapeError(
                f"{self.name}: the pool takes 1 to {MAX_POOL_CELLS} pixels, got {cells}; "
                "use smaller images"
            )
        return np.float32(self.input_scale / (np.float64(self.output_scale) * cells))


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Network(Description):
    """A folded MobileNet in int8, complete with class names and preprocessing.

    Images uint8 (N, H, W, in_channels), as ``lucid.images.preprocess`` gives them and not
    normalised -> float32 logits (N, classes).

    Args:
        layers: stem, pairs of depthwise and pointwise, perhaps one more pointwise, pool, dense; the
            input scale of each is the output scale of the one before, that of the stem is 1.
    Raises:
        NetworkError: the layers are others, or one does not fit the one before.
        CheckpointError: as ``Description``; or class names or preprocessing do not fit the layers.
    """

    layers: tuple[Int8Layer | Int8Pool, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chain(self, self.layers)
        _check_scales(self.layers)

    @property
    def outside(self) -> tuple[int, ...]:
        """What the first layer sees outside the image, a byte for each channel.

        The byte nearest to the normalised zero, 255 * mean, half to even. Other layers see 0.
        """
        mean = np.asarray(self.preprocessing.mean, np.float64)
        return tuple(int(byte) for byte in np.rint(255 * mean))


def check_scale(name: str, scale: float) -> None:
    """Raise NetworkError unless ``scale`` is a float32 value above 0 that is not subnormal."""
    # A NaN fails both comparisons.
    if not (scale >= _SMALLEST_NORMAL and float(_to_float32(np.float64(scale))) == scale < np.inf):
        raise NetworkError(
            f"{name}: must be a finite float32 value above 0 and not subnormal, got {scale!r}"
        )


def _check_scales(layers: Sequence[Int8Layer | Int8Pool]) -> None:
    if layers[0].input_scale != 1:
        raise NetworkError(
            f"{layers[0].name}.input_scale: the first layer reads bytes, whose scale is 1; "
            f"got {layers[0].input_scale!r}"
        )
    for before, layer in pairwise(layers):
        if layer.input_scale != before.output_scale:
            raise NetworkError(
                f"{layer.name}.input_scale: {layer.input_scale!r} is not the output scale of "
                f"{before.name}, {before.output_scale!r}"
            )


def _to_float32(values: NDArray[np.float64] | np.float64) -> NDArray[np.float32]:
    """Round to the nearest float32; what is beyond becomes infinite, which the checks refuse."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)
