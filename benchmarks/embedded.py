"""Executed instructions of the C export on Cortex-M4 and M55, layer by layer, in QEMU.

    python benchmarks/embedded.py NETWORK [--photo FILE]

NETWORK is in int8; for the comparison with CMSIS-NN it is MLPerf Tiny's visual wake words network
(`lucid import vww_96_float.tflite`, `lucid quantize`). The logits are compared with the reference,
byte for byte. Instructions are not cycles, of which QEMU has no model; they are exact and the same
on every computer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, write_results

from lucid import reference
from lucid.benchmark.samples import photo_like
from lucid.exporters.c import to_c
from lucid.images import load
from lucid.network import Int8Network, read_network, sized_layers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples" / "bare_metal"))

import emulate  # noqa: E402

LEVELS = ("-O2", "-Os")
KERNELS = {"cortex-m4": "DSP", "cortex-m55": "MVE"}

# SysTick has 24 bits: a long tick for all layers together, a short one for each.
SHIFT_ALL, SHIFT_LAYER = 2, 6

# CMSIS-NN's int8 kernels (2026-07) on the same network, arm-none-eabi-gcc 12.2, without an
# interpreter, the softmax and the input's quantisation: instructions in the same QEMU, by kind, at
# -O3; and of the best build that was found (requantisation in inline assembly).
CMSIS_NN = {
    "cortex-m4": {
        "stem": 3_063_015,
        "depthwise": 7_056_505,
        "pointwise": 14_571_134,
        "pool and dense": 18_723,
        "all": 24_709_377,
        "best build": 23_418_948,
    },
    "cortex-m55": {
        "stem": 990_656,
        "depthwise": 2_503_895,
        "pointwise": 2_921_171,
        "pool and dense": 6_184,
        "all": 6_421_906,
        "best build": 6_389_806,
    },
}
CMSIS_NN_MACS = 7_489_664


@dataclass(frozen=True)
class Count:
    """Instructions of one inference.

    Args:
        layers: of each layer.
        all: of all layers and of what runs them.
        code: bytes of code and tables, without weights, biases and multipliers.
    """

    layers: tuple[int, ...]
    all: int
    code: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", type=Path)
    parser.add_argument("--photo", type=Path, help="instead of a random picture")
    options = parser.parse_args()
    if (missing := emulate.missing_program()) is not None:
        sys.exit(f"embedded.py: no {missing}")

    network = read_network(options.network)
    if not isinstance(network, Int8Network):
        sys.exit(f"embedded.py: {options.network} is a float network; use lucid quantize")
    side = network.preprocessing.resolution
    image = (
        photo_like(1, side, side, channels=network.preprocessing.channels)[0]
        if options.photo is None
        else load(options.photo, network.preprocessing)
    )
    counts = {
        (board, kernels, level): _count(network, image, board, kernels, level)
        for board, own in KERNELS.items()
        for kernels in (own, "portable")
        for level in LEVELS
    }
    results = {" ".join(key): asdict(count) for key, count in counts.items()}
    page = _page(network, counts)
    write_results("embedded", describe("numpy") | _tools(), results, page)


def _count(
    network: Int8Network, image: np.ndarray[Any, np.dtype[np.uint8]], board: str, kernels: str,
    level: str,
) -> Count:  # fmt: skip
    target = emulate.BOARDS[board]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in to_c(network, "model").files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        (folder / "image.raw").write_bytes(image.tobytes())
        files = sorted(folder.glob("model*.c"))
        flags = [level, "-std=c99", "-I", name]
        if kernels == "portable":
            flags.append("-DMODEL_PORTABLE")

        def ticks(shift: int, *more: str) -> list[float]:
            program = folder / "embedded.elf"
            emulate.build(target, [*files, HERE / "embedded.c"], program, [*flags, *more])
            result = emulate.run(target, program, ["image.raw"], counted=shift, cwd=folder)
            if result.returncode != 0:
                sys.exit(f"embedded.py: {board} failed: {result.stdout}{result.stderr}")
            return [int(line) / target.ticks_per_instruction(shift) for line in
                    result.stdout.split()]  # fmt: skip

        *layers, _ = ticks(SHIFT_LAYER, "-DMODEL_PROFILE")
        (everything,) = ticks(SHIFT_ALL)
        found = (folder / "logits.bin").read_bytes()
        if found != reference.run(network, image[np.newaxis]).tobytes():
            sys.exit(f"embedded.py: {board}, {kernels} kernels differ from the reference")
        code = _code_bytes(target, files, folder, flags) - to_c(network, "model").const_bytes
    return Count(tuple(map(round, layers)), round(everything), code)


def _code_bytes(board: emulate.Board, files: list[Path], folder: Path, flags: list[str]) -> int:
    """Of code and constants that the linker keeps for a program that calls model_logits."""
    out = folder / "code.o"
    command = [emulate.COMPILER, *board.flags, *flags, "-ffunction-sections", "-fdata-sections"]
    linking = ["-r", "-nostdlib", "-Wl,--gc-sections", "-Wl,--entry=model_logits", "-o", str(out)]
    subprocess.run([*command, *map(str, files), *linking], check=True)
    lines = subprocess.run(
        ["arm-none-eabi-size", "-A", str(out)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    sections = [line.split() for line in lines if line.startswith((".text", ".rodata"))]
    return sum(int(size) for _, size, _ in sections)


def _tools() -> dict[str, str]:
    first = [
        subprocess.run([name, "--version"], check=True, capture_output=True, text=True).stdout
        for name in (emulate.COMPILER, emulate.EMULATOR)
    ]
    flags = {name: " ".join(board.flags) for name, board in emulate.BOARDS.items()}
    return {
        "compiler": first[0].splitlines()[0],
        "emulator": first[1].splitlines()[0],
        **{f"flags, {name}": f"{value} -std=c99" for name, value in flags.items()},
    }


def _page(network: Int8Network, counts: dict[tuple[str, str, str], Count]) -> str:
    side = network.preprocessing.resolution
    layers = sized_layers(network.layers, side, side)
    macs = sum(layer.multiply_adds for layer in layers)
    lines = [
        f"# Microcontrollers: {macs:,} multiply-adds at {side}x{side}",
        "",
        "Executed instructions of one inference, image to logits, with everything that belongs to "
        "it. All logits equal those of the reference, byte for byte.",
        "",
        "| core | kernels | flags | instructions | per multiply-add | code and tables, bytes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (board, kernels, level), count in counts.items():
        lines.append(
            f"| {emulate.BOARDS[board].core} | {kernels} | {level} | {count.all:,} "
            f"| {count.all / macs:.2f} | {count.code:,} |"
        )
    best = {board: counts[board, own, LEVELS[0]] for board, own in KERNELS.items()}
    if macs == CMSIS_NN_MACS:
        lines += ["", *_comparison([layer.kind for layer in layers], best)]
    lines += [
        "",
        f"## Layers ({LEVELS[0]})",
        "",
        "| layer | output | multiply-adds | " + " | ".join(best) + " |",
        "| --- | --- | --- |" + " --- |" * len(best),
    ]
    for index, layer in enumerate(layers):
        shape = "x".join(map(str, layer.output_shape))
        own = " | ".join(f"{count.layers[index]:,}" for count in best.values())
        lines.append(f"| {layer.name} | {shape} | {layer.multiply_adds:,} | {own} |")
    return "\n".join(lines)


def _comparison(kinds: list[str], best: dict[str, Count]) -> list[str]:
    """Beside CMSIS-NN on the same network."""
    lines = [
        "## Beside CMSIS-NN",
        "",
        "Its kernels alone on the same network, without an interpreter.",
        "",
        "| core | layers | CMSIS-NN -O3 | lucid | lucid / CMSIS-NN |",
        "| --- | --- | --- | --- | --- |",
    ]
    for board, count in best.items():
        groups = {"pool and dense": 0, "stem": 0, "depthwise": 0, "pointwise": 0}
        for kind, instructions in zip(kinds, count.layers, strict=True):
            groups[kind if kind in groups else "pool and dense"] += instructions
        for name, theirs in CMSIS_NN[board].items():
            own = groups.get(name, count.all)
            lines.append(
                f"| {emulate.BOARDS[board].core} | {name} | {theirs:,} | {own:,} "
                f"| {own / theirs:.2f} |"
            )
    return lines


if __name__ == "__main__":
    main()
