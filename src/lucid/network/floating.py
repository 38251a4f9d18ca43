"""The folded network in float32: batch norm is in the weights, an activation is a range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucid.description import Description
from lucid.network.consistency import check_chain, read_only
from lucid.network.layers import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatLayer(Layer):
    """A convolution or the classifier with its folded weights.

    float32 (N, in_channels, H, W) -> (N, out_channels, H', W'), or (N, in_channels) ->
    (N, out_channels) for the classifier.

    Args:
        weight: float32 of ``weight_shape``, finite.
        bias: float32 (out_channels,), finite.
    Raises:
        ConfigError: as ``Layer``.
        NetworkError: an array has another dtype or shape or is not finite.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = read_only(f"{self.name}.weight", self.weight, np.float32, self.weight_shape)
        bias = read_only(f"{self.name}.bias", self.bias, np.float32, (self.out_channels,))
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)

    @property
    def activation_range(self) -> tuple[float, float]:
        """What the output is clamped to: (0, inf), (0, 6), or all numbers for the classifier."""
        if self.activation is None:
            return (-math.inf, math.inf)
        return (0.0, 6.0 if self.activation == "relu6" else math.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatPool(Layer):
    """The mean over all pixels of each channel: float32 (N, C, H, W) -> (N, C)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatNetwork(Description):
    """A folded MobileNet in float32, complete with class names and preprocessing.

    Images (N, in_channels, H, W), normalised as ``preprocessing`` says -> logits (N, classes).
    Outside the image the first layer sees normalised zeros, the others zeros.

    Args:
        layers: stem, pairs of depthwise and pointwise, perhaps one more pointwise, pool, dense.
    Raises:
        NetworkError: the layers are others, or one does not fit the one before.
        CheckpointError: as ``Description``; or class names or preprocessing do not fit the layers.
    """

    layers: tuple[FloatLayer | FloatPool, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chain(self, self.layers)
