"""Images decoded once and kept as uint8 on the disk, in a folder of bounded size.

A cache file holds the images of one data set, decoded one way: all pixels (N, S, S, C), the sizes
int32 (N, 2), a JSON list of the indices that can't be read, and a footer. Its name is a hash of all
that decides its content; it takes that name when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from lucid.checks import check_choice, check_integer
from lucid.decoding import COLORS, DECODERS, Color, Decoder
from lucid.errors import DataError, ImageError, OutputError
from lucid.files import atomic_path, cache_folder
from lucid.images import (
    INTERPOLATIONS,
    MAX_RESOLUTION,
    Interpolation,
    Pixels,
    Preprocessing,
    load_sized,
    load_squashed,
)
from lucid.parallel import map_ahead

__all__ = ["DecodedImages", "Squashed", "open_cache"]

Progress = Callable[[int, int], None]
Sizes = NDArray[np.int32]
_Decoded = tuple[Pixels, tuple[int, int]]

DEFAULT_MAX_BYTES = 20 * 10**9

_SUFFIX = ".images"
_FOOTER = struct.Struct("<8sQ")  # magic, bytes of the JSON before it
_MAGIC = b"lucidim1"  # another layout gets another number
_PART_LIFE_SECONDS = 24 * 3600  # a killed process leaves its unfinished file behind


@dataclass(frozen=True)
class Squashed:
    """Decode whole images, squashed to ``side`` x ``side`` pixels; augmentation crops them later.

    Raises:
        ConfigError: a field has the wrong type or is out of range.
    """

    side: int
    color: Color = "RGB"
    interpolation: Interpolation = "bilinear"
    decoder: Decoder = "scaled"

    def __post_init__(self) -> None:
        check_integer("side", self.side, 1, MAX_RESOLUTION)
        check_choice("color", self.color, COLORS)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("decoder", self.decoder, DECODERS)


Decoding = Squashed | Preprocessing


@dataclass
class DecodedImages:
    """The images of a data set, from the cache or, where there is no room, decoded when taken.

    Attributes:
        paths: of the N picture files.
        decoding: how they are decoded.
        threads: that decode; None is one for each processor core.
        pixels: uint8 (N, S, S, C), read-only, on the disk; None when decoded at each take.
        sizes: int32 (N, 2), width and height of the upright pictures in their files; None likewise.
        failed: why an image can't be read, by its index; its pixels and size are zeros. Without a
            cache a failure is found when the image is taken.
        uncached: why there is no cache; empty when there is one.
    """

    paths: Sequence[Path]
    decoding: Decoding
    threads: int | None = None
    pixels: Pixels | None = None
    sizes: Sizes | None = None
    failed: dict[int, str] = field(default_factory=dict)
    uncached: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def check(self) -> None:
        """Raise DataError, which names a file, if an image is known to be unreadable."""
        for reason in self.failed.values():
            raise DataError(f"{reason}; it could be read before, bring it back")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C) of one image."""
        return _shape(self.decoding)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> tuple[Pixels, Sizes]:
        """Pixels uint8 (n, S, S, C) and sizes int32 (n, 2) of the images at ``indices``."""
        chosen = np.asarray(indices, dtype=np.intp)
        if self.pixels is not None and self.sizes is not None:
            return np.asarray(self.pixels[chosen]), self.sizes[chosen]
        pixels = np.zeros((len(chosen), *self.shape), np.uint8)
        sizes = np.zeros((len(chosen), 2), np.int32)
        paths = [self.paths[index] for index in chosen]
        with closing(_decode_all(paths, self.decoding, self.threads)) as results:
            for row, result in enumerate(results):
                if isinstance(result, str):
                    self.failed[int(chosen[row])] = result
                else:
                    pixels[row], sizes[row] = result
        return pixels, sizes


def open_cache(
    paths: Iterable[str | Path],
    decoding: Decoding,
    *,
    folder: str | Path | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DecodedImages:
    """Decode images, or find them decoded already.

    Args:
        paths: picture files; one that can't be read is noted in ``failed``.
        decoding: whole images squashed to a square, or a network's preprocessing.
        folder: of the cache files; ``decoded`` in the cache folder of lucid by default.
        max_bytes: of all cache files together, the least recently used go first; 20 GB by default,
            at most half of what the disk could give.
        threads: that decode; one for each processor core by default.
        progress: called with (images done, images in all) while they are decoded.
    Raises:
        DataError: there are no images.
    """
    images = DecodedImages([Path(path) for path in paths], decoding, threads)
    if not images.paths:
        raise DataError("there are no images to decode")
    folder = cache_folder("decoded") if folder is None else Path(folder)
    entry = folder / (_key(images.paths, decoding) + _SUFFIX)
    cached = _read_entry(entry, images)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, _pixel_bytes(images), max_bytes)
        _write_entry(entry, images, progress)
        reason = f"{entry} has gone again"
    except (OutputError, OSError) as error:
        reason = str(error)
    # Even after an error: Windows replaces no file that another process reads already.
    cached = _read_entry(entry, images)
    if cached is not None:
        return cached
    return replace(images, uncached=f"images are decoded at each use: {reason}")


