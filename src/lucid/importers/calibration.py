"""The images on which the statistics of folded batch norms are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucid.errors import DataError, ImageError
from lucid.images import IMAGE_SUFFIXES, Preprocessing, load

IMAGES = 64
GENERATED_IMAGES = 16
_MAX_GENERATED_SIDE = 256  # statistics hardly depend on the size


def calibration_images(folder: str | Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """At most 64 pictures, spread evenly over a folder and those in it; uint8 (N, R, R, C).

    Raises:
        DataError: it is no folder, or holds no picture that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of calibration images")
    try:
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.casefold() in IMAGE_SUFFIXES and path.is_file()
        )
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror})") from error
    count = min(_count(IMAGES, preprocessing.resolution), len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    loaded, refused = [], ""
    for path in chosen:
        try:
            loaded.append(load(path, preprocessing))
        except ImageError as error:
            refused = refused or f"; {error}"
    if not loaded:
        raise DataError(f"{folder}: no calibration image in it can be read{refused}")
    return np.stack(loaded)


def generated_images(channels: int, side: int) -> NDArray[np.uint8]:
    """Pictures that show nothing but have the statistics of photos, (N, S, S, channels).

    Amplitudes fall with the frequency (Field 1987, doi:10.1364/JOSAA.4.002379), contrast and
    brightness vary. The same every time.
    """
    generator = np.random.default_rng(0)
    side = min(side, _MAX_GENERATED_SIDE)
    count = _count(GENERATED_IMAGES, side)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf  # brightness is added below
    noise = generator.standard_normal((count, channels, side, side))
    noise = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(side, side))
    noise += 3 * noise.mean(axis=1, keepdims=True)  # a photo's channels vary together
    noise /= np.maximum(noise.std(axis=(1, 2, 3), keepdims=True), 1e-9)
    contrast = generator.uniform(30, 80, (count, 1, 1, 1))
    brightness = generator.uniform(80, 160, (count, 1, 1, 1))
    pixels = np.clip(noise * contrast + brightness, 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _count(most: int, side: int) -> int:
    """How many images of this side go through a network at once: ``most``, fewer above 224."""
    return max(2, min(most, most * 224**2 // side**2))
