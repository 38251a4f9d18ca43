"""OpenVINO, on lucid's ONNX file; int8 by NNCF's post-training quantisation.

NNCF leaves the depthwise layers in float32. As "openvino-qdq", OpenVINO runs lucid's own int8
network instead, all but the first layer in integers; which of the two is faster depends on the
width.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lucid.benchmark.peers import Runner, Task
from lucid.errors import require
from lucid.exporters.onnx import to_onnx
from lucid.exporters.runners.openvino import compile_model, give
from lucid.images import Pixels, normalise

__all__ = ["prepare"]

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def prepare(task: Task) -> Runner:
    """The latency hint, the precision asked for, inputs in shared memory."""
    ov = require("openvino", extra="benchmark")
    work, precision = task.workload, task.candidate.precision
    channels = work.network.layers[0].in_channels
    takes_bytes = task.candidate.peer == "openvino-qdq"
    if takes_bytes:
        model = ov.Core().read_model(to_onnx(work.int8, size=work.size))
        model.reshape([work.batch, *work.size, channels])
    else:
        model = ov.Core().read_model(to_onnx(work.network, images="normalised", size=work.size))
        if precision == "int8":
            model = _quantised(model, task)
        model.reshape([work.batch, channels, *work.size])
    compiled = compile_model(model, task.candidate.threads, _HINTS[precision])
    request = compiled.create_infer_request()

    def take(pixels: Pixels) -> Any:
        values = pixels if takes_bytes else normalise(pixels, work.network.preprocessing)
        return ov.Tensor(np.ascontiguousarray(values), shared_memory=True)

    def run(tensor: Any) -> Any:
        request.set_input_tensor(tensor)
        request.infer()
        return request

    kernels = {
        operation.get_rt_info()["primitiveType"].astype(str)
        for operation in compiled.get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) in ("Convolution", "GroupConvolution")
    }
    facts = {"version": ov.__version__, "kernels": ", ".join(sorted(kernels))}
    return Runner(take, run, give, facts)


def _quantised(model: Any, task: Task) -> Any:
    nncf = require("nncf", extra="benchmark")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = [
        normalise(one[None], task.workload.network.preprocessing)
        for one in task.workload.calibration
    ]
    return nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
