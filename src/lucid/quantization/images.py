"""Which pictures a network is calibrated on: chosen the same way every time, and recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from lucid.checks import check_integer
from lucid.data.manifests import MANIFEST_SUFFIXES
from lucid.data.samples import Dataset, Record, Sample, build_dataset, is_litter
from lucid.data.sources import find_pictures, open_data
from lucid.description import JSON
from lucid.errors import DataError, ImageError
from lucid.images import IMAGE_SUFFIXES, Pixels, Preprocessing, load
from lucid.network import FloatNetwork, sized_layers, totals
from lucid.parallel import map_ahead

__all__ = ["LoadedImages", "affordable", "load_images", "open_pictures", "ranked"]

MAX_IMAGES = 100_000
# All images pass a layer before any passes the next; this much memory holds its input and output.
_MEMORY = 2 * 1024**3
_BYTES_A_VALUE = 5  # float32 and uint8


@dataclass(frozen=True)
class LoadedImages:
    """Pictures as a network sees them.

    Args:
        samples: those that could be read.
        names: of their files, relative to the data's folder.
        pixels: uint8 (N, H, W, C).
        unreadable: why each of the others could not be read.
    """

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    pixels: Pixels
    unreadable: tuple[str, ...]

    def to_json(self) -> dict[str, JSON]:
        """What a network remembers of them: names, and the SHA-256 of all pixels in turn."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()
        return {"images": list[JSON](self.names), "pixels_sha256": digest}


def open_pictures(source: str | Path) -> Dataset:
    """Open a data set as ``lucid.data.open_data`` does, or a folder of pictures without classes.

    Raises:
        DataError: there is no picture.
    """
    path = Path(source).expanduser()
    if path.is_dir() and _is_flat(path):
        pictures = find_pictures(path)
        return build_dataset(path, path, [Record(picture, "picture", None) for picture in pictures])
    return open_data(source)


def ranked(dataset: Dataset, samples: Iterable[Sample], *, seed: int = 0) -> Iterator[Sample]:
    """Pictures in the order in which they are taken: one of each class in turn.

    Within a class the order follows from the SHA-256 of seed and name, so a file more or less
    changes little.
    """

    def rank(sample: Sample) -> bytes:
        return hashlib.sha256(f"{seed}/{dataset.name(sample.path)}".encode()).digest()

    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    columns = [sorted(by_class[label], key=rank) for label in sorted(by_class)]
    return (sample for row in zip_longest(*columns) for sample in row if sample is not None)


def load_images(
    dataset: Dataset,
    samples: Iterable[Sample],
    preprocessing: Preprocessing,
    count: int,
) -> LoadedImages:
    """Decode the first ``count`` pictures that can be read.

    Raises:
        ConfigError: ``count`` is out of range.
        DataError: none can be read.
    """
    check_integer("images", count, 1, MAX_IMAGES)
    read: list[Sample] = []
    pixels: list[Pixels] = []
    unreadable: list[str] = []

    def decode(sample: Sample) -> tuple[Sample, Pixels | str]:
        try:
            return sample, load(sample.path, preprocessing)
        except ImageError as error:
            return sample, str(error)

    with closing(map_ahead(decode, samples)) as decoded:
        for sample, found in decoded:
            if isinstance(found, str):
                unreadable.append(found)
                continue
            read.append(sample)
            pixels.append(found)
            if len(read) == count:
                break
    if not read:
        reason = f"; {unreadable[0]}" if unreadable else ""
        raise DataError(f"{dataset.source}: no picture of it can be used{reason}")
    names = tuple(dataset.name(sample.path) for sample in read)
    return LoadedImages(tuple(read), names, np.stack(pixels), tuple(unreadable))


def affordable(network: FloatNetwork, count: int) -> int:
    """How many of ``count`` images of the network's resolution fit memory at once, at least 1.

    Raises:
        ConfigError: ``count`` is out of range.
    """
    check_integer("images", count, 1, MAX_IMAGES)
    side = network.preprocessing.resolution
    peak = totals(sized_layers(network.layers, side, side)).peak.activations
    return max(1, min(count, _MEMORY // (_BYTES_A_VALUE * peak)))


def _is_flat(folder: Path) -> bool:
    """Whether pictures lie in a folder with neither class folders nor a manifest beside them."""
    try:
        entries = [entry for entry in folder.iterdir() if not is_litter(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: this folder can't be read ({error.strerror})") from error
    suffixes = {entry.suffix.casefold() for entry in entries if entry.is_file()}
    is_divided = any(entry.is_dir() for entry in entries) or suffixes & MANIFEST_SUFFIXES
    return bool(suffixes & IMAGE_SUFFIXES) and not is_divided
