"""Writing files so that a reader never sees half of one; opening only what is a file."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

from lucid.errors import LucidError, OutputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name once the block has ended well.

    The temporary file exists, is empty and keeps the suffix of ``path``, since writers choose a
    format by it. It is flushed to the disk before the rename; after an error it is removed and
    ``path`` is as it was.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    path = Path(path)
    # Not tempfile: its files are private, and a result is for whoever may read the folder.
    temporary = path.with_name(f".lucid-{secrets.token_hex(8)}.part{path.suffix}")
    try:
        temporary.open("xb").close()
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        # The block may fail to read a file of its own, which is no fault of this one.
        if error.filename not in (None, str(temporary), temporary):
            raise
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):  # it has its new name, or its folder can't be written at all
            temporary.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; raises OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, whole or not at all; raises OutputError."""
    write_bytes(path, content.encode())


def check_writable_folder(folder: str | Path, *, needed_bytes: int = 0) -> Path:
    """Make ``folder`` if need be and prove that files can be written there, before work starts.

    Args:
        folder: created with its parents when missing.
        needed_bytes: free space that the work will take.
    Raises:
        OutputError: it is a file, can't be created or written, or has too little space.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _unwritable(folder, error) from error
    if free < needed_bytes:
        raise OutputError(
            f"{folder}: {needed_bytes / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; "
            "make room or choose another folder"
        )
    return folder


def check_keeps(path: str | Path, *sources: str | Path) -> None:
    """Prove that a file to be written is none of those that it is made from.

    Raises:
        OutputError: it is one of ``sources``, by this path or by another.
    """
    if os.path.realpath(path) in map(os.path.realpath, sources):
        raise OutputError(f"{path}: would replace what it is made from; choose another name")


def cache_folder(name: str) -> Path:
    """The folder for what can be made again: in ``$LUCID_CACHE`` or the user's cache folder.

    It may not exist yet. ``name`` is the kind of content, one folder each.
    """
    root = os.environ.get("LUCID_CACHE") or platformdirs.user_cache_dir("lucid", appauthor=False)
    return Path(root).expanduser() / name


def open_file(path: str | Path, *, max_bytes: int, error: type[LucidError]) -> BinaryIO:
    """Open a file that someone else wrote, for reading, once it proves to be one of bounded size.

    Args:
        path: of a regular file; reading a pipe or a device might never end.
        max_bytes: the largest size that is taken.
        error: what is raised, with a message that names the path.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise error(f"{path}: expected a file, found {kind}")
        if status.st_size > max_bytes:
            raise error(f"{path}: {status.st_size} bytes are too many; the limit is {max_bytes}")
        return Path(path).open("rb")
    except OSError as cause:
        raise error(f"{path}: can't be opened ({cause.strerror or cause})") from cause
    except ValueError as cause:  # a NUL in the path
        raise error(f"{str(path)!r}: can't be opened ({cause})") from cause


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    remedy = "choose a folder that exists and can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room or choose another folder"
    return OutputError(f"{path}: can't write here ({reason}); {remedy}")
