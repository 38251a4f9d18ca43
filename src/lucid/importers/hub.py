"""Weights by their name on Hugging Face's hub: from its cache, or downloaded, and checked.

``huggingface_hub`` finds names, asks what a file is, keeps files in its cache and honours HF_HOME,
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE. What it does not do (version 2.4) is done here: going on
where a killed download stopped, and comparing checksums.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucid.errors import DownloadError, LucidError, OutputError, require
from lucid.files import check_writable_folder
from lucid.importers.folders import (
    CONFIG,
    MAX_CONFIG_BYTES,
    PREPROCESSOR,
    WEIGHTS,
    is_timm,
    read_config,
)
from lucid.importers.transfer import transfer

EXAMPLE = "timm/mobilenetv1_100.ra4_e3600_r224_in1k"

# The widest published MobileNet-V1 takes 26 MB; a name that means something else shall not fill
# the disk.
MAX_WEIGHTS_BYTES = 512 * 1024**2

_NAME = re.compile(r"([a-z0-9][\w.-]*)/([\w.-]+)(?:@([\w./-]+))?", re.ASCII | re.IGNORECASE)
_FILE_END = re.compile(
    r"\.(bin|ckpt|gz|h5|hdf5|json|keras|onnx|pb|pkl|pt|pth|safetensors|tar|tflite|tgz|txt|zip)$",
    re.IGNORECASE,
)
_CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Name:
    """A model on the hub: ``OWNER/NAME``, and the branch, tag or commit that is meant."""

    repository: str
    revision: str = "main"


def parse_name(text: str) -> Name | None:
    """The name of a model on the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, if it is one.

    What more likely is a path with a slip of the pen is none: a text that ends as files do, or
    whose first part is a folder here. With a revision behind it, it is a name all the same.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    owner, model, revision = match.groups()
    if revision is None and (is_file_name(text) or Path(owner).is_dir()):
        return None
    return Name(f"{owner}/{model}", revision or "main")


def is_file_name(text: str) -> bool:
    """Whether a text ends as files do; names on the hub have dots too, but other letters behind."""
    return _FILE_END.search(text) is not None


def fetch(name: Name) -> tuple[Path, str]:
    """The folder in the cache with a model's configurations and weights, and ``NAME@COMMIT``.

    Only these files are downloaded, and the weights only when config.json is that of a
    MobileNet-V1. Progress is shown on a terminal.

    Raises:
        DownloadError: there is no such model, it can't be reached, or what came is damaged.
        CheckpointError: it is another network.
        OutputError: the cache can't be written or is full.
        MissingDependencyError: huggingface_hub is not installed.
    """
    repository = _Repository(name)
    config = repository.get(CONFIG, MAX_CONFIG_BYTES)
    if config is None:
        raise DownloadError(
            f"{repository.url} has no {CONFIG}; expected a MobileNet-V1 of timm or transformers, "
            f"such as {EXAMPLE}"
        )
    if not is_timm(read_config(config)):
        repository.get(PREPROCESSOR, MAX_CONFIG_BYTES)
    if not any(repository.get(file, MAX_WEIGHTS_BYTES) for file in WEIGHTS):
        raise DownloadError(f"{repository.url} has none of {', '.join(WEIGHTS)}")
    return config.parent, f"{name.repository}@{repository.revision}"


