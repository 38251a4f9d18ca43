"""Reading TF-Slim's hosted archives: the LiteRT network inside a ``.tgz``."""

from __future__ import annotations

import io
import tarfile
import zlib

from lucid.checkpoint import MAX_FILE_BYTES
from lucid.errors import CheckpointError

GZIP = b"\x1f\x8b"

_MAX_MEMBERS = 1000


def find_litert(content: bytes) -> bytes:
    """The one .tflite file in a gzipped tar archive; nothing is written to the disk.

    Raises:
        CheckpointError: the archive is damaged, or holds no such file, or several.
    """
    found = None
    try:
        # A stream is read once, member by member, so that nothing is unpacked twice.
        with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz") as archive:
            for number, member in enumerate(archive):
                if number == _MAX_MEMBERS:
                    raise CheckpointError(f"more than {_MAX_MEMBERS} files in the archive")
                if not member.isfile() or not member.name.endswith(".tflite"):
                    continue
                if found is not None:
                    raise CheckpointError("several .tflite files in the archive; unpack the one")
                if member.size > MAX_FILE_BYTES:
                    raise CheckpointError(f"{member.name:.80} is above {MAX_FILE_BYTES} bytes")
                file = archive.extractfile(member)
                found = b"" if file is None else file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"no whole .tgz archive ({error}); copy it again") from error
    if found is None:
        raise CheckpointError("no .tflite file in the archive")
    return found
