"""LiteRT on the CPU, with XNNPACK or with its reference kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.runners import Runner
from lucid.images import Pixels

__all__ = ["open_interpreter", "prepare"]


def prepare(path: Path, threads: int) -> Runner:
    """A file whose input is the image's bytes, and whose output is float32."""
    interpreter = open_interpreter(path.read_bytes(), threads)
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    batch = int(image["shape"][0])

    def take(pixels: Pixels) -> Pixels:
        nonlocal batch
        if len(pixels) != batch:
            batch = len(pixels)
            interpreter.resize_tensor_input(image["index"], pixels.shape, strict=True)
            interpreter.allocate_tensors()
        return pixels

    def run(pixels: Pixels) -> Any:
        interpreter.set_tensor(image["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    version = require("ai_edge_litert", extra="litert").__version__
    return Runner(take, run, lambda found: np.asarray(found, np.float32), {"version": version})


def open_interpreter(content: bytes, threads: int, *, is_reference: bool = False) -> Any:
    """An ``ai_edge_litert.interpreter.Interpreter`` that is ready.

    Args:
        is_reference: whether it runs LiteRT's reference kernels instead of XNNPACK's.
    Raises:
        MissingDependencyError: ai-edge-litert is not installed.
    """
    litert = require("ai_edge_litert.interpreter", extra="litert")
    kind = "BUILTIN_REF" if is_reference else "AUTO"
    interpreter = litert.Interpreter(
        model_content=content,
        num_threads=threads,
        experimental_op_resolver_type=getattr(litert.OpResolverType, kind),
    )
    interpreter.allocate_tensors()
    return interpreter