class _Repository:
    """One model on the hub, or what the cache has of it where the hub is out of reach.

    Attributes:
        revision: the commit, once the first file is found; so all files are of one.
    """

    def __init__(self, name: Name) -> None:
        self._hub: Any = require("huggingface_hub", extra="import")
        self._constants: Any = require("huggingface_hub.constants", extra="import")
        self._raised: Any = require("huggingface_hub.errors", extra="import")
        self._name = name
        self.revision = name.revision
        self._unreachable: Exception | None = None

    @property
    def url(self) -> str:
        """Where people find the model."""
        return f"{self._constants.ENDPOINT}/{self._name.repository}"

    def get(self, file: str, max_bytes: int) -> Path | None:
        """The path of a file, downloaded if need be and checked; None if the model has no such."""
        with self._errors(file):
            try:
                head = self._head(file)
            except self._raised.RemoteEntryNotFoundError:
                return None
            return self._cached(file) if head is None else self._download(file, head, max_bytes)

    def _download(self, file: str, head: Any, max_bytes: int) -> Path:
        place = {"repo_id": self._name.repository, "filename": file}
        cached = self._hub.try_to_load_from_cache(**place, revision=head.commit_hash)
        if not isinstance(cached, str):
            if head.size is None or head.size > max_bytes:
                raise DownloadError(
                    f"{self.url}: {file} has {head.size} bytes; the limit is {max_bytes}"
                )
            self._fill_cache(file, head)
        # By the branch's name, so that the cache knows it when there is no network.
        path = Path(self._hub.hf_hub_download(**place, revision=self.revision))
        self.revision = path.parent.name
        self._verify(path, head.etag)
        return path

    def _fill_cache(self, file: str, head: Any) -> None:
        """Put a file where the cache keeps it, under its checksum, unless it is there.

        What an earlier call left unfinished is gone on with, if it proves to be the beginning.
        """
        files: Any = require("huggingface_hub.file_download", extra="import")
        utils: Any = require("huggingface_hub.utils", extra="import")
        cache = check_writable_folder(self._constants.HF_HUB_CACHE, needed_bytes=head.size)
        folder = files.repo_folder_name(repo_id=self._name.repository, repo_type="model")
        content = cache / folder / "blobs" / head.etag
        lock = cache / ".locks" / folder / f"{head.etag}.lock"  # where the package has it
        partial = content.with_name(f"{head.etag}.incomplete")
        for path in (content, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        # Of the very commit, so that all that ever comes is of one file.
        url = self._hub.hf_hub_url(self._name.repository, file, revision=head.commit_hash)
        with utils.WeakFileLock(lock):
            if content.exists():
                return
            goes_on = partial.exists()
            try:
                transfer(url, partial, size=head.size, title=file)
                if goes_on and _checksum(partial, head.etag) != head.etag:
                    partial.unlink()
                    transfer(url, partial, size=head.size, title=file)
            except DownloadError:
                partial.unlink(missing_ok=True)
                raise
            self._verify(partial, head.etag, name=file)
            partial.replace(content)

    def _head(self, file: str) -> Any:
        """What the hub says of a file: commit, checksum and size; None if it can't be reached.

        Asked here once, since ``hf_hub_download`` asks for half a minute where there is no network.
        """
        if self._unreachable is not None:
            return None
        errors = self._raised
        url = self._hub.hf_hub_url(self._name.repository, file, revision=self.revision)
        try:
            head = self._hub.get_hf_file_metadata(url)
        except (
            errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError,
            errors.RemoteEntryNotFoundError,
        ):
            raise
        except Exception as error:  # of whatever library carries HTTP
            self._unreachable = error
            return None
        if head.commit_hash is None or not _CHECKSUM.fullmatch(head.etag or ""):
            raise DownloadError(
                f"{self._constants.ENDPOINT} does not answer as a hub does; see HF_ENDPOINT"
            )
        return head

    def _cached(self, file: str) -> Path | None:
        found = self._hub.try_to_load_from_cache(
            self._name.repository, file, revision=self.revision
        )
        if isinstance(found, str):
            path = Path(found)
            self.revision = path.parent.name
            if path.is_symlink():  # to a file that is called by its checksum
                self._verify(path, path.readlink().name)
            return path
        if file == PREPROCESSOR or file in WEIGHTS[:-1]:
            return None
        hub, reason = self._constants, self._unreachable
        why = f"{hub.ENDPOINT} can't be reached ({_first_line(reason)}); check the network"
        if hub.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set; unset it"
        raise DownloadError(
            f"{self._name.repository}: there is no such file or folder; if it is a model on the "
            f"hub, {file} is not in the cache, {hub.HF_HUB_CACHE}, and {why}, or give a folder "
            f"that holds {CONFIG} and {WEIGHTS[0]}"
        )

    def _verify(self, path: Path, expected: str, *, name: str = "") -> None:
        """Compare a file with the checksum that the hub gives it; remove it if it differs."""
        found = _checksum(path, expected)
        if found == expected:
            return
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{self.url}: {name or path.name} has the wrong checksum, {found:.12}..., where the "
            f"hub says {expected:.12}...; it has been removed: try again"
        )

    @contextmanager
    def _errors(self, file: str) -> Iterator[None]:
        """Turn what huggingface_hub raises into one line."""
        errors, name = self._raised, self._name
        try:
            yield
        except LucidError:
            raise
        except errors.GatedRepoError as error:
            raise DownloadError(
                f"{self.url}: its owner gives access on request; ask there, then log in with "
                "'hf auth login' or set HF_TOKEN"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise DownloadError(
                f"{name.repository}: there is no such file or folder, and no such model on "
                f"{self._constants.ENDPOINT}, or a private one; expected a name such as "
                f"{EXAMPLE}"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise DownloadError(f"{self.url}: there is no revision {name.revision}") from error
        except errors.HFValidationError as error:
            raise DownloadError(
                f"{name.repository}: no name of a model ({_first_line(error)})"
            ) from error
        except Exception as error:  # of the library that carries HTTP, or of the disk
            if isinstance(error, OSError) and error.errno in _DISK:
                raise OutputError(
                    f"{self._constants.HF_HUB_CACHE}: can't write here ({error.strerror}); "
                    "make room, or set HF_HOME to another folder"
                ) from error
            raise DownloadError(
                f"{self.url}: the download of {file} broke off ({_first_line(error)}); "
                "try again: it goes on from there"
            ) from error


def _checksum(path: Path, expected: str) -> str:
    """A file's checksum, of the kind that is expected."""
    content = path.read_bytes()
    if len(expected) == 64:
        return hashlib.sha256(content).hexdigest()
    # Small files have that of git.
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
