"""The runtimes that are measured, one module each, and a table of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol, cast

from lucid.engine import isas
from lucid.errors import ConfigError
from lucid.exporters.runners import Runner
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Network, sized_layers, totals

__all__ = [
    "ISAS",
    "PEERS",
    "PRECISIONS",
    "Candidate",
    "Limit",
    "Peer",
    "Precision",
    "Runner",
    "Task",
    "Workload",
    "best_kernels",
]

Precision = Literal["float32", "bfloat16", "int8", "float32-split"]

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8", "float32-split")


@dataclass(frozen=True)
class Limit:
    """How runtimes are kept to an instruction set.

    Args:
        environment: oneDNN's variable, which OpenVINO obeys too, and that of PyTorch's own kernels.
        kernels: those of lucid's engine that need no more.
    """

    environment: Mapping[str, str]
    kernels: tuple[str, ...]


ISAS: Mapping[str, Limit] = {
    "avx2": Limit(
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, ("avx2", "scalar")
    ),
    "avx512vnni": Limit(
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "ATEN_CPU_CAPABILITY": "avx512"},
        ("avx512vnni", "avx512", "avx2", "scalar"),
    ),
}


def best_kernels(precision: Precision, isa: str | None) -> str | None:
    """lucid's best kernels of this CPU within a limit; without one, None: the engine's choice.

    Raises:
        ConfigError: none are within it.
    """
    if isa is None:
        return None
    allowed = ISAS[isa].kernels
    for name in isas(precision):
        if name in allowed:
            return name
    raise ConfigError(f"lucid has no kernels for {precision} within {isa}")


@dataclass(frozen=True)
class Candidate:
    """One thing to measure: a runtime, in a precision, on so many threads, within a limit.

    Args:
        peer: a name of ``PEERS``.
        precision: one of ``PRECISIONS``.
        threads: 1 or more.
        isa: of ``ISAS``, to which it is limited; None: it takes the best it has.
    """

    peer: str
    precision: Precision
    threads: int = 1
    isa: str | None = None

    def __str__(self) -> str:
        return f"{self.peer} {self.precision}" + (f" ({self.isa})" if self.isa else "")

    def environment(self) -> dict[str, str]:
        """Variables that its process needs before any library is loaded."""
        limit = {} if self.isa is None else dict(ISAS[self.isa].environment)
        threads = str(self.threads)
        return limit | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "CI": "true"}


@dataclass(frozen=True)
class Workload:
    """What every runtime is given.

    Args:
        network: the float network.
        int8: the same in int8, for runtimes that can take it as it is.
        batch: images in a call.
        size: (height, width) of them.
        calibration: uint8 (N, H, W, C), for runtimes that choose int8 scales by themselves.
        ranges: the largest outputs of the layers on them, by ``measure_ranges``.
        largest_logit: on them, in magnitude.
    """

    network: FloatNetwork
    int8: Int8Network
    batch: int
    size: tuple[int, int]
    calibration: Pixels
    ranges: Mapping[str, float]
    largest_logit: float

    @property
    def multiply_adds(self) -> int:
        """Of a call."""
        return self.batch * totals(sized_layers(self.network.layers, *self.size)).multiply_adds


@dataclass(frozen=True)
class Task:
    """A workload for one candidate, whose precision and threads hold."""

    workload: Workload
    candidate: Candidate


class _Module(Protocol):
    def prepare(self, task: Task) -> Runner: ...


@dataclass(frozen=True)
class Peer:
    """A runtime.

    Args:
        module: of this package; it has ``prepare``.
        packages: that it imports.
        precisions: it knows.
        isas: it can be limited to.
    """

    module: str
    packages: tuple[str, ...]
    precisions: tuple[Precision, ...]
    isas: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]

    def prepare(self, task: Task) -> Runner:
        """Load the runtime and give it the workload; errors are its own."""
        module = importlib.import_module(f"lucid.benchmark.peers.{self.module}")
        return cast(_Module, module).prepare(task)


_ONEDNN = tuple(ISAS)

PEERS: Mapping[str, Peer] = {
    "lucid": Peer("lucid", (), PRECISIONS, _ONEDNN),
    "torch": Peer("torch", ("torch",), ("float32", "bfloat16"), _ONEDNN),
    "torch-compile": Peer("torch_compile", ("torch",), ("float32", "bfloat16"), _ONEDNN),
    "onnxruntime": Peer("onnxruntime", ("onnx", "onnxruntime"), ("float32", "int8")),
    "openvino": Peer(
        "openvino", ("onnx", "openvino", "nncf"), ("float32", "bfloat16", "int8"), _ONEDNN
    ),
    "openvino-qdq": Peer("openvino", ("onnx", "openvino"), ("int8",), _ONEDNN),
    "litert": Peer("litert", ("ai_edge_litert",), ("float32", "int8")),
    "ncnn": Peer("ncnn", ("ncnn",), ("float32", "bfloat16", "int8")),
}