def _shape(decoding: Decoding) -> tuple[int, int, int]:
    side = decoding.side if isinstance(decoding, Squashed) else decoding.resolution
    return side, side, len(decoding.color)


def _decode_all(
    paths: Iterable[Path], decoding: Decoding, threads: int | None
) -> Generator[_Decoded | str]:
    return map_ahead(lambda path: _decode(path, decoding), paths, threads=threads)


def _decode(path: Path, decoding: Decoding) -> _Decoded | str:
    """Pixels and (width, height) of a picture, or why it can't be read."""
    try:
        if isinstance(decoding, Preprocessing):
            return load_sized(path, decoding)
        return load_squashed(path, **asdict(decoding))
    except ImageError as error:
        return str(error)


def _key(paths: Sequence[Path], decoding: Decoding) -> str:
    """A hash of the files (name, size, time of change) and of how they are decoded.

    Names are relative to the folder that all files share, so a data set may be moved.
    """
    settings = asdict(decoding)
    settings.pop("mean", None)  # these come after decoding
    settings.pop("std", None)
    absolute = [path.absolute() for path in paths]
    try:
        root = os.path.commonpath([path.parent for path in absolute])
    except ValueError:  # on several drives of Windows
        root = ""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(json.dumps([_MAGIC.decode(), PIL.__version__, settings]).encode())
    for path in absolute:
        try:
            status = path.stat()
            state = [status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            state = []
        digest.update(json.dumps([str(path).removeprefix(root), *state]).encode())
    return digest.hexdigest()


def _pixel_bytes(images: DecodedImages) -> int:
    return len(images) * math.prod(images.shape)


def _make_room(folder: Path, needed: int, max_bytes: int | None) -> None:
    """Remove the least recently used cache files until ``needed`` bytes fit the bound and the disk.

    Raises:
        OutputError: they can't fit; then nothing was removed but unfinished files.
    """
    for part in folder.glob(".lucid-*.part*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _PART_LIFE_SECONDS:
                part.unlink()
    entries = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process may remove it
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    used = sum(size for _, size, _ in entries)
    free = shutil.disk_usage(folder).free
    limit = min(DEFAULT_MAX_BYTES, (free + used) // 2) if max_bytes is None else max_bytes
    if needed > min(limit, free + used):
        raise OutputError(
            f"{folder}: {needed / 1e9:.1f} GB are needed, "
            f"{min(limit, free + used) / 1e9:.1f} GB are allowed"
        )
    for _, size, path in sorted(entries):
        if used + needed <= limit and needed <= free:
            return
        with suppress(OSError):  # in use on Windows
            path.unlink()
            used -= size
            free += size


def _write_entry(entry: Path, images: DecodedImages, progress: Progress | None) -> None:
    """Decode all images into a cache file; raises OutputError."""
    blank = np.zeros(images.shape, np.uint8)
    sizes = np.zeros((len(images), 2), np.int32)
    failed = []
    results = _decode_all(images.paths, images.decoding, images.threads)
    with closing(results), atomic_path(entry) as part, part.open("wb") as file:
        for index, result in enumerate(results):
            if isinstance(result, str):
                failed.append(index)
                pixels = blank
            else:
                pixels, sizes[index] = result
            file.write(pixels.data)
            if progress is not None:
                progress(index + 1, len(images))
        text = json.dumps(failed).encode()
        file.write(sizes.data)
        file.write(text)
        file.write(_FOOTER.pack(_MAGIC, len(text)))


def _read_entry(entry: Path, images: DecodedImages) -> DecodedImages | None:
    """The images with what a cache file holds of them; None if there is none that is whole."""
    count = len(images)
    start = _pixel_bytes(images)  # of the sizes
    try:
        with entry.open("rb") as file:
            size = file.seek(-_FOOTER.size, os.SEEK_END) + _FOOTER.size
            magic, length = _FOOTER.unpack(file.read())
            if magic != _MAGIC or size != start + 8 * count + length + _FOOTER.size:
                return None
            file.seek(start)
            sizes = np.frombuffer(file.read(8 * count), np.int32).reshape(count, 2)
            indices = json.loads(file.read(length))
        # Decoded again, since the reason may name a folder that has moved or be gone.
        failures = {index: _decode(images.paths[index], images.decoding) for index in indices}
        pixels = np.memmap(entry, np.uint8, "r", shape=(count, *images.shape))
        with suppress(OSError):  # a folder that others share and we only read
            os.utime(entry)  # used now
    except (OSError, ValueError, TypeError, IndexError):
        return None
    failed = {index: reason for index, reason in failures.items() if isinstance(reason, str)}
    if len(failed) < len(failures):
        return None
    return replace(images, pixels=pixels, sizes=sizes, failed=failed)
