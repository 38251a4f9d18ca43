"""The formats that devices run, a table; what one row says is all that the rest knows of a format.

A format has a module of this package that writes it, with ``to_files``, and a module of
``lucid.exporters.runners`` for each of its runtimes, with ``prepare``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, cast

from lucid.checks import check_choice
from lucid.engine import isas
from lucid.errors import ConfigError, require
from lucid.exporters.runners import Runner
from lucid.network import FloatNetwork, Int8Network

__all__ = ["FORMATS", "PRECISIONS", "Files", "Format", "Precision", "Runtime"]

Precision = Literal["float32", "float16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

# The files of an export, by what follows the name that was asked for: {".xml": ..., ".bin": ...},
# or {".mlpackage/Manifest.json": ...} within a folder.
Files = Mapping[str, bytes]


class _Exporter(Protocol):
    def to_files(
        self, network: FloatNetwork | Int8Network, precision: Precision, size: tuple[int, int]
    ) -> Files: ...


class _Runners(Protocol):
    def prepare(self, path: Path, threads: int) -> Runner: ...


@dataclass(frozen=True)
class Runtime:
    """What executes a file of a format here, for its verification.

    Args:
        title: its own name.
        module: of ``lucid.exporters.runners``.
        packages: that it imports.
        precisions: that it runs.
        int8_share: largest difference of a logit in int8, as a share of the range of all logits;
            0 where its arithmetic gives the reference's bits.
        required: whether a verification without it is an error.
        is_timed: whether the time that it takes says anything about the device.
    """

    title: str
    module: str
    packages: tuple[str, ...]
    precisions: tuple[Precision, ...] = PRECISIONS
    int8_share: float = 0.1
    required: bool = True
    is_timed: bool = True

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return _missing(self.packages)

    def prepare(self, path: Path, threads: int = 1) -> Runner:
        """Load a file; errors are the runtime's own.

        Args:
            path: of the export's main file or folder, which has the format's suffix; the others
                are beside it.
            threads: of a call.
        """
        module = importlib.import_module(f"lucid.exporters.runners.{self.module}")
        return cast(_Runners, module).prepare(path, threads)


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        title: its own name.
        suffix: of the file or folder that a user names.
        extra: of lucid-mobilenet that installs the packages.
        packages: that its module imports, for writing only.
        module: of this package, with ``to_files``.
        runtimes: that verify it.
        images: what a file takes, in words.
        precisions: that it has.
        dynamic_batch: whether one file takes any number of images at once.
        keeps: what of class names and preprocessing is stored, and where.
        remarks: what a user of a precision must know, in a sentence.
    """

    title: str
    suffix: str
    extra: str
    packages: tuple[str, ...]
    module: str
    runtimes: tuple[Runtime, ...]
    images: str
    precisions: tuple[Precision, ...] = PRECISIONS
    dynamic_batch: bool = False
    keeps: str = ""
    remarks: Mapping[Precision, str] = field(default_factory=dict)

    def missing(self, *, to_verify: bool = False) -> list[str]:
        """Packages for writing it that are not installed; on request also those for running it."""
        runtimes = [one for one in self.runtimes if to_verify and one.required]
        names = [*self.packages, *(name for one in runtimes for name in one.packages)]
        return _missing(tuple(dict.fromkeys(names)))

    def to_files(
        self, network: FloatNetwork | Int8Network, precision: Precision, size: tuple[int, int]
    ) -> Files:
        """The content of the files; arguments are as in ``lucid.exporters.export``."""
        for package in self.missing():  # only those: some are loud when they are loaded
            require(package, extra=self.extra)
        module = importlib.import_module(f"lucid.exporters.{self.module}")
        return cast(_Exporter, module).to_files(network, precision, size)

    def stem(self, out: str | Path) -> Path:
        """A path without the format's suffix; raises ConfigError where it has another."""
        out = Path(out)
        if not out.name.endswith(self.suffix) or out.name == self.suffix:
            raise ConfigError(f"{out}: the name of {self.title} files ends in {self.suffix}")
        return out.with_name(out.name.removesuffix(self.suffix))

    def choose_precision(
        self, network: FloatNetwork | Int8Network, asked: Precision | None
    ) -> Precision:
        """The precision asked for, if it can be had from a network; by default the network's own.

        Raises:
            ConfigError: the network or the format does not have it.
        """
        own: Precision = "int8" if isinstance(network, Int8Network) else "float32"
        if asked is None:
            asked = own
        check_choice("precision", asked, PRECISIONS)
        if asked == "int8" and own != "int8":
            raise ConfigError(
                "precision int8 is for int8 networks, this one is float; make one first: "
                "lucid quantize CHECKPOINT --calibrate DATA"
            )
        if own == "int8" and asked != "int8":
            raise ConfigError(
                f"precision {asked} is for float networks, this one is int8; export the checkpoint "
                "that it was made from"
            )
        if asked not in self.precisions:
            raise ConfigError(f"{self.title} has no {asked}; it has {', '.join(self.precisions)}")
        return asked


