"""The scales that files state for an int8 network, so that runtimes compute its multipliers.

A runtime makes the multiplier of a layer out of three scales, input * weight / output, in float32.
Scales of activations that are powers of two make it come out as the network's own to the last bit,
and the answers with it; those of weights take up the rest. No byte changes by that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucid.network import Int8Layer, Int8Network, Int8Pool

__all__ = ["StatedScales", "power_of_two", "state_scales"]


@dataclass(frozen=True)
class StatedScales:
    """What a file says that a step of a layer's input and of its output is."""

    taken: np.float32
    given: np.float32

    def weight(self, layer: Int8Layer) -> NDArray[np.float32]:
        """Scales of the weights, (out_channels,)."""
        found: NDArray[np.float32] = layer.multiplier * (self.given / self.taken)
        return found

    def bias(self, layer: Int8Layer) -> NDArray[np.float32]:
        """Scales of the bias, (out_channels,)."""
        found: NDArray[np.float32] = self.taken * self.weight(layer)
        return found


def power_of_two(scale: float) -> np.float32:
    """The largest power of two that is not above a scale."""
    return np.float32(2.0 ** np.floor(np.log2(scale)))


def state_scales(network: Int8Network, first: np.float32) -> tuple[StatedScales, ...]:
    """The scales of each layer, if a step of the image is said to be ``first``.

    Where ReLU6 cuts below the largest byte, the scale is the network's own, since a runtime finds
    the byte by it. Elsewhere 6 is at or beyond the largest byte, and cuts nothing.
    """
    found = []
    taken = first
    for layer in network.layers:
        if isinstance(layer, Int8Pool):
            given = np.float32(np.float64(taken) * layer.output_scale / layer.input_scale)
        elif layer.kind == "dense" or layer.maximum < 255:
            given = np.float32(layer.output_scale)
        else:
            given = power_of_two(layer.output_scale)
        found.append(StatedScales(taken, given))
        taken = given
    return tuple(found)
