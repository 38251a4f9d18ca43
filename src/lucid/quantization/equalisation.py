"""Channels of an output share one scale; here each gets a range of its own all the same.

Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721, section 4.1): a layer divides an
output channel by a factor, the next layer multiplies it again. Weights have a scale for each output
channel here, so it is the ranges of the outputs that are made alike, not those of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import DataError
from lucid.images import Pixels
from lucid.network import FloatLayer, FloatNetwork, FloatPool
from lucid.network.integer import MAX_ACTIVATION, MAX_WEIGHT

Array64 = NDArray[np.float64]

# How much of the way to equal ranges: a pointwise layer pays for it with weights that differ more.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

# How far beyond what was measured a channel may go before it is clamped.
_MARGIN = 1.5

# A channel's range is at least this share of the widest one: one that hardly spoke on a few hundred
# images may do so on the next, and would be clamped.
_SMALLEST_FACTOR = 1 / 16


@dataclass(frozen=True)
class ChannelStatistics:
    """Of a layer's outputs, float64 (C,) each: the largest and the mean square of each channel."""

    largest: Array64
    power: Array64


def measure_channels(
    network: FloatNetwork, batches: Iterable[Pixels]
) -> dict[str, ChannelStatistics]:
    """Statistics of every layer's outputs, by the layer's name.

    Args:
        batches: uint8 (N, H, W, C) each.
    Raises:
        DataError: there is no image.
        ShapeError: as ``lucid.reference.run``.
    """
    largest: dict[str, Array64] = {}
    squares: dict[str, Array64] = {}
    values: dict[str, int] = {}
    for pixels in batches:
        for layer, output in reference.trace(network, pixels):
            if not output.size:
                continue
            channels = np.moveaxis(output, 1, 0).reshape(layer.out_channels, -1)  # (C, values)
            maxima = channels.max(axis=1).astype(np.float64)
            sums = np.einsum("cv,cv->c", channels, channels, dtype=np.float64)
            name = layer.name
            largest[name] = np.maximum(largest.get(name, maxima), maxima)
            squares[name] = squares.get(name, 0) + sums
            values[name] = values.get(name, 0) + channels.shape[1]
    if not values:
        raise DataError("calibration needs at least one image, got none")
    return {
        name: ChannelStatistics(np.maximum(largest[name], 0), squares[name] / values[name])
        for name in values
    }


def equalise(network: FloatNetwork, statistics: Mapping[str, ChannelStatistics]) -> FloatNetwork:
    """The same function with output channels of like ranges.

    ReLU lets factors through, so with it the function is the same but for float32 rounding. ReLU6
    clamps what was divided by a factor of at most 1 at 6 times the factor instead of at 6. Factors
    are chosen so that this is never below what the channel reached where ``statistics`` were
    measured: on those images the function is the same, on others it clamps where an int8 network
    would have to anyway.

    Args:
        statistics: of ``measure_channels``.
    """
    layers: list[FloatLayer | FloatPool] = []
    taken = np.ones(network.layers[0].in_channels)  # the factors of the input's channels
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, FloatLayer):
            layers.append(layer)  # the mean of a channel passes its factor on
            continue
        given = np.ones(layer.out_channels)
        if layer.kind != "dense":
            given = _factors(network, index, statistics)
        seen = taken if layer.kind != "depthwise" else taken[:, np.newaxis]
        weight = layer.weight * _shaped(seen, layer) / _shaped(given[:, np.newaxis], layer)
        layers.append(
            FloatLayer(
                **layer.to_dict(),
                weight=weight.astype(np.float32),
                bias=(layer.bias / given).astype(np.float32),
            )
        )
        taken = given
    return FloatNetwork(layers=tuple(layers), **network.description_fields())


def _shaped(factors: Array64, layer: FloatLayer) -> Array64:
    """Factors (I,), (C, 1) or (O, 1) to go with the layer's weight."""
    return factors.reshape(*factors.shape, *[1] * (layer.weight.ndim - 2))


def _factors(
    network: FloatNetwork, index: int, statistics: Mapping[str, ChannelStatistics]
) -> Array64:
    """What a layer divides its output channels by: float64 (C,), above 0 to 1."""
    seen = statistics[network.layers[index].name]
    own, reader = seen.largest, network.layers[index + 1]
    if reader.kind == "pool":  # its means are rounded too, and matter more than their terms
        seen = statistics[reader.name]
        reader = network.layers[index + 2]
    if not seen.largest.any():
        return np.ones_like(own)
    assert isinstance(reader, FloatLayer)
    ratio = np.minimum(_MARGIN * seen.largest / seen.largest.max(), 1.0)
    ratio = np.where(ratio > 0, np.maximum(ratio, _SMALLEST_FACTOR), 1.0)
    if reader.kind == "depthwise":  # its weights have a scale for each channel: it costs nothing
        return ratio
    weight = reader.weight.reshape(reader.weight.shape[:2]).astype(np.float64)  # (O, I)
    weight /= np.maximum(np.sqrt(statistics[reader.name].power), 1e-30)[:, np.newaxis]
    # A clamp at 6 must stay above what the channel reaches.
    candidates = [np.maximum(ratio**share, own / own.max()) for share in _SHARES]
    return min(candidates, key=lambda factors: _noise(factors, seen, weight))


def _noise(factors: Array64, seen: ChannelStatistics, weight: Array64) -> float:
    """Mean square error of a pointwise layer or classifier, from rounding inputs and weights.

    A step's rounding error has the variance step**2 / 12.
    """
    scaled = weight * factors  # (O, I)
    input_step = (seen.largest / factors).max() / MAX_ACTIVATION
    weight_step = np.abs(scaled).max(axis=1) / MAX_WEIGHT  # (O,)
    from_inputs = input_step**2 * np.square(scaled).sum()
    from_weights = np.square(weight_step).sum() * (seen.power / factors**2).sum()
    return float(from_inputs + from_weights)
