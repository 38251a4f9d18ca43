"""OpenVINO on the CPU, in float32 where its default would be bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.runners import Runner
from lucid.images import Pixels

__all__ = ["compile_model", "prepare"]


def prepare(path: Path, threads: int) -> Runner:
    """Files whose input is the image's bytes."""
    ov = require("openvino", extra="openvino")
    compiled = compile_model(ov.Core().read_model(path), threads, is_pinned=False)
    request = compiled.create_infer_request()

    def take(pixels: Pixels) -> Any:
        return ov.Tensor(np.ascontiguousarray(pixels), shared_memory=True)

    def run(tensor: Any) -> Any:
        request.set_input_tensor(tensor)
        request.infer()
        return request

    return Runner(take, run, give, {"version": ov.__version__.partition("-")[0]})


def give(request: Any) -> Any:
    """The logits of a request that is done."""
    return np.array(request.get_output_tensor().data, np.float32)


def compile_model(
    model: Any, threads: int, precision: str = "f32", *, is_pinned: bool = True
) -> Any:
    """An ``openvino.CompiledModel`` that answers a call as soon as it can.

    Args:
        precision: OpenVINO's hint, such as ``"f32"`` or ``"bf16"``.
        is_pinned: whether each thread keeps to a core, on which it may have to wait for others.
    """
    return (
        require("openvino", extra="openvino")
        .Core()
        .compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": is_pinned,
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": 1,
            },
        )
    )
