"""Boards with their memory and clock; whether an export fits one, and what would."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from lucid.architecture import MobileNetArguments
from lucid.errors import ConfigError, suggest
from lucid.exporters.c.plan import Plan, make_plan
from lucid.exporters.c.source import STACK_BYTES, const_bytes, table_bytes
from lucid.network import SizedLayer, layers, sized_layers, totals

__all__ = ["Board", "Core", "Need", "boards", "check_fits", "find_board", "latency"]

# What the program around the network takes at least: start-up code, a driver, its own variables.
OTHER_FLASH = 16 * 1024
OTHER_RAM = 4 * 1024

# What is looked at for a board that is too small.
_WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.05)
_RESOLUTIONS = (224, 192, 160, 128, 96, 64, 48, 32)


@dataclass(frozen=True)
class Core:
    """A kind of processor.

    Args:
        code_bytes: of the kernels and the runtime.
        instructions: for one multiply-add, by kind of layer; empty where they were not counted.
        cycles: of an instruction, from best to worst; an assumption.
    """

    code_bytes: int
    instructions: Mapping[str, float]
    cycles: tuple[float, float]


@dataclass(frozen=True)
class Board:
    """A board.

    Args:
        name: what ``--board`` takes.
        title: its own name, and its chip.
        core: of ``cores``.
        clock_mhz: its highest clock.
        flash_kib: where constants and code lie.
        ram_kib: in one piece.
        source: address of the page that says so.
    """

    name: str
    title: str
    core: str
    clock_mhz: int
    flash_kib: int
    ram_kib: int
    source: str

    @property
    def flash(self) -> int:
        """Bytes of flash that are left for a network."""
        return 1024 * self.flash_kib - OTHER_FLASH

    @property
    def ram(self) -> int:
        """Bytes of RAM that are left for a network."""
        return 1024 * self.ram_kib - OTHER_RAM


@dataclass(frozen=True)
class Need:
    """What a network takes of a device.

    Args:
        flash: weights, tables and code, in bytes.
        rows: RAM in bytes when the rows of the image are pushed.
        image: RAM in bytes when the whole image stands in memory.
    """

    flash: int
    rows: int
    image: int


@cache
def boards() -> Mapping[str, Board]:
    """All boards by name."""
    values = _data()["boards"]
    return MappingProxyType({name: Board(name=name, **values[name]) for name in sorted(values)})


def code_bytes() -> dict[str, int]:
    """Of the kernels and the runtime in flash, by kind of processor."""
    return {name: values["code_bytes"] for name, values in _data()["cores"].items()}


def core(name: str) -> Core:
    """What is known of a kind of processor."""
    values = _data()["cores"][name]
    return Core(values["code_bytes"], values.get("instructions", {}), tuple(values["cycles"]))


def find_board(name: str) -> Board:
    """The board of a name; raises ConfigError."""
    known = boards()
    if name not in known:
        near = suggest(name, known)
        raise ConfigError(f"there is no board {name!r}{near or ''}; 'lucid devices' lists all")
    return known[name]


def need(plan: Plan, flash: int) -> Need:
    """What a plan takes, with so many bytes of flash."""
    rows = plan.state_bytes + STACK_BYTES + plan.logits_bytes
    return Need(flash, rows, rows + plan.image_bytes)


def check_fits(board: Board, wanted: Need, *, class_names: Sequence[str], resolution: int) -> str:
    """Say how a network of these classes and so many pixels a side fits a board.

    Raises:
        ConfigError: it does not; the message says by how much, and what would.
    """
    missing = []
    if wanted.flash > board.flash:
        missing.append(f"{wanted.flash - board.flash:,} bytes of flash")
    if wanted.rows > board.ram:
        missing.append(f"{wanted.rows - board.ram:,} bytes of RAM")
    if missing:
        fitting = _largest_fitting(board, class_names, resolution)
        remedy = (
            f"width {fitting[0]:g} at resolution {fitting[1]} would fit"
            if fitting
            else "no MobileNet of these classes would fit; take a larger board"
        )
        raise ConfigError(
            f"{board.title}: the network takes {wanted.flash:,} bytes of flash and {wanted.rows:,} "
            f"of RAM; {' and '.join(missing)} are missing beside {OTHER_FLASH // 1024} and "
            f"{OTHER_RAM // 1024} KiB for the program around it; {remedy}"
        )
    if wanted.image > board.ram:
        return (
            f"fits {board.title} when rows are pushed; a whole image in memory takes "
            f"{wanted.image - board.ram:,} bytes of RAM more than there are"
        )
    return f"fits {board.title}, with the whole image in memory too"


def latency(board: Board, network: tuple[SizedLayer, ...]) -> tuple[float, float] | None:
    """Seconds an image may take, from best to worst; None if the core was not measured.

    Instructions a multiply-add were counted in an emulator for one network; the cycles that each
    takes are assumed. Waiting for slow flash or RAM is not in it.
    """
    known = core(board.core)
    if not known.instructions:
        return None
    count = sum(known.instructions.get(layer.kind, 0) * layer.multiply_adds for layer in network)
    best, worst = known.cycles
    clock = 1e6 * board.clock_mhz
    return count * best / clock, count * worst / clock


def _largest_fitting(
    board: Board, class_names: Sequence[str], resolution: int
) -> tuple[float, int] | None:
    """(width multiplier, resolution) of the network with the most multiply-adds that fits.

    At this resolution, if there is one.
    """
    code = core(board.core).code_bytes
    choices = []
    for width in _WIDTHS:
        arguments = MobileNetArguments(
            width_multiplier=width, num_classes=len(class_names), last_stride=1
        )
        network = layers(arguments)
        for side in {*_RESOLUTIONS, resolution}:
            work = totals(sized_layers(network, side, side)).multiply_adds
            choices.append((side == resolution, work, width, side, network))
    for _, _, width, side, network in sorted(choices, key=lambda each: each[:4], reverse=True):
        flash = const_bytes(network) + code
        if flash > board.flash:
            continue  # before the longer work of a plan
        plan = make_plan(network, side, side)
        wanted = need(plan, flash + table_bytes(plan, class_names))
        if wanted.flash <= board.flash and wanted.rows <= board.ram:
            return width, side
    return None


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((files("lucid.exporters") / "c" / "boards.toml").read_text("utf-8"))
