"""The engine on CPUs that this machine is not: emulated, or with an instruction encoded otherwise.

The engine is built with a small program that runs networks without Python; what it computes is
compared with the reference, byte for byte.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_helpers import generator, int8_networks

from lucid import reference
from lucid.images import Pixels, load
from lucid.lowering import lower
from lucid.network import Int8Network, write_network
from lucid.quantization import measure_ranges, quantise

NATIVE = Path(__file__).parents[1] / "native"
ARM = "aarch64-linux-gnu-g++"
ARM_C = "aarch64-linux-gnu-gcc"

Job = tuple[Int8Network, Pixels]


@dataclass(frozen=True)
class Machine:
    """A CPU: what to build for it, how to run there, and its int8 sets, best first."""

    build: tuple[str, ...]
    emulator: tuple[str, ...]
    isas: tuple[str, ...]


_ARM_BUILD = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_C_COMPILER={ARM_C}",
    f"-DCMAKE_CXX_COMPILER={ARM}",
    "-DCMAKE_EXE_LINKER_FLAGS=-static",
)
MACHINES = {
    "cortex-a53": Machine(_ARM_BUILD, ("qemu-aarch64", "-cpu", "cortex-a53"), ("neon", "scalar")),
    "cortex-a76": Machine(
        _ARM_BUILD, ("qemu-aarch64", "-cpu", "cortex-a76"), ("dotprod", "neon", "scalar")
    ),
    "aarch64": Machine(
        _ARM_BUILD, ("qemu-aarch64", "-cpu", "max"), ("i8mm", "dotprod", "neon", "scalar")
    ),
    # An emulator without AVX-512: an instruction of it would end the program.
    "haswell": Machine((), ("qemu-x86_64", "-cpu", "Haswell"), ("avx2", "scalar")),
    "nehalem": Machine((), ("qemu-x86_64", "-cpu", "Nehalem"), ("scalar",)),
}
# AVX-VNNI's instruction as AVX-512 encodes it, which more machines can execute.
EVEX_BUILD = ("-DLUCID_TEST_EVEX=ON",)

Commands = Callable[[Machine], list[str]]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """What runs the program on a machine; each build is made once."""
    built: dict[tuple[str, ...], str] = {}

    def command(machine: Machine) -> list[str]:
        compiler = ARM if machine.build == _ARM_BUILD else "g++"
        for tool in ("cmake", compiler, *machine.emulator[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"no {tool}: scripts/install-system-packages installs it")
        if machine.build not in built:
            folder = str(tmp_path_factory.mktemp("build"))
            configure = ["cmake", "-S", str(NATIVE), "-B", folder, "-DLUCID_TESTS=ON"]
            make = ["cmake", "--build", folder, "--parallel", "2", "--target", "run_network"]
            for line in ([*configure, *machine.build], make):
                result = subprocess.run(line, capture_output=True, text=True)
                assert result.returncode == 0, result.stdout + result.stderr
            built[machine.build] = f"{folder}/run_network"
        return [*machine.emulator, built[machine.build]]

    return command


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


@pytest.fixture(scope="module")
def command(commands: Commands, machine: Machine) -> list[str]:
    return commands(machine)


def execute(
    command: Sequence[str], isas: Sequence[str], jobs: Sequence[Job], folder: Path
) -> list[str]:
    """Run jobs on instruction sets, "" for the engine's choice; compare the logits.

    Returns the names of the sets that ran.
    """
    arguments = []
    for index, (network, pixels) in enumerate(jobs):
        stem = folder / str(index)
        write_network(stem.with_suffix(".network"), network)
        stem.with_suffix(".images").write_bytes(pixels.tobytes())
        arguments += [f"{stem}.network", *map(str, pixels.shape[1:3]), f"{stem}.images"]
        arguments += [f"{stem}.logits"]
    expected = [reference.run(network, pixels) for network, pixels in jobs]
    ran = []
    for isa in isas:
        result = subprocess.run([*command, isa, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        ran += result.stdout.split()
        for index, (network, pixels) in enumerate(jobs):
            found = np.fromfile(folder / f"{index}.logits", np.float32)
            parameters = f"{isa}, {network.layers}, {pixels.shape}"
            np.testing.assert_array_equal(found, expected[index].ravel(), parameters)
    return ran


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """A network of up to 40 channels and one or two images for it, of any shape that it takes."""
    network = draw(int8_networks(40))
    smallest = math.prod(layer.stride for layer in network.layers)
    sides = st.integers(smallest, smallest + 20)
    shape = (draw(st.integers(1, 2)), draw(sides), draw(sides), network.layers[0].in_channels)
    random = generator(draw)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    pixels[random.random(shape) < 0.2] = 255
    return network, pixels


# Starting an emulator takes longer than a network.
many_jobs = st.lists(jobs(), min_size=6, max_size=6)
few_examples = settings(
    max_examples=3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@few_examples
@given(jobs=many_jobs)
def test_equals_reference_elsewhere(
    machine: Machine,
    command: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    jobs: list[Job],
) -> None:
    ran = execute(command, machine.isas, jobs, tmp_path_factory.mktemp("jobs"))
    assert ran == [isa for isa in machine.isas for _ in jobs]


@pytest.fixture(scope="module")
def evex(commands: Commands) -> list[str]:
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX-512 VNNI here")
    return commands(Machine(EVEX_BUILD, (), ("avxvnni",)))


@few_examples
@given(jobs=many_jobs)
def test_avx_vnni_equals_reference_by_its_other_encoding(
    evex: list[str], tmp_path_factory: pytest.TempPathFactory, jobs: list[Job]
) -> None:
    ran = execute(evex, ["avxvnni"], jobs, tmp_path_factory.mktemp("jobs"))
    assert ran == ["avxvnni"] * len(jobs)


def test_photos_equal_reference_on_the_best_set(
    machine: Machine, command: list[str], imagenet_job: Job, tmp_path: Path
) -> None:
    """A real network; nothing that the CPU lacks is executed, for that would end the program."""
    assert execute(command, [""], [imagenet_job], tmp_path) == [machine.isas[0]]


def test_refuses_a_set_that_the_cpu_lacks(
    commands: Commands, imagenet_job: Job, tmp_path: Path
) -> None:
    path = tmp_path / "network"
    write_network(path, imagenet_job[0])
    job = [str(path), "8", "8", "-", "-"]
    line = [*commands(MACHINES["cortex-a53"]), "dotprod", *job]
    result = subprocess.run(line, capture_output=True, text=True)
    assert result.returncode == 1
    assert "dotprod" in result.stderr
    assert "neon, scalar" in result.stderr


@pytest.fixture(scope="module")
def imagenet_job(shared: Path) -> Job:
    """Published weights in int8 and photos that they know."""
    from lucid.importers import import_weights

    checkpoint = import_weights(shared / "models" / "mobilenet_v1_0.25_128_quant.tflite")
    files = sorted((shared / "data" / "imagenet-sample").glob("*.JPEG"))[:6]
    pixels = np.stack([load(file, checkpoint.preprocessing) for file in files])
    network = lower(checkpoint)
    quantised = quantise(network, measure_ranges(network, [pixels[:4]]))
    best = reference.run(quantised, pixels).argmax(axis=1)
    assert len(set(best)) > len(files) // 2, "the logits must depend on the photo"
    return quantised, pixels
