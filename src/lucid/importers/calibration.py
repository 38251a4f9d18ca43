"""The images on which the statistics of folded batch norms are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucid.errors import DataError, ImageError
from lucid.images import IMAGE_SUFFIXES, Preprocessing, load
from lucid.importers.statistics import count_images

IMAGES = 64


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
    count = min(count_images(IMAGES, preprocessing.resolution), len(paths))
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
