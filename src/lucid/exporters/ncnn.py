"""From a float network to ncnn's two files; int8 with ncnn's own arithmetic.

ncnn's activations are int8 from -127 to 127, so what follows a ReLU has half the steps of lucid's
bytes: an int8 network can't be kept as it is, and is made from the float one instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.checks import check_integer, check_names
from lucid.images import MAX_RESOLUTION
from lucid.network import FloatLayer, FloatNetwork
from lucid.quantization import minmax_weight_scale

__all__ = ["to_ncnn"]

_MAGIC = "7767517"
_FLOAT32, _INT8 = 0, 0x000D4B38  # tags of a weight blob (ncnn, src/modelbin.cpp)
_LIMIT = 127


def to_ncnn(
    network: FloatNetwork,
    *,
    size: tuple[int, int] | None = None,
    ranges: Mapping[str, float] | None = None,
) -> tuple[str, bytes]:
    """Content of the .param and of the .bin file: normalised ``images`` -> ``logits``.

    Args:
        size: (height, width) in pixels; that of the preprocessing when left out.
        ranges: for int8: the largest output of every layer but the classifier, as
            ``lucid.quantization.measure_ranges`` gives; None for float32.
    Raises:
        ConfigError: a size or range is out of range or missing.
    """
    side = network.preprocessing.resolution
    height, width = size or (side, side)
    check_integer("height", height, 1, MAX_RESOLUTION)
    check_integer("width", width, 1, MAX_RESOLUTION)
    if ranges is not None:
        names = [layer.name for layer in network.layers[:-1]]
        check_names("ranges", ranges, known=names, required=names)
    channels = network.layers[0].in_channels
    lines = [f"Input images 0 1 images 0={width} 1={height} 2={channels}"]
    blobs: list[bytes] = []
    x = "images"
    mean, std = (np.array(part) for part in (network.preprocessing.mean, network.preprocessing.std))
    largest = float(np.maximum(mean / std, (1 - mean) / std).max())  # of normalised pixels
    for layer, after in zip(network.layers, (*network.layers[1:], None), strict=True):
        output = "logits" if after is None else layer.name
        start = f"{_TYPES[layer.kind]} {layer.name} 1 1 {x} {output}"
        x = output
        if not isinstance(layer, FloatLayer):
            lines.append(f"{start} 0=1 4=1")  # mean, of the whole plane
            largest = ranges[layer.name] if ranges else 0.0
            continue
        # What the next layer takes in int8 is rounded here; the pool takes floats.
        takes_int8 = after is not None and after.kind != "pool"
        term = 0 if ranges is None else 101 if takes_int8 else 1
        lines.append(f"{start} {_parameters(layer, (height, width), term)}")
        if ranges is None:
            blobs += [_tagged(_FLOAT32, layer.weight), layer.bias.tobytes()]
        else:
            blobs += _int8_blobs(layer, largest)
            largest = ranges.get(layer.name, 0.0)
            if takes_int8:
                blobs.append(_scale(largest))
        height, width = layer.output_side(height), layer.output_side(width)
    header = [_MAGIC, f"{len(lines)} {len(lines)}"]
    return "\n".join([*header, *lines, ""]), b"".join(blobs)


_TYPES = {
    "stem": "Convolution",
    "depthwise": "ConvolutionDepthWise",
    "pointwise": "Convolution",
    "pool": "Pooling",
    "dense": "InnerProduct",
}


def _parameters(layer: FloatLayer, size: tuple[int, int], int8_scale_term: int) -> str:
    """Numbered as in ncnn's docs/developer-guide/operators.md."""
    if layer.kind == "dense":
        found = {0: layer.out_channels, 1: 1, 2: layer.weights, 8: int8_scale_term}
        return " ".join(f"{key}={value}" for key, value in found.items())
    (top, bottom), (left, right) = layer.border(size[0]), layer.border(size[1])
    found = {
        0: layer.out_channels,
        1: layer.kernel,
        3: layer.stride,
        4: left,
        14: top,
        15: right,
        16: bottom,
        5: 1,  # has a bias
        6: layer.weights,
        8: int8_scale_term,
    }
    if layer.kind == "depthwise":
        found[7] = layer.in_channels
    text = " ".join(f"{key}={value}" for key, value in found.items())
    return f"{text} 9=1" if layer.activation == "relu" else f"{text} 9=3 -23310=2,0.0,6.0"


def _int8_blobs(layer: FloatLayer, largest: float) -> list[bytes]:
    scale = minmax_weight_scale(layer, largest / _LIMIT or 1.0, 1.0)  # (O,)
    steps = layer.weight / scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    weight = np.clip(np.rint(steps), -_LIMIT, _LIMIT).astype(np.int8)
    inverse = (1 / scale.astype(np.float64)).astype(np.float32)
    return [_tagged(_INT8, weight), layer.bias.tobytes(), inverse.tobytes(), _scale(largest)]


def _scale(largest: float) -> bytes:
    """Steps in a unit, for values up to ``largest``."""
    return np.float32(_LIMIT / largest if largest else 1.0).tobytes()


def _tagged(tag: int, values: NDArray[Any]) -> bytes:
    content = np.uint32(tag).tobytes() + values.tobytes()
    return content + bytes(-len(content) % 4)
