"""The C export on a Cortex-M4 and a Cortex-M55, in QEMU: the reference's bytes."""

from __future__ import annotations

import re
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

pytestmark = pytest.mark.skipif(
    emulate.missing_program() is not None, reason=f"no {emulate.missing_program()}"
)


@pytest.fixture(params=list(emulate.BOARDS))
def board(request: pytest.FixtureRequest) -> str:
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


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_kernels_equal_the_portable_ones(board: str, level: str, tmp_path: Path) -> None:
    """Random sizes, paddings, strides, rows at once and extremes; nothing else is written."""
    flags = [*STRICT, level, "-I", str(RUNTIME)]
    renamed = [f"-Dlucid_{name}=portable_{name}" for name in FUNCTIONS]
    compiler = [emulate.COMPILER, *emulate.BOARDS[board].flags, *flags]
    portable = tmp_path / "portable.o"
    subprocess.run(
        [
            *compiler,
            "-DLUCID_PORTABLE",
            *renamed,
            "-c",
            RUNTIME / "kernels_portable.c",
            "-o",
            portable,
        ],
        check=True,
    )
    files = [Path(__file__).parent / "embedded" / "kernels.c", portable]
    files += sorted(RUNTIME.glob("kernels_*.c"))
    chosen = f"-DINSTRUCTION_SET=LUCID_{KERNELS[board]}"
    program = compiled(board, files, tmp_path / "kernels.elf", *flags, chosen)
    result = emulate.run(emulate.BOARDS[board], program, ["40"])
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
