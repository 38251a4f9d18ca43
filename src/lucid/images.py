"""From a picture file to what a network sees: one code for training, server and prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucid.checks import check_choice, check_integer, check_names, check_number
from lucid.decoding import (
    COLORS,
    DECODERS,
    IMAGE_SUFFIXES,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    Box,
    Color,
    Decoder,
    Picture,
    Source,
    decode,
    read_image,
    to_color,
)
from lucid.errors import ConfigError, ShapeError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Picture",
    "Preprocessing",
    "decode",
    "load",
    "load_sized",
    "load_squashed",
    "normalise",
    "preprocess",
    "read_image",
]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Pixels = NDArray[np.uint8]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "lanczos")
MAX_RESOLUTION = 8192


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the network sees it; a checkpoint stores it.

    Args:
        resolution: input side in pixels.
        crop_fraction: side of the centred square that is kept, as a share of the shorter side,
            0.01 to 1.
        interpolation: of the resize; all but ``"nearest"`` are antialiased.
        color: ``"RGB"`` or ``"L"`` (grey).
        mean: of pixel / 255, one a channel, 0 to 1; 0.5 each when left out.
        std: of pixel / 255, one a channel, 0.000001 to 1000; 0.5 each when left out.
        decoder: ``"scaled"``: a JPEG larger than needed is decoded at the smallest scale that
            leaves twice the pixels the resize needs; ``"full"``: every pixel is decoded.
    Raises:
        ConfigError: a field has the wrong type or is out of range.
    """

    resolution: int
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    color: Color = "RGB"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    decoder: Decoder = "scaled"

    def __post_init__(self) -> None:
        check_integer("resolution", self.resolution, 1, MAX_RESOLUTION)
        check_number("crop_fraction", self.crop_fraction, "0.01 to 1", lambda v: 0.01 <= v <= 1)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("color", self.color, COLORS)
        check_choice("decoder", self.decoder, DECODERS)
        self._fill_channels("mean", "0 to 1", lambda value: 0 <= value <= 1)
        self._fill_channels("std", "0.000001 to 1000", lambda value: 1e-6 <= value <= 1e3)

    @property
    def channels(self) -> int:
        """Channels of the network's input: 3 for RGB, 1 for L."""
        return len(self.color)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON values."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from ``to_dict``; raises ConfigError that names what is wrong."""
        known = [field.name for field in fields(cls)]
        check_names("preprocessing", values, known, required=["resolution"])
        return cls(**values)

    def _fill_channels(self, name: str, expected: str, accepts: Callable[[float], bool]) -> None:
        """Check the per-channel values of a field and keep them as a tuple of floats."""
        values = getattr(self, name)
        if not isinstance(values, tuple | list) or len(values) not in (0, self.channels):
            raise ConfigError(
                f"{name} must hold {self.channels} numbers, one a channel of {self.color}"
            )
        for value in values:
            check_number(name, value, expected, accepts)
        filled = tuple(float(value) for value in values) or (0.5,) * self.channels
        object.__setattr__(self, name, filled)


def preprocess(image: Image.Image, preprocessing: Preprocessing, box: Box | None = None) -> Pixels:
    """Cut the centred square out of an upright image and resize it, in one antialiased step.

    Args:
        image: any mode that ``decode`` understands.
        preprocessing: its ``crop_fraction``, ``resolution``, ``interpolation`` and ``color`` hold.
        box: (left, top, right, bottom) of the picture in ``image``, in pixels; all of it by
            default.
    Returns:
        uint8 (resolution, resolution, C).
    """
    left, top, right, bottom = box or (0, 0, *image.size)
    half = preprocessing.crop_fraction * min(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    square = (max(left, x - half), max(top, y - half), min(right, x + half), min(bottom, y + half))
    image = to_color(image, preprocessing.color, "image")
    return _resize(image, preprocessing.resolution, preprocessing.interpolation, square)


def load(source: Source, preprocessing: Preprocessing, *, name: str | None = None) -> Pixels:
    """Decode and preprocess a picture file; uint8 (resolution, resolution, C).

    Raises:
        ImageError: as ``decode``.
    """
    return load_sized(source, preprocessing, name=name)[0]


def load_sized(
    source: Source, preprocessing: Preprocessing, *, name: str | None = None
) -> tuple[Pixels, tuple[int, int]]:
    """As ``load``, and the upright picture's (width, height) in pixels."""
    picture = decode(
        source,
        name=name,
        needed_side=math.ceil(preprocessing.resolution / preprocessing.crop_fraction),
        decoder=preprocessing.decoder,
        color=preprocessing.color,
    )
    return preprocess(picture.image, preprocessing, picture.box), picture.size


def load_squashed(
    source: Source,
    side: int,
    *,
    name: str | None = None,
    interpolation: Interpolation = "bilinear",
    decoder: Decoder = "scaled",
    color: Color = "RGB",
) -> tuple[Pixels, tuple[int, int]]:
    """Decode the whole picture squashed to a square, for augmentation that crops it later.

    Returns:
        uint8 (side, side, C) and the upright picture's (width, height) in pixels.
    Raises:
        ImageError: as ``decode``.
    """
    picture = decode(source, name=name, needed_side=side, decoder=decoder, color=color)
    return _resize(picture.image, side, interpolation, picture.box), picture.size


def normalise(batch: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn pixels into the network's input: (pixel / 255 - mean) / std, a channel at a time.

    Args:
        batch: uint8 (N, H, W, C).
        preprocessing: its ``mean`` and ``std`` hold.
    Returns:
        float32 (N, C, H, W), contiguous.
    Raises:
        ShapeError: another dtype, rank or number of channels.
    """
    channels = preprocessing.channels
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != channels:
        raise ShapeError(
            f"normalise expects uint8 (N, H, W, {channels}), got {batch.dtype} {batch.shape}"
        )
    mean = np.asarray(preprocessing.mean, np.float32)[:, None, None]  # (C, 1, 1)
    std = np.asarray(preprocessing.std, np.float32)[:, None, None]
    planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)  # (N, C, H, W)
    planes /= 255
    planes -= mean
    planes /= std
    return planes


def _resize(image: Image.Image, side: int, interpolation: Interpolation, box: Box) -> Pixels:
    resample = Image.Resampling[interpolation.upper()]
    pixels = np.array(image.resize((side, side), resample, box))
    return pixels.reshape(side, side, -1)
