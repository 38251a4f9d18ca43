"""Reading every picture of a data set once, for what an audit wants to know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lucid.data.duplicates import SIDE, Fingerprint, fingerprint
from lucid.data.samples import Dataset
from lucid.errors import ImageError
from lucid.files import open_file
from lucid.images import MAX_FILE_BYTES, Picture, decode
from lucid.parallel import map_ahead

# Called with the number of pictures done and the number of all.
Progress = Callable[[int, int], None]

_TRAITS_OF_MODE = {
    "1": "greyscale",
    "L": "greyscale",
    "LA": "greyscale",
    "I": "greyscale",
    "P": "palette",
    "PA": "palette",
    "CMYK": "cmyk",
}


@dataclass(frozen=True)
class Inspection:
    """What one file turned out to be.

    ``error`` says why it can't be read, without its name; then the rest is empty. ``digest`` is the
    SHA-256 of the file, ``size`` (width, height) of the upright picture, ``traits`` the kinds of
    notes that an audit makes of it.
    """

    error: str | None = None
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    traits: tuple[str, ...] = ()
    fingerprint: Fingerprint | None = None


def inspect_all(dataset: Dataset, progress: Progress | None = None) -> list[Inspection]:
    """Read and decode each file once, several at a time; one a sample, in their order.

    Raises:
        MissingDependencyError: imagehash is not installed.
    """
    paths = [sample.path for sample in dataset.samples]
    inspections: list[Inspection] = []
    with closing(map_ahead(inspect, paths)) as results:
        for inspection in results:
            inspections.append(inspection)
            if progress:
                progress(len(inspections), len(paths))
    return inspections


def inspect(path: Path) -> Inspection:
    """Read and decode one file; a file that can't be read is a result, not an error."""
    try:
        with open_file(path, max_bytes=MAX_FILE_BYTES, error=ImageError) as file:
            content = file.read()
        picture = decode(content, name=str(path), needed_side=SIDE, color="L")
    except ImageError as error:
        return Inspection(error=str(error).removeprefix(f"{path}: "))
    except OSError as error:  # the disk or the network failed while reading
        return Inspection(error=f"can't be read ({error.strerror})")
    return Inspection(
        digest=hashlib.sha256(content).digest(),
        size=picture.size,
        traits=_traits(picture),
        fingerprint=fingerprint(picture.image),
    )


def _traits(picture: Picture) -> tuple[str, ...]:
    trait = _TRAITS_OF_MODE.get(picture.mode.partition(";")[0])
    return (
        *((trait,) if trait else ()),
        *(("16-bit",) if picture.bits == 16 else ()),
        *(("animated",) if picture.animated else ()),
        *(("rotated",) if picture.orientation != 1 else ()),
    )
