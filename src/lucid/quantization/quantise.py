"""Scales and rounding: a float network and the ranges of its activations -> an int8 network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lucid.checks import check_names, check_number
from lucid.errors import NetworkError
from lucid.images import Preprocessing
from lucid.network import FloatLayer, FloatNetwork, Int8Layer, Int8Network, Int8Pool
from lucid.network.consistency import read_only
from lucid.network.integer import MAX_ACTIVATION, MAX_WEIGHT

# A bias of up to this many steps leaves half of int32 to the products: 255 * 127 * 32,767 of them.
_MAX_BIAS = 2**30

# Products of weights this many times smaller than a step of the output never reach one; without the
# limit the weights of a dead channel, 1e-40 for example, would have a scale that is subnormal.
_SMALLEST_MULTIPLIER = 2.0**-100


def quantise(
    network: FloatNetwork,
    ranges: Mapping[str, float],
    weight_scales: Mapping[str, NDArray[np.float32]] | None = None,
) -> Int8Network:
    """Round a float network to int8, each weight to the nearest step.

    Args:
        network: class names, preprocessing, metrics and provenance go along.
        ranges: the value that byte 255 stands for in the output of every layer but the classifier,
            by the layer's name, as ``measure_ranges`` gives; larger outputs are clamped. 0, for
            an output that is always 0, counts as 255.
        weight_scales: float32 (out_channels,) by the layer's name; where a layer is left out,
            ``minmax_weight_scale``. Those of the first layer are for weights per byte, as
            ``normalisation_folded`` gives them.
    Raises:
        ConfigError: a range is missing, of an unknown layer, negative or beyond float32; or weight
            scales are of an unknown layer.
        NetworkError: scales are out of range, or lead to numbers that could overflow.
    """
    weight_scales = weight_scales or {}
    *ranged, dense = [layer.name for layer in network.layers]
    check_names("ranges", ranges, known=ranged, required=ranged)
    check_names("weight_scales", weight_scales, known=[*ranged, dense], required=())
    layers: list[Int8Layer | Int8Pool] = []
    zero: NDArray[np.float64] | float = 0.0
    input_scale = 1.0
    for layer in network.layers:
        output_scale = 1.0 if layer.kind == "dense" else output_step(layer.name, ranges[layer.name])
        if not isinstance(layer, FloatLayer):
            pool = layer.to_dict() | {"input_scale": input_scale, "output_scale": output_scale}
            layers.append(Int8Pool(**pool))
        else:
            if layer.kind == "stem":
                layer, zero = normalisation_folded(layer, network.preprocessing)
            scale = weight_scales.get(layer.name)
            if scale is None:
                scale = minmax_weight_scale(layer, input_scale, output_scale)
            layers.append(quantise_layer(layer, scale, input_scale, output_scale, zero))
        input_scale, zero = output_scale, 0.0
    return Int8Network(layers=tuple(layers), **network.description_fields())


def normalisation_folded(
    stem: FloatLayer, preprocessing: Preprocessing
) -> tuple[FloatLayer, NDArray[np.float64]]:
    """The first layer with weights for bytes, and the bytes that stand for normalised zeros.

    ``weight * (byte / 255 - mean) / std`` is ``folded * (byte - zero)``, with ``folded`` of
    ``weight / (255 * std)`` and ``zero`` of ``255 * mean``; float64 (in_channels,), not whole.
    """
    step = 255 * np.asarray(preprocessing.std, np.float64).reshape(1, -1, 1, 1)
    weight = (stem.weight / step).astype(np.float32)
    folded = FloatLayer(**stem.to_dict(), weight=weight, bias=stem.bias)
    return folded, 255 * np.asarray(preprocessing.mean, np.float64)


def minmax_weight_scale(
    layer: FloatLayer, input_scale: float, output_scale: float
) -> NDArray[np.float32]:
    """float32 (out_channels,): the scale with which a channel's largest weight is 127 steps.

    It is larger for a channel whose weights are so small beside its bias that int32 would not hold
    the bias; such weights make no difference to the output.
    """
    weight = np.abs(layer.weight.reshape(layer.out_channels, -1)).max(axis=1).astype(np.float64)
    smallest = smallest_weight_scale(layer, input_scale, output_scale)
    scale = np.maximum(weight / MAX_WEIGHT, smallest)
    with np.errstate(over="ignore"):  # what is infinite, quantise_layer refuses
        rounded: NDArray[np.float32] = scale.astype(np.float32)
    return rounded


def smallest_weight_scale(
    layer: FloatLayer, input_scale: float, output_scale: float
) -> NDArray[np.float64]:
    """float64 (out_channels,), above 0: from here on int32 has room for the bias."""
    bias = np.abs(layer.bias.astype(np.float64))
    smallest: NDArray[np.float64] = np.maximum(
        bias / (input_scale * _MAX_BIAS), output_scale / input_scale * _SMALLEST_MULTIPLIER
    )
    return smallest


def quantise_layer(
    layer: FloatLayer,
    weight_scale: NDArray[np.float32],
    input_scale: float,
    output_scale: float,
    zero: NDArray[np.float64] | float = 0.0,
    weight: NDArray[np.int8] | None = None,
) -> Int8Layer:
    """Round one layer; weights and bias to the nearest step, half to even.

    Args:
        layer: the first layer of a network as ``normalisation_folded`` gives it.
        weight_scale: float32 (out_channels,).
        input_scale: of the layer's input, a float32 value.
        output_scale: of its output, likewise; 1 for the classifier.
        zero: what stands for 0 in the input: float64 (in_channels,) for the first layer.
            The bias takes it up, with the weights as they are once rounded: so the error of a
            rounded weight counts times the distance from zero, not times the whole byte.
        weight: int8, the weights where they have been rounded in another way.
    Raises:
        NetworkError: as ``Int8Layer``, or a bias that int32 can't hold.
    """
    name = f"{layer.name}.weight_scale"
    scale = read_only(name, weight_scale, np.float32, (layer.out_channels,)).astype(np.float64)
    if (scale <= 0).any():
        raise NetworkError(f"{name}: must be above 0")
    if weight is None:
        steps = layer.weight / scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        weight = np.clip(np.rint(steps), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)  # (O, I)
    bias = np.rint(layer.bias / (input_scale * scale) - (taps * zero).sum(axis=1))  # (O,)
    if not (np.abs(bias) <= np.iinfo(np.int32).max).all():
        raise NetworkError(
            f"{layer.name}: a bias of {np.abs(bias).max():g} steps is beyond int32; "
            "give its channel a larger weight scale"
        )
    return Int8Layer(
        **layer.to_dict(),
        weight=weight,
        bias=bias.astype(np.int32),
        weight_scale=weight_scale,
        input_scale=input_scale,
        output_scale=output_scale,
    )


def output_step(name: str, largest: float) -> float:
    """The float32 scale of an output whose byte 255 stands for ``largest``."""
    limit = float(np.finfo(np.float32).max)
    check_number(f"ranges: {name}", largest, f"0 to {limit:g}", lambda value: 0 <= value <= limit)
    return float(np.float32(largest / MAX_ACTIVATION)) if largest else 1.0
