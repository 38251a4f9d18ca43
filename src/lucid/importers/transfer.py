"""One file over HTTP, which goes on where an earlier call stopped, even one that was killed.

``huggingface_hub`` (version 2.4, ``_download_to_tmp_and_move``) goes on within one call only: each
call writes to a file with a new random name. And it writes pieces of 10 MiB, which is more than
most MobileNets have.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, BinaryIO

from lucid.errors import DownloadError, LucidError, require

_TRIES = 5  # in a row that bring no byte more
_PAUSE = 1.0  # seconds
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206


def transfer(url: str, path: Path, *, size: int, title: str) -> None:
    """Append to a file what it lacks of ``size`` bytes.

    What it has is taken to be the beginning, since the servers behind a hub have ETags of their
    own, with which the hub's can't be compared: whoever calls compares the checksum of the whole.

    Args:
        url: of an address on the hub; it may lead elsewhere.
        path: made if need be. What has come stays when the connection or the process ends.
        size: of the whole file.
        title: stands before the progress bar, which is shown on a terminal.
    Raises:
        DownloadError: the server sends more or fewer bytes.
        Exception: whatever the library that carries HTTP raises, after some tries.
    """
    utils: Any = require("huggingface_hub.utils", extra="import")
    with path.open("ab") as file:
        if file.tell() > size:
            _empty(file)
        most, tries = file.tell(), _TRIES
        bar = utils.tqdm(
            total=size, initial=most, unit="B", unit_scale=True, desc=title, disable=None
        )
        with bar:
            while file.tell() < size:
                try:
                    _receive(utils, url, file, size, bar)
                except (LucidError, OSError):  # what another try does not mend
                    raise
                except Exception:  # of the library that carries HTTP: the connection broke
                    tries = _TRIES if file.tell() > most else tries - 1
                    if not tries:
                        raise
                    time.sleep(_PAUSE)
                most = max(most, file.tell())


def _receive(utils: Any, url: str, file: BinaryIO, size: int, bar: Any) -> None:
    """One request for what is missing; what comes of it is in the file."""
    constants: Any = require("huggingface_hub.constants", extra="import")
    start = file.tell()
    headers = {**utils.build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with utils.http_stream_backoff(
        "GET",
        url,
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),  # it can't once the response has begun
    ) as response:
        if start:
            found = response.headers.get("Content-Range")
            answers_range = response.status_code in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE)
            if answers_range and found != f"bytes {start}-{size - 1}/{size}":
                _forget(file, bar)  # what is there is no beginning of this file: once more, whole
                return
        utils.hf_raise_for_status(response)
        if start and response.status_code != _PARTIAL_CONTENT:
            _forget(file, bar)  # ranges are ignored here: the whole file comes
        for piece in response.iter_bytes():
            if file.tell() + len(piece) > size:
                raise DownloadError(f"{url} sends more than the {size} bytes that are announced")
            file.write(piece)
            file.flush()  # now it stays, whatever becomes of this process
            bar.update(len(piece))
    if file.tell() != size:
        raise DownloadError(f"{url} sends {file.tell()} bytes where {size} are announced")


def _forget(file: BinaryIO, bar: Any) -> None:
    bar.update(-file.tell())
    _empty(file)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
