"""A network as the content of a format's files, and how those are written: whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lucid.checkpoint import Checkpoint, read_checkpoint
from lucid.checks import check_choice, check_integer
from lucid.errors import CheckpointError, ConfigError, OutputError
from lucid.exporters.formats import FORMATS, Files, Format, Precision
from lucid.files import check_writable_folder
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
        stem = self.stem(out)
        folder = stem.parent
        check_writable_folder(folder, needed_bytes=self.size)
        roots = sorted({_root(ending) for ending in self.files})
        with _beside(folder) as temporary:
            self.write_stem(temporary / stem.name)
            for root in roots:
                _check_replaceable(folder / (stem.name + root), temporary / (stem.name + root))
            for root in roots:
                _replace(temporary / (stem.name + root), folder / (stem.name + root))
        return tuple(folder / (stem.name + root) for root in roots)

    def write_stem(self, stem: Path) -> None:
        """Write the files with names that begin with ``stem``, in a folder that nobody reads."""
        for ending, content in self.files.items():
            path = stem.parent / (stem.name + ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """The path of the main file, in a folder that exists within the block only."""
        with tempfile.TemporaryDirectory(prefix="lucid-export-") as folder:
            self.write_stem(Path(folder, "model"))
            yield Path(folder, "model" + self.format.suffix)

    def stem(self, out: str | Path) -> Path:
        """A path without the format's suffix; raises ConfigError where it has another."""
        out, suffix = Path(out), self.format.suffix
        if not out.name.endswith(suffix) or out.name == suffix:
            raise ConfigError(f"{out}: the name of {self.format.title} files ends in {suffix}")
        return out.with_name(out.name.removesuffix(suffix))


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


def _root(ending: str) -> str:
    """The part of an ending that names a file or folder beside the others: before the first /."""
    return ending.partition("/")[0]


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder on the same disk as ``folder``, so that what is in it can be renamed into that."""
    temporary = folder / f".lucid-{secrets.token_hex(8)}.part"
    try:
        temporary.mkdir()
        yield temporary
    except OSError as error:
        raise OutputError(
            f"{folder}: can't write here ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(old: Path, new: Path) -> None:
    """Raise OutputError unless ``old`` is absent, or such as ``new`` is."""
    if not os.path.lexists(old):
        return
    if old.is_dir() != new.is_dir():
        kind = "a folder" if old.is_dir() else "a file"
        raise OutputError(f"{old}: is {kind}, which an export does not replace; move it away")
    if new.is_dir():
        known = {path.relative_to(new) for path in new.rglob("*")}
        foreign = [path for path in old.rglob("*") if path.relative_to(old) not in known]
        if foreign:
            raise OutputError(
                f"{old}: holds {foreign[0].relative_to(old)}, which is of no export; "
                "choose another name"
            )


def _replace(new: Path, old: Path) -> None:
    """Put a file or folder in the place of another; a folder is moved away first."""
    if new.is_dir() and old.exists():
        away = new.with_name(f"{new.name}.old")
        old.replace(away)
        try:
            new.replace(old)
        except BaseException:
            with suppress(OSError):
                away.replace(old)
            raise
        return
    new.replace(old)
