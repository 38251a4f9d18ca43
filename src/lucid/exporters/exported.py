"""A network as the content of a format's files, and how those are written: whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lucid.checkpoint import Checkpoint, read_checkpoint
from lucid.checks import check_choice, check_integer
from lucid.errors import CheckpointError, OutputError
from lucid.exporters.formats import FORMATS, Files, Format, Precision
from lucid.files import atomic_path, check_writable_folder
from lucid.images import MAX_RESOLUTION
from lucid.lowering import lower
from lucid.network import FloatNetwork, Int8Network, is_network, read_network

__all__ = ["Exported", "export", "open_network"]

Source = str | Path | Checkpoint | FloatNetwork | Int8Network


@dataclass(frozen=True)
class Exported:
    """A network in a format, not yet written.

    Args:
        format: of ``FORMATS``.
        precision: of weights and arithmetic.
        network: that was exported, with the resolution of the files.
        files: content by what follows the name that is asked for.
    """

    format: Format
    precision: Precision
    network: FloatNetwork | Int8Network
    files: Files

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(map(len, self.files.values()))

    def write(self, out: str | Path) -> tuple[Path, ...]:
        """Write the files, and give their paths; what stood at their names is replaced.

        Args:
            out: of the main file or folder; it has the format's suffix. Others have the same name
                but for the suffix.
        Raises:
            OutputError: the folder is missing, read-only or full, or a name is taken by something
                that is not of this format.
            ConfigError: another suffix.
        """
        stem = self.format.stem(out)
        check_writable_folder(stem.parent, needed_bytes=self.size)
        parts = self._parts()
        paths = {top: stem.parent / (stem.name + top) for top in parts}
        for top, path in paths.items():
            _check_replaceable(path, parts[top])
        with ExitStack() as stack:
            for top, path in paths.items():
                is_file = "" in parts[top]
                temporary = stack.enter_context((atomic_path if is_file else _atomic_folder)(path))
                _write(temporary, parts[top])
        return tuple(paths.values())

    def _parts(self) -> dict[str, dict[str, bytes]]:
        """Files by the file or folder that they are in, then by their path in it, "" for a file.

        The main one comes first: what is opened first gets its name last, with the others there.
        """
        found: dict[str, dict[str, bytes]] = {self.format.suffix: {}}
        for ending, content in self.files.items():
            top, _, inside = ending.partition("/")
            found.setdefault(top, {})[inside] = content
        return found

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """The path of the main file, in a folder that exists within the block only."""
        with tempfile.TemporaryDirectory(prefix="lucid-export-") as folder:
            for ending, content in self.files.items():
                _write(Path(folder), {f"model{ending}": content})
            yield Path(folder, "model" + self.format.suffix)


def export(
    source: Source,
    format: str,
    *,
    precision: Precision | None = None,
    resolution: int | None = None,
) -> Exported:
    """Turn a network into the content of a format's files; ``Exported.write`` writes them.

    Args:
        source: a checkpoint, a network, or the path of one.
        format: a name of ``lucid.exporters.formats.FORMATS``.
        precision: ``"float32"`` or ``"float16"`` of a float network, ``"int8"`` of an int8 one;
            float32 or int8 when left out.
        resolution: side of the images in pixels; that of the preprocessing when left out.
    Raises:
        CheckpointError: the source can't be read, or has no classifier yet.
        ConfigError: an argument is out of range, or does not go with the network or the format.
        MissingDependencyError: a package of the format is not installed; the extra is named.
    """
    check_choice("format", format, tuple(FORMATS))
    found = FORMATS[format]
    network = open_network(source, resolution)
    precision = found.choose_precision(network, precision)
    side = network.preprocessing.resolution
    files = found.to_files(network, precision, (side, side))
    return Exported(found, precision, network, files)


def open_network(source: Source, resolution: int | None = None) -> FloatNetwork | Int8Network:
    """The network of a file or a checkpoint; with ``resolution`` for images of that side.

    Raises:
        CheckpointError: it can't be read, or has no classifier yet.
        ConfigError: the resolution is out of range.
    """
    if isinstance(source, str | Path):
        network = _read(source)
    else:
        network = lower(source) if isinstance(source, Checkpoint) else source
    if network.provenance.get("classifier") is False:
        name = source if isinstance(source, str | Path) else "CHECKPOINT"
        raise CheckpointError(
            f"{name}: has no classifier yet; fine-tune it first: lucid train DATA --weights {name}"
        )
    if resolution is None:
        return network
    check_integer("resolution", resolution, 1, MAX_RESOLUTION)
    return replace(network, preprocessing=replace(network.preprocessing, resolution=resolution))


def _read(path: str | Path) -> FloatNetwork | Int8Network:
    return read_network(path) if is_network(path) else lower(read_checkpoint(path))


def _write(place: Path, parts: Files) -> None:
    """Write files by their paths in a folder, or one with the empty path as the place itself."""
    for name, content in parts.items():
        path = place / name if name else place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _check_replaceable(path: Path, parts: Files) -> None:
    """Raise OutputError unless nothing is there, or what an export of the same kind left."""
    if not os.path.lexists(path):
        return
    is_folder = "" not in parts
    if path.is_dir() != is_folder:
        kind = "a file" if is_folder else "a folder"
        raise OutputError(f"{path}: is {kind}, which an export does not replace; move it away")
    if not is_folder:
        return
    found = [str(one.relative_to(path)) for one in path.rglob("*") if not one.is_dir()]
    if foreign := sorted(set(found) - parts.keys()):
        raise OutputError(f"{path}: holds {foreign[0]}, which is of no export; choose another name")


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """As ``lucid.files.atomic_path``, but a folder; one that stands there is replaced whole."""
    temporary = path.with_name(f".lucid-{secrets.token_hex(8)}.part")
    away = temporary.with_suffix(".old")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.replace(away)
        temporary.replace(path)
    except BaseException as error:
        if away.exists() and not path.exists():
            away.replace(path)
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"{path}: can't write here ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        for folder in (temporary, away):
            shutil.rmtree(folder, ignore_errors=True)
