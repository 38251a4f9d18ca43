"""The C export on CPUs that this machine is not, in emulators: the same bytes on real photos."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import emulate
import numpy as np
import pytest
from c_helpers import WARNINGS, c_network, random_pixels
from numpy.typing import NDArray

from lucid import reference
from lucid.exporters.c import CExport, to_c
from lucid.exporters.c.host import run
from lucid.exporters.c.source import verifier
from lucid.images import IMAGE_SUFFIXES, Pixels, load
from lucid.network import Int8Network
from lucid.quantization import measure_ranges, quantise

PHOTOS = 100

Runner = Callable[[CExport, Pixels, Path], NDArray[np.float32]]


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


def linux(compiler: str, emulator: str, *flags: str) -> Runner:
    """A whole program for another CPU under Linux."""

    def runner(exported: CExport, pixels: Pixels, _: Path) -> NDArray[np.float32]:
        need(compiler, emulator)
        command = [compiler, *WARNINGS, "-static", *flags]
        return run(exported, pixels, compiler=command, runner=[emulator])

    return runner


# There is no C library: the runtime needs none, and compilers turn loops into these two.
MEMORY_FUNCTIONS = """
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size) {
  char *volatile out = to;
  size_t k;
  for (k = 0; k < size; ++k) out[k] = ((const char *)from)[k];
  return to;
}
void *memset(void *to, int value, size_t size) {
  char *volatile out = to;
  size_t k;
  for (k = 0; k < size; ++k) out[k] = (char)value;
  return to;
}
"""

EXPORTS = """
#include "model.h"
#define EXPORT(name) __attribute__((export_name(#name)))
static model_state state;
static uint8_t image[MODEL_IMAGE_BYTES];
static float logits[MODEL_CLASSES];
EXPORT(image) uint8_t *image_place(void);
EXPORT(logits) float *logits_place(void);
EXPORT(run) void run_image(void);
uint8_t *image_place(void) { return image; }
float *logits_place(void) { return logits; }
void run_image(void) { model_logits(&state, image, logits); }
"""

SCRIPT = """
const fs = require("fs");
const [bytes, classes] = JSON.parse(process.argv[2]);
WebAssembly.instantiate(fs.readFileSync("model.wasm"), {}).then(({ instance }) => {
  const { memory, image, logits, run } = instance.exports;
  const images = fs.readFileSync("images.bin");
  const found = [];
  for (let start = 0; start < images.length; start += bytes) {
    new Uint8Array(memory.buffer).set(images.subarray(start, start + bytes), image());
    run();
    found.push(Buffer.from(memory.buffer.slice(logits(), logits() + 4 * classes)));
  }
  fs.writeFileSync("logits.bin", Buffer.concat(found));
});
"""


def webassembly(*flags: str) -> Runner:
    """A module without imports, in node."""

    def runner(exported: CExport, pixels: Pixels, folder: Path) -> NDArray[np.float32]:
        need("clang", "wasm-ld", "node")
        sources = exported.write(folder / "sources")
        (folder / "memory.c").write_text(MEMORY_FUNCTIONS)
        (folder / "exports.c").write_text(EXPORTS)
        (folder / "run.js").write_text(SCRIPT)
        (folder / "images.bin").write_bytes(pixels.tobytes())
        command = ["clang", "--target=wasm32", "-nostdlib", "-O2", "-std=c99", *WARNINGS, *flags]
        link = ["-Wl,--no-entry", "-I", "sources", "-o", "model.wasm"]
        units = [*sources.glob("model*.c"), "memory.c", "exports.c"]
        subprocess.run([*command, *link, *units], cwd=folder, check=True)
        classes = exported.plan.layers[-1].out_channels
        sizes = json.dumps([exported.plan.image_bytes, classes])
        subprocess.run(["node", "run.js", sizes], cwd=folder, check=True)
        return np.fromfile(folder / "logits.bin", np.float32).reshape(len(pixels), classes)

    return runner


def soft_float(core: str) -> Runner:
    """A Cortex-M without an FPU, whose compiler's library computes with float; M0+ runs on M3."""
    board = emulate.Board(core, "mps2-an385", (f"-mcpu={core}", "-mthumb"), 25_000_000)

    def runner(exported: CExport, pixels: Pixels, folder: Path) -> NDArray[np.float32]:
        need(emulate.COMPILER, emulate.EMULATOR)
        sources = exported.write(folder / "sources")
        (folder / "images.bin").write_bytes(pixels.tobytes())
        (folder / "verify.c").write_text(verifier(exported.prefix))
        units = [*sources.glob("model*.c"), folder / "verify.c"]
        flags = ["-O2", "-std=c99", *WARNINGS, "-I", str(sources)]
        program = emulate.build(board, units, folder / "verify.elf", flags)
        result = emulate.run(board, program, cwd=folder)
        assert result.returncode == 0, (result.returncode, result.stdout, result.stderr)
        classes = exported.plan.layers[-1].out_channels
        return np.fromfile(folder / "logits.bin", np.float32).reshape(len(pixels), classes)

    return runner


TARGETS: dict[str, Runner] = {
    "AArch64": linux("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "RISC-V": linux("riscv64-linux-gnu-gcc", "qemu-riscv64"),
    "WebAssembly": webassembly(),
    "WebAssembly, 128-bit vectors": webassembly("-msimd128"),
    "Cortex-M3": soft_float("cortex-m3"),
    "Cortex-M0+": soft_float("cortex-m0plus"),
}


@pytest.fixture(scope="module")
def wake_words(shared: Path) -> tuple[Int8Network, Pixels]:
    """MLPerf Tiny's visual wake words network in int8, and real photos."""
    pytest.importorskip("torch")
    from lucid.importers import import_weights
    from lucid.lowering import lower

    network = lower(import_weights(shared / "models" / "vww_96_float.tflite"))
    folder = shared / "data" / "imagenet-sample"
    paths = sorted(each for each in folder.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
    pixels = np.stack([load(path, network.preprocessing) for path in paths[:PHOTOS]])
    assert len(pixels) == PHOTOS
    return quantise(network, measure_ranges(network, [pixels[:32]])), pixels


@pytest.mark.parametrize("target", TARGETS)
def test_real_photos(wake_words: tuple[Int8Network, Pixels], tmp_path: Path, target: str) -> None:
    network, pixels = wake_words
    if target.startswith("Cortex"):
        pixels = pixels[: PHOTOS // 10]  # ten times as slow
    expected = reference.run(network, pixels)
    assert len(np.unique(expected[:, 0])) > len(pixels) / 2, "the logits hardly depend on the image"
    found = TARGETS[target](to_c(network), pixels, tmp_path)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_odd_shapes(tmp_path: Path, target: str) -> None:
    """Channels that fill no vector, an odd side, grey, ReLU6."""
    network = c_network(
        *(19, "L"), width_multiplier=0.07, num_classes=7, activation="relu6", padding="same"
    )
    pixels = random_pixels(4, 19, 1, seed=2)
    found = TARGETS[target](to_c(network), pixels, tmp_path)
    assert found.tobytes() == reference.run(network, pixels).tobytes()
