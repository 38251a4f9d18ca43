"""ncnn, on lucid's ncnn files; int8 with ncnn's own arithmetic, nearest steps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.ncnn import to_ncnn
from lucid.exporters.runners.ncnn import open_net
from lucid.images import Pixels, normalise

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """Vectors packed, no fp16; ncnn has no batches, so the images of one go in turn."""
    ncnn = require("ncnn", extra="benchmark")
    precision = task.candidate.precision
    work = task.workload
    ranges = work.ranges if precision == "int8" else None
    param, weights = to_ncnn(work.network, size=work.size, ranges=ranges)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.param")
        path.write_text(param)
        path.with_suffix(".bin").write_bytes(weights)
        net = open_net(path, task.candidate.threads, use_bf16_storage=precision == "bfloat16")

    def take(pixels: Pixels) -> Any:
        return [
            ncnn.Mat(planes).clone() for planes in normalise(pixels, work.network.preprocessing)
        ]

    def run(batch: Any) -> Any:
        found = []
        for image in batch:
            extractor = net.create_extractor()
            extractor.input("images", image)
            found.append(extractor.extract("logits")[1])
        return found

    return Runner(
        take,
        run,
        lambda found: np.stack([np.array(one, np.float32) for one in found]),
        {"version": ncnn.__version__},
    )
