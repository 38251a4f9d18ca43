"""Weights in float16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lucid.errors import ConfigError

__all__ = ["to_half"]

_LARGEST = float(np.finfo(np.float16).max)


def to_half(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to the nearest float16.

    Raises:
        ConfigError: a value is beyond float16, which ends at 65,504.
    """
    largest = float(np.abs(values).max(initial=0))
    if largest > _LARGEST:
        raise ConfigError(
            f"{name}: float16 ends at {_LARGEST:,.0f} and can't hold {largest:,.0f}; "
            "export as float32"
        )
    return values.astype(np.float16)
