"""How large the outputs of a float network get on real images."""

from __future__ import annotations

from collections.abc import Iterable

from lucid import reference
from lucid.errors import DataError
from lucid.images import Pixels
from lucid.network import FloatNetwork


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
