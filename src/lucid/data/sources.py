"""Opening a data set: a folder of class folders, a manifest, or an archive of either.

A folder is read like this, hidden files and the litter of operating systems aside:

- ``root/<class>/**/<picture>``: class folders; pictures may lie deeper in them.
- ``root/<split>/<class>/**/<picture>``: with the names of ``SPLIT_NAMES`` in any case.
- A single folder that holds folders, as in most archives, stands for what is in it.
- A manifest beside the pictures is read when there are no two class folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lucid.data.archives import extract, is_archive
from lucid.data.manifests import MANIFEST_SUFFIXES, read_manifest
from lucid.data.samples import (
    SPLIT_NAMES,
    Dataset,
    Record,
    SplitName,
    build_dataset,
    clean_class_name,
    is_litter,
    natural_key,
    quote_names,
)
from lucid.errors import DataError, suggest
from lucid.images import IMAGE_SUFFIXES

_MAX_WRAPPERS = 4


def open_data(source: str | Path) -> Dataset:
    """List the pictures of a data set, their classes and their splits; no picture is read.

    Args:
        source: a folder of class folders, with or without split folders around them; a ``.csv``
            or ``.jsonl`` manifest with the columns path, label and, where wanted, split; or a
            ``.zip`` or ``.tar`` (also compressed) of either, which is unpacked into the user's
            cache folder once.
    Raises:
        DataError: there is no such file or folder, it holds no pictures, or it isn't laid out
            like this; the message says what was found.
    """
    path = Path(source).expanduser()
    # Path.exists raises on names that are too long.
    if not os.path.exists(path):  # noqa: PTH110
        raise DataError(f"{source}: there is no such file or folder{_near_path(path)}")
    if path.is_dir():
        return _open_folder(path)
    if is_archive(path):
        return replace(_open_folder(extract(path), confined=True, source=path), source=path)
    suffix = path.suffix.casefold()
    if suffix in MANIFEST_SUFFIXES:
        return _open_manifest(path)
    if suffix in IMAGE_SUFFIXES:
        raise DataError(f"{source} is a single picture; expected a folder of class folders")
    raise DataError(
        f"{source} is no data set; expected a folder of class folders, a .csv or .jsonl manifest, "
        "or a .zip or .tar of either"
    )


def find_pictures(folder: str | Path) -> list[Path]:
    """Every picture file in a folder and the folders in it, in natural order; raises DataError."""
    found = [path for listing in _walk(Path(folder)) for path in listing.pictures]
    if not found:
        raise DataError(f"{folder}: there are no pictures in it")
    return found


@dataclass
class _Listing:
    """What is directly in a folder, litter aside, in natural order."""

    folder: Path
    folders: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        return self.pictures + self.others

    @property
    def split_folders(self) -> list[Path]:
        return [path for path in self.folders if path.name.casefold() in SPLIT_NAMES]


@dataclass
class _Found:
    """What a walk over class folders collects."""

    records: list[Record] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    stray: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_class_folders(self, listing: _Listing, split: SplitName | None) -> None:
        """Take every picture under every folder of ``listing``; files beside those are stray."""
        self.stray += listing.files
        for folder in listing.folders:
            class_name = clean_class_name(folder.name, str(folder))
            self.declared.add(class_name)
            for inner in _walk(folder):
                self.stray += inner.others
                self.records += (Record(path, class_name, split) for path in inner.pictures)


def _open_folder(root: Path, *, confined: bool = False, source: Path | None = None) -> Dataset:
    source = source or root
    listing = _inner_folder(_list(root))
    manifests = [path for path in listing.others if path.suffix.casefold() in MANIFEST_SUFFIXES]
    if manifests and len(listing.folders) < 2:
        if len(manifests) > 1:
            names = quote_names(path.name for path in manifests)
            raise DataError(f"{source}: there are several manifests, {names}; name one of them")
        return _open_manifest(manifests[0], confined=confined)
    found = _Found()
    if _has_splits(listing, source):
        _read_splits(listing, found)
    else:
        found.add_class_folders(listing, None)
    loose = [path for path in found.stray if path.suffix.casefold() in IMAGE_SUFFIXES]
    if loose and not found.records:
        raise DataError(
            f"{source}: no class folder with pictures, only loose ones such as {loose[0].name}; "
            "put the pictures of each class into a folder of the class's name"
        )
    return build_dataset(
        source,
        listing.folder,
        found.records,
        declared=found.declared,
        stray=found.stray,
        warnings=found.warnings,
    )


def _open_manifest(path: Path, *, confined: bool = False) -> Dataset:
    records, warnings = read_manifest(path, confined=confined)
    return build_dataset(path, path.parent, records, warnings=warnings)


def _inner_folder(listing: _Listing) -> _Listing:
    """Step into folders that hold nothing but one folder of folders."""
    for _ in range(_MAX_WRAPPERS):
        if len(listing.folders) != 1 or listing.files or listing.split_folders:
            break
        inner = _list(listing.folders[0])
        manifests = [path for path in inner.others if path.suffix.casefold() in MANIFEST_SUFFIXES]
        if not inner.folders or (inner.pictures and not manifests):
            break
        listing = inner
    return listing


def _has_splits(listing: _Listing, source: Path) -> bool:
    """Whether the folders are splits; a class may be called train too, such as beside car and bus.

    Raises:
        DataError: class folders stand beside a split that can't be theirs.
    """
    splits = listing.split_folders
    if len(splits) == len(listing.folders):
        return bool(splits)
    inner = [_list(folder) for folder in splits]
    if not splits or any(split.pictures or not split.folders for split in inner):
        return False
    if any(SPLIT_NAMES[folder.name.casefold()] == "train" for folder in splits):
        return True
    raise DataError(
        f"{source}: the split folder '{splits[0].name}' stands beside class folders; "
        "move those into a folder 'train'"
    )


def _read_splits(listing: _Listing, found: _Found) -> None:
    found.stray += listing.files
    beside = [folder for folder in listing.folders if folder not in listing.split_folders]
    if beside:
        names = quote_names(folder.name for folder in beside)
        found.warnings.append(f"beside the splits stands {names}, which isn't read")
    for folder in listing.split_folders:
        found.add_class_folders(_list(folder), SPLIT_NAMES[folder.name.casefold()])


def _walk(folder: Path) -> Iterator[_Listing]:
    """Every folder from ``folder`` down; links are followed, each folder once, so loops end."""
    seen = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        status = current.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        seen.add(identity)
        listing = _list(current)
        pending += reversed(listing.folders)
        yield listing


def _list(folder: Path) -> _Listing:
    """Raises DataError when the folder can't be read."""
    listing = _Listing(folder)
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not is_litter(entry.name)]
        for entry in sorted(visible, key=lambda entry: natural_key(entry.name)):
            path = folder / entry.name
            if entry.is_dir():
                listing.folders.append(path)
            # A pipe or device called .jpg would block whoever opens it.
            elif path.suffix.casefold() in IMAGE_SUFFIXES and entry.is_file():
                listing.pictures.append(path)
            else:
                listing.others.append(path)
    except OSError as error:
        raise DataError(f"{folder}: this folder can't be read ({error.strerror})") from error
    return listing


def _near_path(path: Path) -> str:
    """A hint for a path that doesn't exist: what its parent folder holds of nearly that name."""
    try:
        return suggest(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""
