"""ncnn, on lucid's ncnn files; int8 with ncnn's own arithmetic, nearest steps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.ncnn import to_ncnn
from lucid.images import Pixels, normalise

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """Vectors packed, no fp16; ncnn has no batches, so the images of one go in turn."""
    ncnn = require("ncnn", extra="benchmark")
    precision = task.candidate.precision
    work = task.workload
    ranges = work.ranges if precision == "int8" else None
    net = ncnn.Net()
    net.opt.num_threads = task.candidate.threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = precision == "bfloat16"
    param, weights = to_ncnn(work.network, size=work.size, ranges=ranges)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "network.param"), Path(folder, "network.bin")
        paths[0].write_text(param)
        paths[1].write_bytes(weights)
        if net.load_param(str(paths[0])) or net.load_model(str(paths[1])):
            raise RuntimeError("ncnn does not take the files")

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
