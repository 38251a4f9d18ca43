"""Small networks: strategies that draw any, and a slow executor of int8 networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lucid.architecture import ACTIVATIONS, PADDINGS
from lucid.images import Preprocessing
from lucid.network import (
    FloatLayer,
    FloatNetwork,
    FloatPool,
    Int8Layer,
    Int8Network,
    Int8Pool,
    Layer,
)

simple_scales = st.sampled_from([2.0**-k for k in range(12)])
scales = st.one_of(simple_scales, st.floats(2.0**-13, 4.0, width=32))
# A sum times a power of two stands exactly between two whole numbers now and then.
simple_multipliers = st.sampled_from([2.0**-k for k in range(20)])
multipliers = st.one_of(simple_multipliers, st.floats(2.0**-20, 1.0, width=32))


@st.composite
def structures(draw: st.DrawFn, most_channels: int = 4) -> tuple[Layer, ...]:
    """Stem, up to two pairs, a head or none, pool and classifier.

    Of 1 to ``most_channels`` channels each.
    """
    padding, activation = draw(st.sampled_from(PADDINGS)), draw(st.sampled_from(ACTIVATIONS))
    variant: dict[str, Any] = {"padding": padding, "activation": activation}
    sizes = st.integers(1, most_channels)
    channels = draw(sizes)
    strides = st.integers(1, 2)

    def layer(name: str, kind: Any, before: int, after: int, **fields: Any) -> Layer:
        return Layer(name=name, kind=kind, in_channels=before, out_channels=after, **fields)

    images = draw(st.sampled_from([1, 3]))
    found = [layer("conv1", "stem", images, channels, stride=draw(strides), **variant)]
    for block in range(draw(st.integers(0, 2))):
        after, stride = draw(sizes), draw(strides)
        path = f"conv2.{block}"
        found += [
            layer(f"{path}.depthwise", "depthwise", channels, channels, stride=stride, **variant),
            layer(f"{path}.pointwise", "pointwise", channels, after, **variant),
        ]
        channels = after
    if draw(st.booleans()):
        after = draw(sizes)
        found.append(layer("head", "pointwise", channels, after, **variant))
        channels = after
    found.append(layer("avgpool", "pool", channels, channels))
    found.append(layer("fc", "dense", channels, draw(sizes)))
    return tuple(found)


def described(layers: tuple[Layer, ...], mean: float = 0.5) -> dict[str, Any]:
    """Class names and preprocessing that fit the layers."""
    channels = layers[0].in_channels
    return {
        "class_names": tuple(f"class {k}" for k in range(layers[-1].out_channels)),
        "preprocessing": Preprocessing(
            8, color="RGB" if channels == 3 else "L", mean=(mean,) * channels
        ),
    }


def generator(draw: st.DrawFn) -> np.random.Generator:
    """Hypothesis draws the seed; arrays drawn value by value would take too long."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def float_networks(draw: st.DrawFn) -> FloatNetwork:
    """Random weights in -1 to 1, some channels of them 0."""
    random = generator(draw)
    layers: list[FloatLayer | FloatPool] = []
    structure = draw(structures())
    for layer in structure:
        if layer.kind == "pool":
            layers.append(FloatPool(**layer.to_dict()))
            continue
        weight = random.uniform(-1, 1, layer.weight_shape).astype(np.float32)
        weight[random.random(layer.out_channels) < 0.1] = 0
        bias = random.uniform(-0.5, 0.5, layer.out_channels).astype(np.float32)
        layers.append(FloatLayer(**layer.to_dict(), weight=weight, bias=bias))
    mean = draw(st.floats(0, 1))
    return FloatNetwork(layers=tuple(layers), **described(structure, mean))


@st.composite
def int8_networks(
    draw: st.DrawFn,
    most_channels: int = 4,
    scales: st.SearchStrategy[float] = scales,
    multipliers: st.SearchStrategy[float] = multipliers,
) -> Int8Network:
    """Weights over all of -127 to 127 or at its ends only, any bias, many kinds of scale."""
    random = generator(draw)
    layers: list[Int8Layer | Int8Pool] = []
    structure = draw(structures(most_channels))
    input_scale = 1.0
    for layer in structure:
        output_scale = 1.0 if layer.kind == "dense" else draw(scales)
        fields = layer.to_dict() | {"input_scale": input_scale, "output_scale": output_scale}
        input_scale = output_scale
        if layer.kind == "pool":
            layers.append(Int8Pool(**fields))
            continue
        values = draw(st.sampled_from([(-127, 0, 127), range(-127, 128), (0, 1)]))
        weight = random.choice(np.array(values, np.int8), layer.weight_shape)
        most = draw(st.sampled_from([100, 10_000, 2**24, 2**28]))
        bias = random.integers(-most, most, layer.out_channels, dtype=np.int32)
        wanted = random.choice([draw(multipliers) for _ in range(4)], layer.out_channels)
        weight_scale = (wanted * output_scale / fields["input_scale"]).astype(np.float32)
        layers.append(Int8Layer(**fields, weight=weight, bias=bias, weight_scale=weight_scale))
    return Int8Network(layers=tuple(layers), **described(structure, draw(st.floats(0, 1))))


