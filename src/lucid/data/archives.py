"""Unpacking .zip and .tar files that nobody vouches for.

No entry is written anywhere but under the new folder, no link or device is made, and an archive
that unpacks to far more than its size is refused while it is read, not after. The standard
library's own ``extractall`` is not used: what it refuses differs between Python versions.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from lucid.data.samples import is_litter
from lucid.errors import DataError, LucidError, OutputError
from lucid.files import cache_folder, check_writable_folder

MAX_ENTRIES = 2_000_000
MAX_BYTES = 1024**4
# Photos hardly shrink; a plain BMP or TIFF shrinks tenfold. Small archives may exceed the ratio.
MAX_RATIO = 200
ALWAYS_ALLOWED_BYTES = 64 * 1024**2

_CHUNK = 1024**2
_STALE_SECONDS = 24 * 3600

_OPENERS: dict[str, Callable[..., Any]] = {
    ".tar": open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_SUFFIXES = {
    ".zip": ".zip",
    ".tar": ".tar",
    ".tar.gz": ".gz",
    ".tgz": ".gz",
    ".tar.bz2": ".bz2",
    ".tbz2": ".bz2",
    ".tar.xz": ".xz",
    ".txz": ".xz",
}


class _Entry(NamedTuple):
    """A file of an archive, or a folder, which has nothing to open."""

    name: str
    open: Callable[[], IO[bytes] | None] | None


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its suffix."""
    return _compression(path) is not None


def extract(archive: Path) -> Path:
    """Unpack an archive into the user's cache folder; the same content is unpacked once.

    Returns:
        A folder named by the content's hash, which appears only when it is complete.
    Raises:
        DataError: the archive is damaged or encrypted, too large, or holds links, devices or
            paths that lead out of it.
        OutputError: the cache folder can't be written.
    """
    parent = cache_folder("archives")
    folder = parent / _content_hash(archive)
    if folder.is_dir():
        return folder
    check_writable_folder(parent)
    _remove_stale(parent)
    part = Path(tempfile.mkdtemp(prefix="part-", dir=parent))
    try:
        _Unpacking(archive, part).run()
        _take_name(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


class _Unpacking:
    """One archive on its way to a folder, and what it has used of its limits."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive = archive
        self.folder = folder
        size = archive.stat().st_size
        self.limit = min(MAX_BYTES, max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * size))
        self.written = 0

    def run(self) -> None:
        entries = self._zip_entries if _compression(self.archive) == ".zip" else self._tar_entries
        with self._reading():
            for entry in entries():
                target = self._target(entry.name)
                if target is not None:
                    self._write(entry, target)

    def refuse(self, reason: str) -> DataError:
        return DataError(f"{self.archive}: {reason}")

    def check_size(self, size: int) -> None:
        if size > self.limit:
            raise self.refuse(
                f"unpacks to more than {self.limit:,} bytes, far more than photos would; "
                "unpack it yourself if you trust it"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn whatever hostile bytes provoke in the standard library into one error."""
        try:
            yield
        except LucidError:
            raise
        except OSError as error:
            if error.errno is None:  # gzip's and bz2's own; the system's have a number
                raise self.refuse(f"this archive is damaged ({error})") from error
            raise OutputError(
                f"{error.filename or self.folder}: can't unpack {self.archive} here "
                f"({error.strerror})"
            ) from error
        # zipfile, tarfile and the decompressors raise a dozen kinds, some undocumented.
        except Exception as error:
            raise self.refuse(f"this archive is damaged or not supported ({error})") from error

    def _zip_entries(self) -> Iterator[_Entry]:
        with zipfile.ZipFile(self.archive) as file:
            infos = file.infolist()
            self._check_count(len(infos))
            for info in infos:
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self.refuse(f"'{info.filename}' is a link or device")
                if info.flag_bits & 1:
                    raise self.refuse("it is encrypted; unpack it yourself")
                yield _Entry(info.filename, None if info.is_dir() else partial(file.open, info))

    def _tar_entries(self) -> Iterator[_Entry]:
        compression = _compression(self.archive)
        assert compression is not None
        with _OPENERS[compression](self.archive, "rb") as content:
            bounded = cast(IO[bytes], _BoundedReader(content, self))
            with tarfile.open(fileobj=bounded, mode="r:") as file:
                for count, member in enumerate(file, start=1):
                    self._check_count(count)
                    if not (member.isdir() or member.isreg()) or member.issparse():
                        raise self.refuse(f"'{member.name}' is a link, device or sparse file")
                    opener = None if member.isdir() else partial(file.extractfile, member)
                    yield _Entry(member.name, opener)

    def _check_count(self, count: int) -> None:
        if count > MAX_ENTRIES:
            raise self.refuse(f"has more than {MAX_ENTRIES:,} entries")

    def _target(self, name: str) -> Path | None:
        """Where an entry goes; None for litter. Raises DataError for a path that leads out."""
        slashed = name.replace("\\", "/")
        parts = PurePosixPath(slashed).parts
        if slashed.startswith("/") or ".." in parts or re.match("[A-Za-z]:", slashed):
            raise self.refuse(f"the entry {name[:80]!a} leads out of the archive")
        if any(is_litter(part) for part in parts):
            return None
        return self.folder.joinpath(*parts)

    def _write(self, entry: _Entry, target: Path) -> None:
        stream = entry.open and entry.open()
        try:
            if stream is None:
                target.mkdir(parents=True, exist_ok=True)
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, target.open("xb") as file:
                while chunk := stream.read(_CHUNK):
                    self.written += len(chunk)
                    self.check_size(self.written)
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError) as error:
            name = target.relative_to(self.folder).as_posix()
            raise self.refuse(f"two entries have the name '{name}'") from error


class _BoundedReader:
    """What tarfile reads from: it trusts the sizes that headers claim, this does not."""

    def __init__(self, content: IO[bytes], unpacking: _Unpacking) -> None:
        self._content = content
        self._unpacking = unpacking

    def read(self, size: int = -1) -> bytes:
        # File contents come in chunks of _CHUNK; more at once is the name or comment of an entry.
        if not 0 <= size <= 2 * _CHUNK:
            raise self._unpacking.refuse("an entry has a header of many megabytes")
        self._unpacking.check_size(self._content.tell() + size)
        return self._content.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self._unpacking.check_size(position)
        return self._content.seek(position)

    def tell(self) -> int:
        return self._content.tell()


def _compression(path: Path) -> str | None:
    suffixes = [suffix.casefold() for suffix in path.suffixes]
    return _SUFFIXES.get("".join(suffixes[-2:])) or _SUFFIXES.get("".join(suffixes[-1:]))


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _take_name(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process has unpacked the same content meanwhile
            raise OutputError(f"{folder}: can't be written ({error.strerror})") from error


def _remove_stale(parent: Path) -> None:
    """Remove what killed processes left unfinished."""
    for part in parent.glob("part-*"):
        try:
            old = time.time() - part.stat().st_mtime > _STALE_SECONDS
        except OSError:  # another process has just removed it
            continue
        if old:
            shutil.rmtree(part, ignore_errors=True)
