"""The engine without Python: its C interface, its memory, sanitizers and a fuzzer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from model_helpers import network_of, random_pixels, steady_model
from test_network_fuzz import FLOAT_VALID, VALID

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.engine import PRECISIONS, Precision, isas
from lucid.network import FloatNetwork, Int8Network, write_network
from lucid.quantization import measure_ranges, quantise

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
EXAMPLE = ROOT / "examples" / "classify.c"
SIDE = 40

ADDRESS = "-DLUCID_SANITIZE=address,undefined"
SCALAR = "-DLUCID_SETS=scalar"  # of the kernels, where they are not what is tested

STORED: tuple[Precision, ...] = ("int8", "float32")

Build = Callable[..., Path]
Network = FloatNetwork | Int8Network


def needed(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: scripts/install-system-packages installs it")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a program of native/tests; each set of options has one folder."""
    folders: dict[tuple[str, ...], Path] = {}

    def make(target: str, *options: str, compiler: str = "c++") -> Path:
        needed("cmake", compiler)
        options += (f"-DCMAKE_CXX_COMPILER={compiler}",)
        if options not in folders:
            folder = folders[options] = tmp_path_factory.mktemp("build")
            command = ["cmake", "-S", NATIVE, "-B", folder, "-DLUCID_TESTS=ON", *options]
            subprocess.run(command, check=True, capture_output=True)
        command = ["cmake", "--build", folders[options], "--parallel", "2", "--target", target]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return folders[options] / target

    return make


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """Up to 102 channels a layer, no multiple of a vector's among them."""
    floating = network_of(steady_model(MobileNetArguments(0.1, 7)))
    ranges = measure_ranges(floating, [random_pixels((1, SIDE, SIDE, 3))])
    return {"float32": floating, "int8": quantise(floating, ranges)}


@pytest.fixture(scope="module")
def files(
    networks: dict[str, Network], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    for name, network in networks.items():
        write_network(folder / name, network)
    return {name: folder / name for name in networks}


def run(*command: object, isa: str = "") -> str:
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1", "LUCID_ISA": isa}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_c_interface(build: Build, files: dict[str, Path], networks: dict[str, Network]) -> None:
    network = networks["int8"]
    unknown, missing, about, step, *logits = run(
        build("use_from_c", SCALAR), files["int8"], SIDE
    ).splitlines()
    assert unknown.startswith("isa: 'none such' is no instruction set")
    assert "can't be opened" in missing
    channels, resolution = network.preprocessing.channels, network.preprocessing.resolution
    assert about == f"int8 scalar {channels} {resolution} {network.class_names[0]}"
    assert step == "fc"
    pixels = np.full((1, SIDE, SIDE, channels), 100, np.uint8)
    expected = reference.run(network, pixels)[0]
    np.testing.assert_array_equal(np.array(logits, np.float32), expected)


@pytest.fixture(scope="module")
def installed(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as ``cmake --install`` leaves it."""
    folder = build("lucid_engine", SCALAR).parent
    prefix = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", folder, "--component", "engine", "--prefix", prefix)
    return prefix


PROJECT = f"""
cmake_minimum_required(VERSION 3.18)
project(classify LANGUAGES C CXX)
find_package(lucid_engine {version("lucid-mobilenet")} EXACT REQUIRED)
add_executable(classify "{EXAMPLE}")
target_link_libraries(classify PRIVATE lucid::lucid_engine)
"""


def with_cmake(installed: Path, folder: Path) -> Path:
    (folder / "CMakeLists.txt").write_text(PROJECT)
    run("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", folder / "build")
    return folder / "build" / "classify"


def with_pkg_config(installed: Path, folder: Path) -> Path:
    needed("pkg-config", "cc")
    (file,) = installed.rglob("lucid_engine.pc")
    flags = run("pkg-config", "--cflags", "--libs", file).split()
    run("cc", EXAMPLE, *flags, "-o", folder / "classify")
    return folder / "classify"


@pytest.mark.parametrize("made", [with_cmake, with_pkg_config])
def test_a_program_finds_what_is_installed(
    made: Callable[[Path, Path], Path],
    installed: Path,
    files: dict[str, Path],
    networks: dict[str, Network],
    tmp_path: Path,
) -> None:
    program = made(installed, tmp_path)
    network = networks["int8"]
    side = network.preprocessing.resolution
    pixels = random_pixels((1, side, side, network.preprocessing.channels))
    pixels.tofile(tmp_path / "pixels")
    best = network.class_names[reference.run(network, pixels)[0].argmax()]
    assert run(program, files["int8"], tmp_path / "pixels") == f"{best}, on scalar\n"


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_is_allocated_after_the_first_run(
    build: Build, files: dict[str, Path], precision: str, threads: int
) -> None:
    assert run(build("count_allocations", SCALAR), files[precision], SIDE, threads) == "0\n"


@pytest.mark.parametrize(
    ("precision", "isa"), [(precision, isa) for precision in PRECISIONS for isa in isas(precision)]
)
def test_kernels_stay_in_their_memory(
    build: Build, files: dict[str, Path], precision: str, isa: str
) -> None:
    stored = "int8" if precision == "int8" else "float32"
    run(build("run_at_once", ADDRESS), files[stored], SIDE, precision, isa)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_threads_do_not_race(build: Build, files: dict[str, Path], precision: str) -> None:
    program = build("run_at_once", "-DLUCID_SANITIZE=thread", SCALAR)
    run(program, files[precision], SIDE, precision, "scalar")


def test_altered_files_do_no_harm(build: Build, small_files: list[Path]) -> None:
    run(build("fuzz_load", ADDRESS, SCALAR), 5000, *small_files)


@pytest.mark.parametrize(
    ("precision", "isa"), [(name, isa) for name in STORED for isa in isas(name)[:2]]
)
def test_altered_files_do_no_harm_to_the_best_sets(
    build: Build, small_files: list[Path], precision: Precision, isa: str
) -> None:
    (path,) = (path for path in small_files if path.name == precision)
    run(build("fuzz_load", ADDRESS), 20_000, path, isa=isa)


def test_fuzzed_files_do_no_harm(build: Build, small_files: list[Path], tmp_path: Path) -> None:
    """libFuzzer, which looks for files that take new paths."""
    options = ("-DLUCID_SANITIZE=fuzzer-no-link,address,undefined", SCALAR)
    program = build("fuzz_load", *options, compiler="clang++")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in small_files:
        shutil.copy(path, corpus)
    run(program, "-max_total_time=20", "-timeout=20", "-rss_limit_mb=2048", corpus)


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Networks of one pair, so that most of a file is its header."""
    folder = tmp_path_factory.mktemp("small")
    found = []
    for name, content in {"int8": VALID, "float32": FLOAT_VALID}.items():
        found.append(folder / name)
        found[-1].write_bytes(content)
    return found
