"""A float network and some images -> the int8 network that comes nearest to it on them.

Layers are rounded one after another. Each sees what the int8 layers before it give, and aims at
what the float network computes, so errors are made up for rather than added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import DataError, ShapeError
from lucid.images import Pixels, normalise
from lucid.network import FloatLayer, FloatNetwork, FloatPool, Int8Layer, Int8Network, Int8Pool
from lucid.network.integer import MAX_ACTIVATION
from lucid.quantization.calibration import minimum_error_range
from lucid.quantization.equalisation import equalise, measure_channels
from lucid.quantization.quantise import (
    normalisation_folded,
    output_step,
    quantise_layer,
    smallest_weight_scale,
)
from lucid.quantization.rounding import Samples, round_to_fit

Array = NDArray[Any]
Track = Callable[[Iterable[FloatLayer | FloatPool]], Iterable[FloatLayer | FloatPool]]
Places = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns, (images, places) each

_BATCH = 16
# Places of all images together at which a layer's inputs and outputs are compared: several times
# the inputs of the widest layer, and hundreds of times those of a depthwise one.
_PLACES = 16384
_DEPTHWISE_PLACES = 8192


def quantise_calibrated(
    network: FloatNetwork, pixels: Pixels, *, track: Track = iter
) -> Int8Network:
    """Round a float network to int8 so that it computes nearly the same on real images.

    Ranges, scales, weights and biases are fitted to the images; labels are not needed. The same
    images in the same order give the same network on the same machine.

    Args:
        network: class names, preprocessing, metrics and provenance go along.
        pixels: uint8 (N, H, W, C), a few hundred images such as the network will see.
        track: wraps the layers while they are worked through, for a progress bar.
    Raises:
        DataError: there is no image.
        ShapeError: as ``lucid.reference.run``.
    """
    statistics = measure_channels(network, np.split(pixels, range(_BATCH, len(pixels), _BATCH)))
    return reconstruct(equalise(network, statistics), pixels, track=track)


def reconstruct(network: FloatNetwork, pixels: Pixels, *, track: Track = iter) -> Int8Network:
    """As ``quantise_calibrated``, without equalisation."""
    state = _State(network, pixels)
    layers: list[Int8Layer | Int8Pool] = []
    for index, layer in enumerate(track(network.layers)):
        reader = network.layers[index + 1] if layer.kind != "dense" else None
        if isinstance(layer, FloatPool):
            rounded: Int8Layer | Int8Pool = state.pool(layer, reader)
        else:
            rounded = state.layer(layer, reader, index)
        layers.append(rounded)
        state.pass_through(layer, rounded)
    return Int8Network(layers=tuple(layers), **network.description_fields())


class _State:
    """All images between two layers, in the float network and in the int8 one.

    ``wanted`` is float32, ``found`` uint8 at ``scale``; where ``found`` is ``zero`` (C,), it stands
    for 0. Outside the images it is ``outside`` (C,).
    """

    def __init__(self, network: FloatNetwork, pixels: Pixels) -> None:
        channels = network.layers[0].in_channels
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != channels:
            raise ShapeError(
                f"the network expects uint8 images (N, H, W, {channels}), "
                f"got {pixels.dtype} {pixels.shape}"
            )
        if not len(pixels):
            raise DataError("calibration needs at least one image, got none")
        self._preprocessing = network.preprocessing
        self._wanted: Array = normalise(pixels, network.preprocessing)
        self._found: Array = pixels.transpose(0, 3, 1, 2)
        self._scale = 1.0
        self._zero = 255 * np.asarray(network.preprocessing.mean, np.float64)
        self._outside = np.rint(self._zero).astype(np.uint8)

    def pool(self, pool: FloatPool, reader: FloatLayer | FloatPool | None) -> Int8Pool:
        """The pool with the output scale that rounds best."""
        outputs = reference.execute(pool, self._wanted, self._outside)
        return Int8Pool(
            **pool.to_dict(), input_scale=self._scale, output_scale=_step(pool, outputs, reader)
        )

    def layer(
        self, layer: FloatLayer, reader: FloatLayer | FloatPool | None, seed: int
    ) -> Int8Layer:
        """The layer with scales, weights and biases that fit the images."""
        places = self._places(layer, seed)
        weight = _grouped(layer)
        wanted = _windows(layer, self._wanted, np.zeros(layer.in_channels, np.float32), places)
        targets = np.matmul(wanted, weight.swapaxes(1, 2))  # (G, P, O)
        targets += layer.bias.reshape(len(weight), 1, -1)
        low, high = layer.activation_range
        output_scale = 1.0
        if layer.kind != "dense":
            outputs = np.moveaxis(targets, 0, 1).reshape(-1, layer.out_channels)
            output_scale = _step(layer, np.clip(outputs, low, high), reader)
            high = min(high, MAX_ACTIVATION * output_scale)
        if layer.kind == "stem":
            layer, _ = normalisation_folded(layer, self._preprocessing)
            weight = _grouped(layer)
        samples = Samples(self._inputs(layer, places), targets, low, high)
        smallest = smallest_weight_scale(layer, self._scale, output_scale)
        rounded = round_to_fit(weight, smallest.reshape(weight.shape[:2]), samples)
        bias = rounded.bias.reshape(-1).astype(np.float32)
        fitted = FloatLayer(**layer.to_dict(), weight=layer.weight, bias=bias)
        # The bias that was found may be larger than the layer's own.
        smallest = smallest_weight_scale(fitted, self._scale, output_scale)
        scale = np.maximum(rounded.scale.reshape(-1), smallest.astype(np.float32))
        shrunk = rounded.steps * (rounded.scale / scale.reshape(rounded.scale.shape))[..., None]
        steps = np.rint(shrunk).astype(np.int8).reshape(layer.weight.shape)
        return quantise_layer(fitted, scale, self._scale, output_scale, self._zero, steps)

    def pass_through(self, layer: FloatLayer | FloatPool, rounded: Int8Layer | Int8Pool) -> None:
        """Go on with the outputs of a layer."""
        self._wanted = _execute(layer, self._wanted, np.zeros(layer.in_channels, np.float32))
        self._found = _execute(rounded, self._found, self._outside)
        self._outside = np.zeros(layer.out_channels, np.uint8)
        self._zero = np.zeros(layer.out_channels)
        self._scale = rounded.output_scale

    def _inputs(self, layer: FloatLayer, places: Places | None) -> NDArray[np.float32]:
        """What the int8 layer sees, times its scale: (G, P, I)."""
        seen = _windows(layer, self._found, self._outside, places).astype(np.float32)
        if layer.kind == "stem":
            taps = layer.kernel**2
            seen -= np.repeat(self._zero, taps).astype(np.float32)
        seen *= np.float32(self._scale)
        return seen

    def _places(self, layer: FloatLayer, seed: int) -> Places | None:
        """As many places of each image, drawn at random; all of the classifier."""
        if layer.kind == "dense":
            return None
        height, width = map(layer.output_side, self._wanted.shape[2:])
        wished = _DEPTHWISE_PLACES if layer.kind == "depthwise" else _PLACES
        count = min(height * width, -(-wished // len(self._wanted)))
        generator = np.random.default_rng(seed)
        drawn = [generator.choice(height * width, count, replace=False) for _ in self._wanted]
        rows, columns = np.divmod(np.stack(drawn), width)
        return rows, columns


def _step(layer: FloatLayer | FloatPool, outputs: Array, reader: Any) -> float:
    """The output scale with the least error, by what the next layer makes of each channel.

    Args:
        outputs: (values, C).
        reader: the next layer.
    """
    importance = np.ones(layer.out_channels)
    if isinstance(reader, FloatLayer):
        by_channel = reader.weight if reader.kind == "depthwise" else reader.weight.swapaxes(0, 1)
        importance = np.square(by_channel.reshape(layer.out_channels, -1)).sum(axis=1)
    return output_step(layer.name, minimum_error_range(outputs, importance))


def _grouped(layer: FloatLayer) -> NDArray[np.float32]:
    """The weight as ``lucid.quantization.rounding`` takes it: (G, O, I)."""
    groups = layer.out_channels if layer.kind == "depthwise" else 1
    return layer.weight.reshape(groups, layer.out_channels // groups, -1)


def _execute(
    layer: FloatLayer | FloatPool | Int8Layer | Int8Pool, x: Array, outside: Array
) -> Array:
    starts = range(0, len(x), _BATCH)
    return np.concatenate([reference.execute(layer, x[i : i + _BATCH], outside) for i in starts])


def _windows(layer: FloatLayer, x: Array, outside: Array, places: Places | None) -> Array:
    """What the layer's windows see: (1, P, I), or (C, P, 9) of a depthwise layer."""
    if places is None:
        return x[np.newaxis]
    rows, columns = (place * layer.stride for place in places)
    taps = layer.kernel**2
    found = np.empty((*rows.shape, layer.in_channels, taps), x.dtype)  # (N, places, C, taps)
    for start in range(0, len(x), _BATCH):
        part = slice(start, start + _BATCH)
        padded = reference.pad(layer, x[part], outside)
        images = np.arange(len(padded))[:, np.newaxis]
        for tap in range(taps):
            row, column = divmod(tap, layer.kernel)
            found[part, ..., tap] = padded[images, :, rows[part] + row, columns[part] + column]
    found = found.reshape(-1, layer.in_channels, taps)
    if layer.kind == "depthwise":
        return np.ascontiguousarray(found.swapaxes(0, 1))
    return found.reshape(1, len(found), -1)
