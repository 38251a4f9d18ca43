"""The native engine: runs a network on this CPU as fast as it can. No PyTorch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.checkpoint import Checkpoint, read_checkpoint
from lucid.checks import check_choice, check_integer
from lucid.description import JSON, Description
from lucid.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    NetworkError,
    OutOfMemoryError,
    ShapeError,
)
from lucid.images import Pixels
from lucid.lowering import lower
from lucid.network import (
    FloatNetwork,
    Int8Network,
    Layer,
    is_network,
    network_bytes,
    read_network,
)
from lucid.network.file import NetworkHeader, parse_header
from lucid.parallel import cores
from lucid.prediction import Predictor

if TYPE_CHECKING:
    from lucid import _native
    from lucid.models import MobileNet

__all__ = ["Engine", "Peak", "StepTime", "isas", "measure_bandwidth", "measure_peak"]

Precision = Literal["int8", "float32", "bfloat16", "float32-split"]
Source = str | Path | Checkpoint | FloatNetwork | Int8Network

PRECISIONS: tuple[Precision, ...] = ("int8", "float32", "bfloat16", "float32-split")
MAX_THREADS = 1024
_EXPLAINED_AT_ONCE = 4  # the reference needs some 50 MB an image at resolution 224


@dataclass(frozen=True)
class Peak:
    """The most that one thread can do here: ``multiply_adds`` a second, by ``instruction``."""

    instruction: str
    multiply_adds: float


@dataclass(frozen=True)
class StepTime:
    """What one step of a network took for one image.

    ``layers`` are the names of the layers that it runs in one go, ``seconds`` the median,
    ``multiply_adds`` the arithmetic; bytes are those of the weights as the kernels store them, and
    of the activations that are read and written. ``peak`` is how many multiply-adds a second the
    engine's threads could do at most, on as many cores as this process may use, measured just
    before; None where ``measure_peak`` knows none.
    """

    layers: tuple[str, ...]
    seconds: float
    multiply_adds: int
    weight_bytes: int
    activation_bytes: int
    peak: float | None

    @property
    def share(self) -> float | None:
        """Of the peak that was reached, 0 to 1."""
        return None if self.peak is None else self.multiply_adds / self.seconds / self.peak


class Engine(Predictor):
    """A network in the native engine, ready to run from any number of threads at once.

    Args:
        source: the path of a network or checkpoint file, told apart by content, or what one holds.
        precision: ``"int8"``, of an int8 network only; ``"float32"``; ``"bfloat16"``; or
            ``"float32-split"``, each float32 product as three of bfloat16, whose logits are within
            3e-5 of their range. As the network is stored when left out.
        threads: for one call, 1 to 1024; None for one each processor this process may use. A call
            that comes while another is using them runs on its own thread alone.
        isa: an instruction set of ``isas``; left out, the variable ``LUCID_ISA``, or the best here.
    Raises:
        CheckpointError: the file is missing, truncated, foreign or inconsistent.
        ConfigError: an argument is out of range, unknown, or the CPU lacks what it asks for; or the
            precision can't be had from this source.
        NetworkError: a network has numbers that could overflow.
        OutOfMemoryError: the weights need more memory than there is.
    """

    def __init__(
        self,
        source: Source,
        precision: Precision | None = None,
        threads: int | None = 1,
        isa: str | None = None,
    ) -> None:
        if precision is not None:
            check_choice("precision", precision, PRECISIONS)
        if threads is not None:
            check_integer("threads", threads, 1, MAX_THREADS)
        if isa is not None and not (isinstance(isa, str) and isa.isascii()):
            raise ConfigError(f"isa must be a name that isas() gives, got {isa!r}")
        options = (precision or "", isa or "", threads or 0)
        try:
            self._origin = _opened(source)
            if isinstance(self._origin, Checkpoint) and precision == "int8":
                raise ConfigError(
                    "int8 needs an int8 network, which is made from a checkpoint and photos; "
                    "run: lucid quantize"
                )
            self._native, layers, description = _loaded(self._origin, options)
        except MemoryError as error:
            raise OutOfMemoryError(
                "there is not enough memory for the network's weights"
            ) from error
        self._layers = layers
        self._provenance = description.provenance
        super().__init__(description.class_names, description.preprocessing)

    def __repr__(self) -> str:
        side = self.preprocessing.resolution
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"<lucid.Engine: {self.title}, {side}x{side}, {len(self.class_names)} classes, "
            f"{self.isa}, {threads}>"
        )

    @property
    def precision(self) -> Precision:
        """In which it computes."""
        return self._native.precision

    @property
    def isa(self) -> str:
        """The instruction set of its kernels."""
        return self._native.isa

    @property
    def threads(self) -> int:
        """That one call uses."""
        return self._native.threads

    @property
    def provenance(self) -> Mapping[str, JSON]:
        """Where the network came from."""
        return self._provenance

    @property
    def title(self) -> str:
        """What the network is, in a few words."""
        if isinstance(self._origin, Checkpoint):
            width = self._origin.arguments.width_multiplier
            return f"MobileNet, width multiplier {width:g}, in {self.precision}"
        return f"{self.precision} network"

    @property
    def map_side(self) -> int:
        """Cells along each side of a class-activation map; one cell alone shows no place."""
        side = self.preprocessing.resolution
        for layer in self._layers[:-2]:  # without pool and classifier
            side = layer.output_side(side)
        return side

    @cached_property
    def model(self) -> MobileNet:
        """The checkpoint's PyTorch model, made when it is first asked for.

        It is a copy: the engine does not see what is changed in it.

        Raises:
            ConfigError: the engine was made from a network, which holds no such model.
            MissingDependencyError: PyTorch is not installed.
        """
        if not isinstance(self._origin, Checkpoint):
            raise ConfigError("a network has no PyTorch model; open the checkpoint it was made of")
        from lucid.classifier import Classifier

        return Classifier.from_checkpoint(self._origin).model

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits of images of any size, but none smaller than the network's total stride.

        uint8 (N, H, W, C) or one image (H, W, C), contiguous or not -> float32 (N, K) or (K,). The
        first call for a size plans it and allocates memory, later ones do neither.

        Raises:
            OutOfMemoryError: images of this size, or so many, need more memory than there is.
            ShapeError: another shape or dtype, or images too large, or smaller than the total
                stride (than the resolution that the network was made for, where that is less).
        """
        if not isinstance(pixels, np.ndarray) or pixels.ndim not in (3, 4):
            raise self._no_images(pixels)
        batch = pixels if pixels.ndim == 4 else pixels[np.newaxis]
        if batch.dtype != np.uint8 or batch.shape[3] != self.preprocessing.channels:
            raise self._no_images(pixels)
        try:
            if not batch.flags.c_contiguous:
                self._native.plan(*batch.shape[1:3])  # before a copy is made of too large an image
                batch = np.ascontiguousarray(batch)
            logits = np.empty((len(batch), len(self.class_names)), np.float32)
            self._native.run(batch, logits)
        except MemoryError as error:
            count, height, width, _ = batch.shape
            raise OutOfMemoryError(
                f"there is not enough memory to run {count} images of {height}x{width} pixels; "
                "give fewer, or smaller ones"
            ) from error
        return logits if pixels.ndim == 4 else logits[0]

    def profile(self, pixels: Pixels, repetitions: int = 20) -> list[StepTime]:
        """Run one image several times and time each step.

        Args:
            pixels: as in a call; of several images the first is taken.
            repetitions: 1 to 100,000; the median of each step's times counts.
        Raises:
            ConfigError, ShapeError: an argument is out of range.
        """
        check_integer("repetitions", repetitions, 1, 100_000)
        if isinstance(pixels, np.ndarray) and pixels.ndim == 4:
            if len(pixels) == 0:
                raise ShapeError("profile() needs an image, got a batch of none")
            pixels = pixels[:1]
        self(pixels)  # refuses what is no image, and warms up
        one = measure_peak(self.precision, self.isa)
        peak = None if one is None else one.multiply_adds * min(self.threads, cores())
        image = np.ascontiguousarray(pixels.reshape(1, *pixels.shape[-3:]))
        rows = self._native.profile(image, repetitions)
        return [StepTime(tuple(row[0]), *row[1:], peak) for row in rows]

    def _logits(self, pixels: Pixels) -> NDArray[np.float32]:
        return self(pixels)

    def _maps(self, pixels: Pixels, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        maps = np.empty((len(pixels), self.map_side, self.map_side), np.float32)
        for start in range(0, len(pixels), _EXPLAINED_AT_ONCE):
            part = slice(start, start + _EXPLAINED_AT_ONCE)
            maps[part] = reference.class_activation_maps(self._network, pixels[part], classes[part])
        return maps

    @cached_property
    def _network(self) -> FloatNetwork | Int8Network:
        """The same network for what the kernels don't give: the values before the pool."""
        origin = self._origin
        return read_network(origin) if isinstance(origin, Path) else _lowered(origin)

    def _no_images(self, pixels: object) -> ShapeError:
        channels = self.preprocessing.channels
        expected = (
            f"the engine expects uint8 images (N, H, W, {channels}) or one (H, W, {channels})"
        )
        if not isinstance(pixels, np.ndarray):
            name = type(pixels).__name__
            return ShapeError(f"{expected}, got {name}; predict() takes a list of files")
        hint = ""
        if pixels.ndim in (3, 4) and pixels.shape[-3] == channels != pixels.shape[-1]:
            hint = "; channels come first: transpose to (N, H, W, C)"
        elif pixels.dtype != np.uint8:
            hint = "; give the pixels as they are, 0 to 255, not normalised"
        return ShapeError(f"{expected}, got {pixels.dtype} {pixels.shape}{hint}")


def isas(precision: Precision, *, runnable: bool = True) -> list[str]:
    """Instruction sets with kernels for a precision, best first.

    Args:
        precision: as in ``Engine``.
        runnable: those that this CPU has; otherwise all of this installation.
    Raises:
        ConfigError: another precision.
    """
    check_choice("precision", precision, PRECISIONS)
    found: list[str] = _module().isas(precision, runnable)
    return found


def measure_peak(
    precision: Precision, isa: str | None = None, *, seconds: float = 0.02
) -> Peak | None:
    """How fast one thread can run the instruction that a set of kernels is bound by, alone.

    None if that is not known: of plain C++, or of a compiler without GNU assembly.

    Args:
        precision: as in ``Engine``.
        isa: as in ``Engine``.
        seconds: to measure, about.
    Raises:
        ConfigError: an argument is unknown, or the CPU lacks it.
    """
    check_choice("precision", precision, PRECISIONS)
    instruction, multiply_adds = _module().measure_peak(precision, isa or "", seconds)
    return Peak(instruction, multiply_adds) if instruction else None


def measure_bandwidth(size: int, *, seconds: float = 0.02) -> float | None:
    """Bytes that one thread can load in a second from ``size`` bytes, again and again.

    Of the L1 cache when they fit it, and so on. None where vector loads are not known.

    Args:
        size: in bytes, 1 to 1,073,741,824.
        seconds: to measure, about.
    Raises:
        ConfigError: the size is out of range.
    """
    check_integer("size", size, 1, 1 << 30)
    return _module().measure_bandwidth(size, seconds) or None


def _opened(source: Source) -> Path | Checkpoint | FloatNetwork | Int8Network:
    """The source, but of a path what the file holds; a network file stays a path."""
    if isinstance(source, str | Path):
        return Path(source) if is_network(source) else read_checkpoint(source)
    if isinstance(source, Checkpoint | FloatNetwork | Int8Network):
        return source
    raise ConfigError(
        "source must be the path of a network or checkpoint file, or what one holds; "
        f"got {type(source).__name__}"
    )


def _lowered(origin: Checkpoint | FloatNetwork | Int8Network) -> FloatNetwork | Int8Network:
    return lower(origin) if isinstance(origin, Checkpoint) else origin


def _loaded(
    origin: Path | Checkpoint | FloatNetwork | Int8Network, options: tuple[str, str, int]
) -> tuple[_native.Engine, Sequence[Layer], Description]:
    if isinstance(origin, Path):
        engine, header = _load_file(origin, options)
        return engine, header.layers, header.description
    network = _lowered(origin)
    engine = _module().load_bytes(network_bytes(network), *options)
    return engine, network.layers, network


def _load_file(path: Path, options: tuple[str, str, int]) -> tuple[_native.Engine, NetworkHeader]:
    try:
        engine = _load_path(path, options)
        return engine, parse_header(json.loads(engine.text))
    except (CheckpointError, NetworkError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _load_path(path: Path, options: tuple[str, str, int]) -> _native.Engine:
    engine: _native.Engine
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the native side takes paths in UTF-8 alone
        engine = _module().load_bytes(path.read_bytes(), *options)
    else:
        engine = _module().load_file(str(path), *options)
    return engine


with suppress(ImportError):  # here, so that no engine waits for it; who needs it says what is wrong
    importlib.import_module("lucid._native")


def _module() -> ModuleType:
    try:
        return importlib.import_module("lucid._native")
    except ImportError as error:
        raise MissingDependencyError(
            f"this installation of lucid has no native engine ({error}); install it again, with a "
            "C++17 compiler at hand: pip install --force-reinstall lucid-mobilenet"
        ) from error
