"""An int8 network as a folder of C files, and how that is written: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lucid.errors import ConfigError, OutputError
from lucid.exporters.c.names import check_prefix
from lucid.exporters.c.plan import Plan, make_plan
from lucid.exporters.c.source import STACK_BYTES, const_bytes, sources, table_bytes
from lucid.files import check_writable_folder, open_file
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Layer, Int8Network, Int8Pool

__all__ = ["CExport", "check_replaceable", "paired", "to_c"]

# Lists the files of an export with their checksums, so that a later one replaces only those.
RECORD = "lucid-export.json"
_MAX_RECORD = 2**20  # bytes


@dataclass(frozen=True)
class CExport:
    """A network as C files, which are made when first asked for, and not yet written.

    Args:
        network: what they compute, for images of its resolution.
        plan: its memory.
        prefix: of all names.
        image: uint8 (H, W, C), for the examples.
    """

    network: Int8Network
    plan: Plan
    prefix: str
    image: Pixels

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Content by path in the folder; holds what the reference answers for the image."""
        return sources(self.network, self.plan, self.prefix, self.image)

    @property
    def const_bytes(self) -> int:
        """Of the weights, biases and multipliers in flash."""
        return const_bytes(self.network.layers)

    @property
    def table_bytes(self) -> int:
        """Of the plan and the class names in flash, on a 32-bit device."""
        return table_bytes(self.plan, self.network.class_names)

    @property
    def row_ram_bytes(self) -> int:
        """RAM when the rows of the image are pushed: state, stack and logits."""
        return self.plan.state_bytes + STACK_BYTES + self.plan.logits_bytes

    @property
    def image_ram_bytes(self) -> int:
        """RAM when the whole image stands in memory: that too."""
        return self.row_ram_bytes + self.plan.image_bytes

    def write(self, folder: str | Path) -> Path:
        """Write the folder whole or not at all; an export that stands there unchanged is replaced.

        Raises:
            OutputError: it holds anything that no export wrote, or can't be written.
        """
        folder = Path(folder)
        check_replaceable(folder)
        check_writable_folder(folder.parent, needed_bytes=sum(map(len, self.files.values())))
        with _beside(folder) as temporary:
            for name, content in self.files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode())
            sums = {name: _checksum(content.encode()) for name, content in self.files.items()}
            (temporary / RECORD).write_text(json.dumps({"files": sums}, indent=2) + "\n")
            _exchange(temporary, folder)
        return folder


def to_c(
    network: FloatNetwork | Int8Network, prefix: str = "model", *, image: Pixels | None = None
) -> CExport:
    """An int8 network as C99 sources, for images of the resolution of its preprocessing.

    Args:
        prefix: of all names and files, a C identifier of at most 32 characters.
        image: uint8 (H, W, C), for the examples; a pattern when left out.
    Raises:
        ConfigError: the network is float, the prefix is a keyword or reserved, or the network is
            too large for the C structures.
    """
    if not isinstance(network, Int8Network):
        raise ConfigError(
            "the C export is for int8 networks, this one is float; make one first: "
            "lucid quantize CHECKPOINT --calibrate DATA"
        )
    check_prefix(prefix)
    side, channels = network.preprocessing.resolution, network.preprocessing.channels
    whole = paired(network)
    plan = make_plan(whole.layers, side, side)
    if image is None:
        image = _pattern(side, channels)
    return CExport(whole, plan, prefix, image)


def check_replaceable(folder: Path) -> None:
    """Prove that a folder is missing, empty, or as an export left it.

    Raises:
        OutputError: it is a file, or holds one that no export wrote or that was changed since, or
            is where this program runs, which would be left in a folder that is gone.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder}: expected a folder, found something else; choose another name")
    if not folder.is_dir():
        return
    with _reading(folder):
        if Path.cwd().is_relative_to(os.path.realpath(folder)):
            raise OutputError(
                f"{folder}: is the current folder, or around it, and can't be replaced; "
                "name a new folder"
            )
        written = _record(folder)
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_dir() and not path.is_symlink():
                ours = any(other.startswith(f"{name}/") for other in written)
            else:
                ours = name == RECORD or (
                    name in written
                    and path.is_file()
                    and written[name] == _checksum(path.read_bytes())
                )
            if not ours:
                raise OutputError(
                    f"{folder}: {name} is not as an export left it, and would be lost; "
                    "choose an empty folder"
                )


def _record(folder: Path) -> dict[str, str]:
    """The files of the export that stands in a folder with their checksums; empty if none does."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    with open_file(path, max_bytes=_MAX_RECORD, error=OutputError) as file:
        content = file.read()
    try:
        values = json.loads(content)
        return {str(name): str(value) for name, value in values["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: can't be read ({error.strerror}); choose another") from error


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder beside another, which exists within the block only."""
    temporary = folder.with_name(f".lucid-{secrets.token_hex(8)}.part")
    try:
        temporary.mkdir()
        yield temporary
    except OSError as error:
        raise OutputError(
            f"{folder}: can't write here ({error.strerror or error}); "
            "choose a folder that exists and can be written"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, folder: Path) -> None:
    """Put a folder in the place of another, which may be missing."""
    old = new.with_suffix(".old")
    with suppress(FileNotFoundError):
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def paired(network: Int8Network) -> Int8Network:
    """The network with a depthwise layer before each pointwise one: stages are pairs.

    Some have a single pointwise layer before the pool. The layer put before it gives what it reads.
    """
    layers: list[Int8Layer | Int8Pool] = []
    for layer in network.layers:
        if layer.kind == "pointwise" and layers[-1].kind != "depthwise":
            layers.append(_identity(f"{layer.name}.input", layer.in_channels, layer.input_scale))
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def _identity(name: str, channels: int, scale: float) -> Int8Layer:
    weight = np.zeros((channels, 1, 3, 3), np.int8)
    weight[:, 0, 1, 1] = 1
    return Int8Layer(
        name=name,
        kind="depthwise",
        in_channels=channels,
        out_channels=channels,
        activation="relu",
        weight=weight,
        bias=np.zeros(channels, np.int32),
        weight_scale=np.ones(channels, np.float32),
        input_scale=scale,
        output_scale=scale,
    )


def _pattern(side: int, channels: int) -> Pixels:
    """A picture of waves, the same every time: uint8 (H, W, C)."""
    y, x, c = np.ogrid[:side, :side, :channels]
    waves = np.sin(x * (0.13 + 0.05 * c)) + np.sin(y * (0.09 + 0.07 * c))
    pixels: Pixels = np.round(127.5 + 63 * waves).astype(np.uint8)
    return pixels
