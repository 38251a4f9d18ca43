"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucid.errors import OutputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name once the block has ended well.

    The temporary file keeps the suffix of ``path``, since writers choose a format by it. It is
    flushed to the disk before the rename; after an error it is removed and ``path`` is as it was.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=f".part{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        # mkstemp makes private files; a result is for whoever may read the folder.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


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


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"{path}: can't write here ({reason}); choose a folder that exists and can be written"
    )
