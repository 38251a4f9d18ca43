"""Where weights stand: in a file, in a folder, or under a name on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lucid.errors import CheckpointError
from lucid.importers.folders import find_weights
from lucid.importers.hub import EXAMPLE, fetch, is_file_name, parse_name


@dataclass(frozen=True)
class Source:
    """A source of weights, found.

    Args:
        name: what the checkpoint says that it is from: a file's name, or ``OWNER/NAME@COMMIT``.
        weights: the file of weights.
        has_config: whether it stands in a folder beside the configurations of its library.
    """

    name: str
    weights: Path
    has_config: bool


def find_source(source: str | Path) -> Source:
    """Find a file, a folder with weights, or a model on the hub, which is downloaded.

    What exists here is never looked for elsewhere, and a ``Path`` is always one.

    Raises:
        CheckpointError: there is no such file and no such model, or the folder holds no weights.
        DownloadError, OutputError, MissingDependencyError: as ``lucid.importers.hub.fetch``.
    """
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise CheckpointError(f"{source}: can't be opened ({error.strerror})") from error
    if is_folder:
        return Source(path.name, find_weights(path), has_config=True)
    if exists or isinstance(source, Path) or is_file_name(source):
        return Source(path.name, path, has_config=False)
    name = parse_name(source)
    if name is None:
        raise CheckpointError(
            f"{source}: there is no such file or folder; a model on the hub has a name such as "
            f"{EXAMPLE}, with @main behind it where it looks like a path"
        )
    folder, commit = fetch(name)
    return Source(commit, find_weights(folder), has_config=True)
