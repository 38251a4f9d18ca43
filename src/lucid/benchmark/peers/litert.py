"""LiteRT with XNNPACK, on lucid's LiteRT file; int8 with the scales of lucid's network."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.litert import to_litert
from lucid.exporters.runners.litert import open_interpreter
from lucid.images import Pixels, normalise

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """The interpreter with its default delegate, XNNPACK."""
    version = require("ai_edge_litert", extra="benchmark").__version__
    work = task.workload
    if task.candidate.precision == "int8":
        content = to_litert(
            work.int8,
            images="int8",
            size=work.size,
            batch=work.batch,
            largest_logit=work.largest_logit,
        )
    else:
        content = to_litert(work.network, images="normalised", size=work.size, batch=work.batch)
    interpreter = open_interpreter(content, task.candidate.threads)
    image, logits = (
        details()[0] for details in (interpreter.get_input_details, interpreter.get_output_details)
    )
    scale, _ = logits["quantization"]

    def take(pixels: Pixels) -> Any:
        if image["dtype"] == np.int8:
            return (pixels ^ 128).view(np.int8)  # byte - 128
        planes = normalise(pixels, work.network.preprocessing)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, H, W, C)

    def run(batch: Any) -> Any:
        interpreter.set_tensor(image["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    def give(found: Any) -> Any:
        return found * np.float32(scale or 1)

    return Runner(take, run, give, {"version": version})
