"""ncnn, on lucid's ncnn files; int8 with ncnn's own arithmetic, nearest steps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.ncnn import to_ncnn
from lucid.exporters.runners.ncnn import make_runner, open_net
from lucid.images import Pixels, normalise

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """Vectors packed, no fp16."""
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

    def take(pixels: Pixels) -> list[Any]:
        return [
            ncnn.Mat(planes).clone() for planes in normalise(pixels, work.network.preprocessing)
        ]

    return make_runner(net, take)
