"""From a float network to an int8 network."""

from __future__ import annotations

from lucid.quantization.calibration import measure_ranges
from lucid.quantization.quantise import (
    minmax_weight_scale,
    normalisation_folded,
    quantise,
    quantise_layer,
)

__all__ = [
    "measure_ranges",
    "minmax_weight_scale",
    "normalisation_folded",
    "quantise",
    "quantise_layer",
]
