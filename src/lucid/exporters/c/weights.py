"""In which order the weights of a layer lie: the one that kernels.h names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lucid.network import Int8Layer

__all__ = ["in_order"]


def in_order(layer: Int8Layer) -> NDArray[np.int8]:
    """All weights of a layer, (weights,), as its kernel reads them."""
    if layer.kind == "stem":
        return layer.weight.transpose(0, 2, 3, 1).reshape(-1)  # (O, 3, 3, I)
    return layer.weight.reshape(-1)
