"""What a data set is made of: labelled picture files, their classes and their order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lucid.errors import DataError

SplitName = Literal["train", "validation", "test"]

# What folders and manifests call the splits, in any case.
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
# Control characters, and the surrogates that stand for bytes that are no text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_NAME = 255
_NAMED_IN_A_WARNING = 5


@dataclass(frozen=True)
class Sample:
    """A picture file, the index of its class, and the split its source puts it in, if any."""

    path: Path
    label: int
    split: SplitName | None = None


@dataclass(frozen=True)
class Dataset:
    """Labelled picture files, in an order that depends on their names alone.

    Args:
        source: what was opened.
        root: the folder that names are relative to.
        class_names: sorted naturally; a label is an index into it.
        samples: sorted naturally by name; each path stands here once.
        stray: files that were found but belong to no class, or aren't pictures by their suffix.
        warnings: what else is wrong with the source, one sentence each.
    """

    source: Path
    root: Path
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    stray: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> frozenset[SplitName]:
        """The splits that the source itself gives; empty when it gives none."""
        return frozenset(sample.split for sample in self.samples if sample.split is not None)

    def name(self, path: Path) -> str:
        """A file's path relative to ``root``: text that JSON, pages and checkpoints can hold."""
        return relative_name(path, self.root)


class Record(NamedTuple):
    """A picture as a folder or manifest names it, before classes are numbered."""

    path: Path
    class_name: str
    split: SplitName | None


def build_dataset(
    source: Path,
    root: Path,
    records: Iterable[Record],
    *,
    declared: Iterable[str] = (),
    stray: Iterable[Path] = (),
    warnings: Iterable[str] = (),
) -> Dataset:
    """Number the classes of all splits together, so that no label shifts between them.

    Args:
        source: what was opened.
        root: the folder that names are relative to.
        records: the pictures found.
        declared: classes that exist even if no picture has them, such as empty folders.
        stray: files that are no samples.
        warnings: of the reader.
    Raises:
        DataError: there is no picture.
    """
    records = list(records)
    if not records:
        raise DataError(f"{source}: there are no pictures in it")
    class_names = sorted({record.class_name for record in records} | set(declared), key=natural_key)
    labels = {name: label for label, name in enumerate(class_names)}
    # Some rows of a manifest may leave the split out; what isn't held out is for training.
    default: SplitName | None = "train" if any(record.split for record in records) else None
    samples = [
        Sample(record.path, labels[record.class_name], record.split or default)
        for record in records
    ]
    samples.sort(key=lambda sample: natural_key(relative_name(sample.path, root)))
    return Dataset(
        source=source,
        root=root,
        class_names=tuple(class_names),
        samples=tuple(samples),
        stray=tuple(sorted(stray, key=lambda path: natural_key(relative_name(path, root)))),
        warnings=(*warnings, *_class_warnings(class_names, samples)),
    )


def relative_name(path: Path, root: Path) -> str:
    """``path`` relative to ``root`` where it lies inside, with ``/`` on every system.

    What is no text in a file's name stands as an escape such as ``\\x1b``.
    """
    name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def natural_key(text: str) -> tuple[object, ...]:
    """Sort key by which ``img2`` comes before ``img10``, whatever the case and the locale."""
    # Odd parts are digits. Their length is compared before they are, so no number is too long.
    parts = re.split("([0-9]+)", text.casefold())
    for index in range(1, len(parts), 2):
        digits = parts[index].lstrip("0")
        parts[index] = f"{len(digits):04d}{digits}"
    return (parts, text)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden or was left behind by an operating system."""
    return name.startswith(".") or name.casefold() in _LITTER


def clean_class_name(name: str, where: str) -> str:
    """A class name in one Unicode form, so that macOS and Linux spell it alike.

    Raises:
        DataError: it is empty, very long, or holds bytes or control characters that are no text.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name.isprintable():
        raise DataError(f"{where}: the class name {name[:40]!a} is no plain text; rename it")
    if not 0 < len(name) <= _MAX_NAME:
        raise DataError(
            f"{where}: a class name has 1 to {_MAX_NAME} characters, this one has {len(name)}"
        )
    return name


def list_some(items: Iterable[str]) -> str:
    """The first few items, and how many more there are."""
    items = list(items)
    more = len(items) - _NAMED_IN_A_WARNING
    shown = ", ".join(items[:_NAMED_IN_A_WARNING])
    return f"{shown} and {more:,} more" if more > 0 else shown


def quote_names(names: Iterable[str]) -> str:
    """The first few names, quoted, and how many more there are."""
    return list_some(f"'{name}'" for name in names)


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """``"1 picture"``, ``"2 pictures"``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _class_warnings(class_names: list[str], samples: list[Sample]) -> list[str]:
    """One sentence for each way in which classes are missing somewhere."""
    if len(class_names) == 1:
        return [f"there is only one class, '{class_names[0]}'; a classifier needs at least two"]
    present = {(sample.split, sample.label) for sample in samples}
    warnings = []
    for split in sorted({split for split, _ in present}, key=str):
        missing = [name for label, name in enumerate(class_names) if (split, label) not in present]
        if missing:
            place = f" in {split}" if split else ""
            classes = "class" if len(missing) == 1 else "classes"
            warnings.append(f"no picture{place} of the {classes} {quote_names(missing)}")
    spellings: dict[str, list[str]] = {}
    for name in class_names:
        spellings.setdefault(name.casefold(), []).append(name)
    warnings += [
        f"the classes {quote_names(names)} differ only in case; are they one?"
        for names in spellings.values()
        if len(names) > 1
    ]
    return warnings
