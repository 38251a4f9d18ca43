"""Pictures made by the tests: smooth random colours, like photos enough for decoders and hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (48, 40), tint: str = "white") -> Image.Image:
    """An RGB picture of ``size`` (width, height); each seed gives another one."""
    values = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    image = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(image, Image.new("RGB", size, tint), 0.4)


def write_photo(path: Path, seed: int, size: tuple[int, int] = (48, 40), **options: object) -> Path:
    """Write ``photo`` in the format of the path's suffix, into folders made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(seed, size).save(path, **options)
    return path


def write_classes(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """A folder of class folders with so many different pictures each."""
    seed = first_seed
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_photo(root / name / f"{number}.png", seed)
            seed += 1
    return root