def _has_dot_products() -> bool:
    """Whether ONNX Runtime sums bytes in int32 here; else pairs of products saturate in int16."""
    return not {"avx512vnni", "avxvnni", "dotprod"}.isdisjoint(isas("int8"))


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "onnx": Format(
            title="ONNX",
            suffix=".onnx",
            extra="onnx",
            packages=("onnx",),
            module="onnx",
            runtimes=(
                Runtime(
                    "ONNX Runtime",
                    "onnxruntime",
                    ("onnxruntime",),
                    int8_share=0.0 if _has_dot_products() else 0.1,
                ),
            ),
            images="uint8 RGB (N, H, W, 3)",
            dynamic_batch=True,
            keeps="metadata_props",
        ),
        "openvino": Format(
            title="OpenVINO",
            suffix=".xml",
            extra="openvino",
            packages=("openvino",),
            module="openvino",
            runtimes=(Runtime("OpenVINO", "openvino", ("openvino",)),),
            images="uint8 RGB (N, H, W, 3)",
            dynamic_batch=True,
            keeps="rt_info",
            remarks={"float16": "OpenVINO stores float16 and computes in what suits the device."},
        ),
        "coreml": Format(
            title="Core ML",
            suffix=".mlpackage",
            extra="coreml",
            packages=("coremltools",),
            module="coreml",
            runtimes=(Runtime("its program in NumPy", "coreml", ("coremltools",), is_timed=False),),
            images="an image (ImageType)",
            keeps="class labels, userDefined",
            remarks=dict.fromkeys(
                PRECISIONS,
                "Core ML predicts on Apple's systems only; its program was verified by executing it"
                " in NumPy.",
            ),
        ),
        "litert": Format(
            title="LiteRT",
            suffix=".tflite",
            extra="litert",
            packages=(),
            module="litert",
            runtimes=(
                Runtime("LiteRT", "litert", ("ai_edge_litert",), int8_share=0.02),
                Runtime(
                    "TFLM", "tflm", ("tflite_micro",), ("int8",), required=False, is_timed=False
                ),
            ),
            images="uint8 RGB (N, H, W, 3)",
            dynamic_batch=True,
            keeps="LiteRT metadata, labels.txt and lucid.json within the file",
            remarks={
                "float16": "Weights are stored as float16, computing stays float32.",
                "int8": "Logits are rounded to int16; kernels other than XNNPACK's round "
                "activations in another way.",
            },
        ),
        "executorch": Format(
            title="ExecuTorch",
            suffix=".pte",
            extra="executorch",
            packages=("torch", "executorch"),
            module="executorch",
            runtimes=(
                Runtime("ExecuTorch", "executorch", ("torch", "executorch"), int8_share=1e-4),
            ),
            images="float32 RGB 0 to 1 (N, 3, H, W)",
            precisions=("float32", "int8"),
            dynamic_batch=True,
            keeps="a .json beside it",
            remarks={"int8": "The classifier computes in float32."},
        ),
        "ncnn": Format(
            title="ncnn",
            suffix=".ncnn.param",
            extra="ncnn",
            packages=(),
            module="ncnn",
            runtimes=(Runtime("ncnn", "ncnn", ("ncnn",)),),
            images="RGB pixels 0 to 255, as ncnn::Mat::from_pixels gives",
            precisions=("float32", "float16"),
            keeps="a .json beside it",
            remarks={
                "float32": "ncnn computes in float16 where the device can, unless "
                "opt.use_fp16_packed, use_fp16_storage and use_fp16_arithmetic are off.",
                "float16": "Weights are stored as float16.",
            },
        ),
    }
)


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
