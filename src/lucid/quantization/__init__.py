"""From a float network to an int8 network."""

from __future__ import annotations

from lucid.quantization.calibration import measure_ranges
from lucid.quantization.comparison import Comparison, LayerNoise, compare
from lucid.quantization.equalisation import ChannelStatistics, equalise, measure_channels
from lucid.quantization.quantise import (
    minmax_weight_scale,
    normalisation_folded,
    quantise,
    quantise_layer,
)
from lucid.quantization.reconstruction import quantise_calibrated, reconstruct

__all__ = [
    "ChannelStatistics",
    "Comparison",
    "LayerNoise",
    "compare",
    "equalise",
    "measure_channels",
    "measure_ranges",
    "minmax_weight_scale",
    "normalisation_folded",
    "quantise",
    "quantise_calibrated",
    "quantise_layer",
    "reconstruct",
]
