"""ONNX Runtime, on lucid's ONNX file; int8 by its own static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.onnx import to_onnx
from lucid.exporters.runners.onnxruntime import open_session
from lucid.images import Pixels, normalise

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """All graph optimisations, inputs and outputs bound to memory before the call."""
    ort = require("onnxruntime", extra="benchmark")
    model = to_onnx(task.workload.network, images="normalised", size=task.workload.size)
    if task.candidate.precision == "int8":
        model = _quantised(model, task)
    session = open_session(model, task.candidate.threads, task.workload.batch)

    def take(pixels: Pixels) -> Any:
        binding = session.io_binding()
        binding.bind_cpu_input("images", normalise(pixels, task.workload.network.preprocessing))
        binding.bind_output("logits")
        return binding

    def run(binding: Any) -> Any:
        session.run_with_iobinding(binding)
        return binding

    return Runner(
        take, run, lambda binding: binding.copy_outputs_to_cpu()[0], {"version": ort.__version__}
    )


def _quantised(model: bytes, task: Task) -> bytes:
    quantization = require("onnxruntime.quantization", extra="benchmark")
    preprocess = require("onnxruntime.quantization.shape_inference", extra="benchmark")

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches: Iterator[Pixels] = iter(task.workload.calibration[:, None])

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            if batch is None:
                return None
            return {"images": normalise(batch, task.workload.network.preprocessing)}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        preprocess.quant_pre_process(source, source, skip_symbolic_shape=True)
        quantization.quantize_static(
            source,
            target,
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes()
