"""What is measured on when there is nothing real: pictures like photos, networks like trained ones.

Constant data would flatter: processors run faster on zeros, and saturated layers compute nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.images import Pixels, Preprocessing, normalise
from lucid.network import FloatLayer, FloatNetwork, FloatPool, layers

__all__ = ["photo_like", "settled_network"]


def photo_like(count: int, height: int, width: int, *, channels: int = 3, seed: int = 0) -> Pixels:
    """Random pictures whose spectrum falls as that of photos, uint8 (count, H, W, channels).

    The sum of noise in octaves, coarse ones stronger (Field 1987, JOSA A 4(12): amplitudes of
    natural images fall with 1 / frequency), with a contrast and brightness for each picture.
    """
    random = np.random.default_rng(seed)
    pictures = np.empty((count, height, width, channels), np.uint8)
    for picture in pictures:
        values = np.zeros((height, width, channels), np.float32)
        side = 2
        while side < 2 * max(height, width):
            noise = random.standard_normal((min(side, height), min(side, width), channels))
            values += _resized(noise.astype(np.float32), height, width) / side**0.5
            side *= 2
        values = (values - values.mean()) / max(float(values.std()), 1e-6)
        contrast, brightness = random.uniform(30, 70), random.uniform(90, 160)
        picture[:] = np.clip(values * contrast + brightness, 0, 255)
    return pictures


def settled_network(
    arguments: MobileNetArguments, resolution: int, *, seed: int = 0
) -> FloatNetwork:
    """Random weights, scaled so that every channel of every layer varies with the image.

    Each output of a convolution has the mean 1 and the standard deviation 1 over pictures like
    photos, before its activation. With default scales a random MobileNet's logits hardly depend on
    the image; with means near 0 they are chaotic: each layer would multiply rounding errors, and
    int8 or bfloat16 could not agree with float32 as they do on trained networks.
    """
    random = np.random.default_rng(seed)
    channels = arguments.in_channels
    preprocessing = Preprocessing(resolution, color="RGB" if channels == 3 else "L")
    side = min(resolution, 96)  # statistics need no more
    x = normalise(photo_like(8, side, side, channels=channels, seed=seed), preprocessing)
    built: list[FloatLayer | FloatPool] = []
    for layer in layers(arguments):
        outside = np.zeros(layer.in_channels, np.float32)
        if layer.kind == "pool":
            found: FloatLayer | FloatPool = FloatPool(**layer.to_dict())
        else:
            weight = random.standard_normal(layer.weight_shape, np.float32)
            weight /= np.float32(np.prod(layer.weight_shape[1:]) ** 0.5)
            zero = np.zeros(layer.out_channels, np.float32)
            linear = layer.to_dict() | {"activation": layer.activation and "relu"}
            # Of the sums, which an activation would cut: those of both signs of the weights.
            both = [
                reference.execute(FloatLayer(**linear, weight=sign * weight, bias=zero), x, outside)
                for sign in (1, -1)
            ]
            sums = both[0] - both[1] if layer.activation else both[0]
            axes = (0, *range(2, sums.ndim))
            factor = (1 / np.maximum(sums.std(axis=axes), 1e-3)).astype(np.float32)
            weight *= factor.reshape(-1, *[1] * (weight.ndim - 1))
            bias = (1 - sums.mean(axis=axes) * factor).astype(np.float32)
            found = FloatLayer(**layer.to_dict(), weight=weight, bias=bias)
        built.append(found)
        x = reference.execute(found, x, outside)
    return FloatNetwork(
        layers=tuple(built),
        class_names=tuple(f"class {index}" for index in range(arguments.num_classes)),
        preprocessing=preprocessing,
        provenance={"random": {"seed": seed}},
    )


def _resized(noise: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """(h, w, C) -> (height, width, C)."""
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in np.moveaxis(noise, -1, 0)
    ]
    return np.stack(planes, axis=-1)
