"""Class names for imported weights: from a file, from the source, or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lucid.checkpoint import check_class_names
from lucid.errors import CheckpointError
from lucid.files import open_file

BACKGROUND = "background"
NO_CLASSIFIER = "no classifier"

_MAX_FILE_BYTES = 4 * 1024**2
_IMAGENET_AND_BACKGROUND = 1001


def read_labels(path: str | Path) -> tuple[str, ...]:
    """The lines of a text file, one class name each.

    Raises:
        CheckpointError: it can't be read, is no UTF-8 or holds no name.
    """
    with open_file(path, max_bytes=_MAX_FILE_BYTES, error=CheckpointError) as file:
        content = file.read()
    try:
        names = tuple(line.strip() for line in content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: expected UTF-8 text, a class name a line") from error
    names = tuple(name for name in names if name)
    if not names:
        raise CheckpointError(f"{path}: holds no class name")
    return names


def fit_names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """One unique name for each of ``classes`` outputs.

    Without names they are numbered. TensorFlow's networks for ImageNet have a first class,
    background, that many lists of names leave out. A name that stands there twice, such as crane in
    ImageNet, gets its number behind it the second time.

    Raises:
        CheckpointError: there are more or fewer names than outputs, or one can't be shown.
    """
    if not names:
        names = [f"class {number}" for number in range(classes)]
        if classes == _IMAGENET_AND_BACKGROUND:
            names[0] = BACKGROUND
    elif classes == _IMAGENET_AND_BACKGROUND and len(names) == classes - 1:
        names = [BACKGROUND, *names]
    if len(names) != classes:
        raise CheckpointError(f"{len(names)} class names for {classes} outputs; expected as many")
    fitted = tuple(_unique(names))
    check_class_names(fitted)
    return fitted


def _unique(names: Iterable[str]) -> Iterable[str]:
    seen = set()
    for number, name in enumerate(names):
        unique = f"{name} ({number})" if name in seen else name
        seen.add(unique)
        yield unique
