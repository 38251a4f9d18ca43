"""How large the outputs of a float network get on real images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import DataError
from lucid.images import Pixels
from lucid.network import FloatNetwork
from lucid.network.integer import MAX_ACTIVATION

_RANGE_SHARES = np.linspace(1.0, 0.3, 36).tolist()
_VALUES = 400_000  # enough to tell ranges apart


def measure_ranges(network: FloatNetwork, batches: Iterable[Pixels]) -> dict[str, float]:
    """The largest output of every layer but the classifier, by the layer's name; 0 or more.

    Args:
        batches: uint8 (N, H, W, C) each.
    Raises:
        DataError: there is no image.
        ShapeError: as ``lucid.reference.run``.
    """
    found: dict[str, float] = {}
    for pixels in batches:
        for layer, output in reference.trace(network, pixels):
            if layer.kind != "dense" and output.size:
                found[layer.name] = max(found.get(layer.name, 0.0), float(output.max()))
    if not found:
        raise DataError("calibration needs at least one image, got none")
    return found


def minimum_error_range(outputs: NDArray[np.floating], importance: NDArray[np.floating]) -> float:
    """The value for byte 255 with which outputs come back with the least squared error.

    A smaller range clamps the few largest outputs and has finer steps for all others.

    Args:
        outputs: (values, C), 0 or more.
        importance: (C,), what a squared error of 1 in the channel counts.
    Returns:
        Above 0, or 0 where no output is.
    """
    largest = float(outputs.max(initial=0.0))
    thinned = outputs[:: max(1, outputs.size // _VALUES)].astype(np.float32)
    best, least = largest, np.inf
    for share in _RANGE_SHARES if largest else ():
        step = np.float32(share * largest / MAX_ACTIVATION)
        rounded = np.minimum(np.rint(thinned / step), MAX_ACTIVATION) * step
        error = np.square(rounded - thinned).sum(axis=0, dtype=np.float64) @ importance
        if error < least:
            best, least = share * largest, error
    return best
