"""ONNX Runtime on the CPU, with all its graph optimisations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lucid.errors import require
from lucid.exporters.runners import Runner

__all__ = ["open_session", "prepare"]


def prepare(path: Path, threads: int) -> Runner:
    """A file whose input is the image's bytes."""
    session = open_session(path.read_bytes(), threads)
    return Runner(
        lambda pixels: {"images": pixels},
        lambda feed: session.run(["logits"], feed)[0],
        lambda logits: logits,
        {"version": require("onnxruntime", extra="onnx").__version__},
    )


def open_session(content: bytes, threads: int, batch: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        batch: if given, it takes no other number of images, and from its first call on subnormal
            numbers count as zero in the whole process: for processes that only measure.
    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if batch is not None:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_free_dimension_override_by_name("batch", batch)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