@st.composite
def images(draw: st.DrawFn, channels: int) -> NDArray[np.uint8]:
    """One or two images of 1x1 to 9x9 pixels, with many of the darkest and brightest bytes."""
    random = generator(draw)
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9)), channels)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    pixels[random.random(shape) < 0.2] = 0
    pixels[random.random(shape) < 0.2] = 255
    return pixels


Plane = list[list[int]]


def slow_logits(network: Int8Network, image: NDArray[np.uint8]) -> list[np.float32]:
    """Logits of one image (H, W, C), value by value, as the documentation describes them."""
    height, width, channels = image.shape
    maps: list[Plane] = [
        [[int(image[y, x, c]) for x in range(width)] for y in range(height)]
        for c in range(channels)
    ]
    for layer in network.layers:
        if isinstance(layer, Int8Pool):
            maps = [[[_slow_mean(layer, plane)]] for plane in maps]
        elif layer.kind == "dense":
            pooled = [plane[0][0] for plane in maps]
            return [_slow_logit(layer, pooled, k) for k in range(layer.out_channels)]
        else:
            outside = network.outside if layer.kind == "stem" else (0,) * layer.in_channels
            maps = [_slow_plane(layer, maps, outside, o) for o in range(layer.out_channels)]
    raise AssertionError("no classifier")


def _slow_plane(layer: Int8Layer, maps: list[Plane], outside: tuple[int, ...], o: int) -> Plane:
    height, width = len(maps[0]), len(maps[0][0])
    side = 3 if layer.kind in ("stem", "depthwise") else 1
    stride = layer.stride

    def first(size: int) -> int:
        """Where the first window starts."""
        if layer.padding == "symmetric" or side == 1:
            return -(side // 2)
        # tf.nn.convolution, notes on padding.
        remainder = size % stride
        total = max(side - (remainder if remainder else stride), 0)
        return -(total // 2)

    def value(c: int, y: int, x: int) -> int:
        return maps[c][y][x] if 0 <= y < height and 0 <= x < width else outside[c]

    inputs = [o] if layer.kind == "depthwise" else list(range(layer.in_channels))
    plane: Plane = []
    for top in range(first(height), first(height) + height, stride):
        row = []
        for left in range(first(width), first(width) + width, stride):
            total = int(layer.bias[o])
            for i, c in enumerate(inputs):
                for dy in range(side):
                    for dx in range(side):
                        total += int(layer.weight[o, i, dy, dx]) * value(c, top + dy, left + dx)
            row.append(_slow_byte(total, _slow_multiplier(layer, o), _slow_maximum(layer)))
        plane.append(row)
    return plane


def _slow_mean(layer: Int8Pool, plane: Plane) -> int:
    cells = len(plane) * len(plane[0])
    multiplier = np.float32(layer.input_scale / (layer.output_scale * cells))
    return _slow_byte(sum(map(sum, plane)), multiplier, 255)


def _slow_logit(layer: Int8Layer, pooled: list[int], k: int) -> np.float32:
    total = int(layer.bias[k])
    for c, value in enumerate(pooled):
        total += int(layer.weight[k, c]) * value
    return np.float32(total) * _slow_multiplier(layer, k)


def _slow_multiplier(layer: Int8Layer, o: int) -> np.float32:
    return np.float32(layer.input_scale * float(layer.weight_scale[o]) / layer.output_scale)


def _slow_maximum(layer: Int8Layer) -> int:
    return min(255, round(6 / layer.output_scale)) if layer.activation == "relu6" else 255


def _slow_byte(total: int, multiplier: np.float32, maximum: int) -> int:
    """Python's round() of a number goes half to even."""
    assert -(2**31) <= total < 2**31
    return min(max(round(float(np.float32(total) * multiplier)), 0), maximum)
