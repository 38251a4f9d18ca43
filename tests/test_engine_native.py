"""The engine without Python: its C interface, its memory, sanitizers and a fuzzer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import small_checkpoint

from lucid import reference
from lucid.lowering import lower
from lucid.network import FloatNetwork, Int8Network, write_network
from lucid.quantization import quantise

NATIVE = Path(__file__).parents[1] / "native"
SIDE = 40

Build = Callable[..., Path]


def needed(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: scripts/install-system-packages installs it")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a program of native/tests with sanitizers; each set of them has one folder."""
    folders: dict[str, Path] = {}

    def make(target: str, sanitize: str = "", compiler: str = "c++") -> Path:
        needed("cmake", compiler)
        if sanitize not in folders:
            folder = folders[sanitize] = tmp_path_factory.mktemp("build")
            options = [f"-DLUCID_SANITIZE={sanitize}", f"-DCMAKE_CXX_COMPILER={compiler}"]
            command = ["cmake", "-S", NATIVE, "-B", folder, "-DLUCID_TESTS=ON", *options]
            subprocess.run(command, check=True, capture_output=True)
        command = ["cmake", "--build", folders[sanitize], "--parallel", "2", "--target", target]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return folders[sanitize] / target

    return make


@pytest.fixture(scope="module")
def networks() -> dict[str, FloatNetwork | Int8Network]:
    floating = lower(small_checkpoint())
    int8 = quantise(floating, {layer.name: 4.0 for layer in floating.layers[:-1]})
    return {"float32": floating, "int8": int8}


@pytest.fixture(scope="module")
def files(
    networks: dict[str, FloatNetwork | Int8Network], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    for name, network in networks.items():
        write_network(folder / name, network)
    return {name: folder / name for name in networks}


def run(*command: object) -> str:
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_c_interface(
    build: Build, files: dict[str, Path], networks: dict[str, FloatNetwork | Int8Network]
) -> None:
    network = networks["int8"]
    unknown, missing, about, step, *logits = run(
        build("use_from_c"), files["int8"], SIDE
    ).splitlines()
    assert unknown.startswith("isa: 'none such' is no instruction set")
    assert "can't be opened" in missing
    channels, resolution = network.preprocessing.channels, network.preprocessing.resolution
    assert about == f"int8 scalar {channels} {resolution} {network.class_names[0]}"
    assert step == "fc"
    pixels = np.full((1, SIDE, SIDE, channels), 100, np.uint8)
    expected = reference.run(network, pixels)[0]
    np.testing.assert_array_equal(np.array(logits, np.float32), expected)


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_is_allocated_after_the_first_run(
    build: Build, files: dict[str, Path], precision: str, threads: int
) -> None:
    assert run(build("count_allocations"), files[precision], SIDE, threads) == "0\n"


@pytest.mark.parametrize("sanitize", ["address,undefined", "thread"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_callers_at_once_under_sanitizers(
    build: Build, files: dict[str, Path], sanitize: str, precision: str
) -> None:
    run(build("run_at_once", sanitize), files[precision], SIDE)


def test_altered_files_under_sanitizers(build: Build, files: dict[str, Path]) -> None:
    run(build("fuzz_load", "address,undefined"), 2000, *files.values())


def test_fuzzed_files(build: Build, files: dict[str, Path], tmp_path: Path) -> None:
    """libFuzzer, which looks for files that take new paths."""
    program = build("fuzz_load", "fuzzer-no-link,address,undefined", "clang++")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in files.values():
        shutil.copy(path, corpus)
    run(program, "-max_total_time=20", "-timeout=10", "-rss_limit_mb=2048", corpus)
