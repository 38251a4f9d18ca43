"""The C export on a Cortex-M4, a Cortex-M55 and RISC-V with vectors, in QEMU: the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import emulate
import numpy as np
import pytest
from c_helpers import RUNTIME, WARNINGS, c_network, random_pixels

from lucid import reference
from lucid.data.sources import open_data
from lucid.exporters.c import make_plan
from lucid.exporters.c.source import sources, verifier
from lucid.images import Pixels, load
from lucid.importers import import_weights
from lucid.lowering import lower
from lucid.network import Int8Network
from lucid.quantization import measure_ranges, quantise

PHOTOS = 100
KERNELS = {"cortex-m4": "DSP", "cortex-m55": "MVE"}
FUNCTIONS = ("stem_row", "depthwise", "pointwise", "pool", "dense")
STRICT = ("-std=c99", *WARNINGS)

RISCV = ["clang-19", "--target=riscv64-linux-gnu", "-march=rv64gcv", "-static"]


@pytest.fixture(params=list(emulate.BOARDS))
def board(request: pytest.FixtureRequest) -> str:
    if (missing := emulate.missing_program()) is not None:
        pytest.skip(f"no {missing}")
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def wake_words(shared: Path, flowers: Path) -> tuple[Int8Network, Pixels]:
    """MLPerf Tiny's network for visual wake words, and photos of the size that it takes."""
    network = lower(import_weights(shared / "models" / "vww_96_float.tflite"))
    photos = [sample.path for sample in open_data(flowers).samples[::40]]
    pixels = np.stack([load(path, network.preprocessing) for path in photos[:PHOTOS]])
    return quantise(network, measure_ranges(network, [pixels[:16]])), pixels


def compiled(board: str, files: list[Path], out: Path, *flags: str) -> Path:
    try:
        return emulate.build(emulate.BOARDS[board], files, out, flags)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr) from None


def logits(
    board: str, network: Int8Network, pixels: Pixels, folder: Path, *flags: str
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the board answers, whole images and by rows (verify.c compares the two)."""
    plan = make_plan(network.layers, *pixels.shape[1:3])
    for path, text in sources(network, plan, "model", pixels[0]).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "verify.c").write_text(verifier("model"))
    (folder / "images.bin").write_bytes(pixels.tobytes())
    files = [*sorted(folder.glob("model*.c")), folder / "verify.c"]
    program = compiled(board, files, folder / "verify.elf", *STRICT, *flags)
    result = emulate.run(emulate.BOARDS[board], program, cwd=folder)
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr)
    found = np.fromfile(folder / "logits.bin", np.float32)
    return found.reshape(len(pixels), network.layers[-1].out_channels)


def kernel_test(compiler: list[str], kernels: str, folder: Path) -> list[Path]:
    """What tests the kernels of a CPU, but for the linking: kernels.c and objects."""
    renamed = [f"-Dlucid_{name}=portable_{name}" for name in FUNCTIONS]
    portable = ["-DLUCID_PORTABLE", *renamed]
    chosen = [f"-DINSTRUCTION_SET=LUCID_{kernels}", "-I", str(RUNTIME)]
    units = [(RUNTIME / "kernels_portable.c", portable, "portable.o")]
    units += [(path, chosen, f"{path.stem}.o") for path in sorted(RUNTIME.glob("kernels_*.c"))]
    units += [(Path(__file__).parent / "embedded" / "kernels.c", chosen, "main.o")]
    for source, flags, name in units:
        command = [*compiler, *STRICT, *flags, "-c", str(source), "-o", str(folder / name)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    return [folder / name for _, _, name in units]


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_kernels_equal_the_portable_ones(board: str, level: str, tmp_path: Path) -> None:
    """Random sizes, paddings, strides, rows at once and extremes; nothing else is written."""
    compiler = [emulate.COMPILER, *emulate.BOARDS[board].flags, level]
    objects = kernel_test(compiler, KERNELS[board], tmp_path)
    program = compiled(board, objects, tmp_path / "kernels.elf", level)
    result = emulate.run(emulate.BOARDS[board], program, ["40"])
    assert result.stdout.splitlines()[-1:] == ["40 rounds, 0 failures"], result.stdout


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_riscv_vectors_equal_the_portable_kernels(bits: int, tmp_path: Path) -> None:
    for name in (RISCV[0], "qemu-riscv64"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name}")
    objects = kernel_test([*RISCV, "-O2"], "RVV", tmp_path)
    program = tmp_path / "kernels"
    subprocess.run([*RISCV, *map(str, objects), "-o", str(program)], check=True)
    command = ["qemu-riscv64", "-cpu", f"rv64,v=true,vlen={bits}", str(program), "40"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1:] == ["40 rounds, 0 failures"], result.stdout


def test_real_photos(board: str, wake_words: tuple[Int8Network, Pixels], tmp_path: Path) -> None:
    network, photos = wake_words
    right = reference.run(network, photos)
    assert len(np.unique(right, axis=0)) > PHOTOS / 2, "the logits hardly depend on the photo"
    assert logits(board, network, photos, tmp_path, "-O2").tobytes() == right.tobytes()


@pytest.mark.parametrize(
    ("side", "color", "arguments"),
    [
        (33, "RGB", {"width_multiplier": 0.25, "num_classes": 10, "last_stride": 1}),
        (30, "L", {"width_multiplier": 0.1, "num_classes": 5, "activation": "relu6"}),
        (37, "RGB", {"width_multiplier": 0.1, "num_classes": 3, "padding": "same"}),
        (1, "RGB", {"width_multiplier": 0.05, "num_classes": 1000}),
        (64, "L", {"width_multiplier": 0.5, "num_classes": 2, "padding": "same"}),
    ],
    ids=str,
)
def test_other_networks(
    board: str, side: int, color: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    network = c_network(side, color, **arguments)
    pixels = random_pixels(3, side, network.layers[0].in_channels)
    found = logits(board, network, pixels, tmp_path, "-Os")
    assert found.tobytes() == reference.run(network, pixels).tobytes()


def test_code_and_tables_fit(
    board: str, wake_words: tuple[Int8Network, Pixels], tmp_path: Path
) -> None:
    """12 KB on Cortex-M4 beside weights, biases and multipliers, for what the linker keeps."""
    network, photos = wake_words
    plan = make_plan(network.layers, *photos.shape[1:3])
    for path, text in sources(network, plan, "model", photos[0]).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    program = tmp_path / "model.o"
    flags = [*emulate.BOARDS[board].flags, "-std=c99", "-O2", "-ffunction-sections"]
    files = map(str, sorted(tmp_path.glob("model*.c")))
    linking = ["-r", "-nostdlib", "-Wl,--gc-sections", "-Wl,--entry=model_classify"]
    subprocess.run([emulate.COMPILER, *flags, *files, *linking, "-o", str(program)], check=True)
    sizes = subprocess.run(
        ["arm-none-eabi-size", "-A", str(program)], check=True, capture_output=True, text=True
    ).stdout
    held = sum(int(size) for size in re.findall(r"^\.(?:text|rodata)\S*\s+(\d+)", sizes, re.M))
    constants = re.search(r"CONST_BYTES (\d+)", (tmp_path / "model.h").read_text())
    assert constants is not None
    assert 0 < held - int(constants[1]) <= 12 * 1024, sizes
