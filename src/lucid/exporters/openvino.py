"""From a network to OpenVINO's two files, .xml and .bin.

An int8 network keeps its bytes: its weights are stored as int8 with their scales, its activations
pass FakeQuantize, which OpenVINO turns into integer kernels. It adds biases in float32, so an
accumulator next to the middle between two bytes may be rounded to the other one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.formats import Files, Precision
from lucid.exporters.metadata import describe
from lucid.network import (
    FloatLayer,
    FloatNetwork,
    FloatPool,
    Int8Layer,
    Int8Network,
    Int8Pool,
    Layer,
)
from lucid.quantization import normalisation_folded

__all__ = ["to_files"]

_BYTES = 256


def to_files(
    network: FloatNetwork | Int8Network, precision: Precision, size: tuple[int, int]
) -> Files:
    """Any number of ``images``, uint8 (N, H, W, C) -> ``logits``, float32 (N, classes).

    With float16 only the weights are, and OpenVINO computes in what suits the device. Class names
    and preprocessing stand in ``rt_info``: as JSON in ``lucid``, and as OpenVINO's Model API reads
    them in ``model_info``.

    Raises:
        MissingDependencyError: openvino is not installed.
    """
    openvino = require("openvino", extra="openvino")
    model = _model(openvino, network, size)
    for part, value in describe(network).items():
        model.set_rt_info(json.dumps(value, ensure_ascii=False), ["lucid", part])
    # Names are divided by spaces there (Model API, ClassificationModel).
    labels = " ".join("_".join(name.split()) for name in network.class_names)
    for part, text in (("model_type", "Classification"), ("labels", labels)):
        model.set_rt_info(text, ["model_info", part])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        openvino.save_model(model, path, compress_to_fp16=precision == "float16")
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def _model(openvino: Any, network: FloatNetwork | Int8Network, size: tuple[int, int]) -> Any:
    ops = require("openvino.opset13", extra="openvino")
    shape = [-1, *size, network.layers[0].in_channels]
    images = ops.parameter(shape, np.uint8, name="images")
    images.output(0).get_tensor().set_names({"images"})
    x = ops.transpose(images, np.array([0, 3, 1, 2]))
    x = ops.convert(x, np.float32)
    if isinstance(network, FloatNetwork):
        x = _add_float(ops, network, x, size)
    else:
        x = _add_int8(ops, network, x, size)
    x.output(0).get_tensor().set_names({"logits"})
    model = openvino.Model([x], [images], "MobileNet")
    # OpenVINO counts on from the models before; the same network shall give the same bytes.
    named = {"images", "logits", *(layer.name for layer in network.layers)}
    for number, operation in enumerate(model.get_ordered_ops()):
        if operation.get_friendly_name() not in named:
            operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    return model


def _add_float(ops: Any, network: FloatNetwork, x: Any, size: tuple[int, int]) -> Any:
    stem = network.layers[0]
    assert isinstance(stem, FloatLayer)
    stem, zero = normalisation_folded(stem, network.preprocessing)
    x = ops.subtract(x, zero.astype(np.float32).reshape(1, -1, 1, 1))
    for layer in (stem, *network.layers[1:]):
        if isinstance(layer, FloatPool):
            x = ops.reduce_mean(x, np.array([2, 3]), name=layer.name)
            continue
        weight = ops.constant(_shaped(layer))
        x = _add_sums(ops, layer, x, weight, layer.bias, size)
        if layer.activation == "relu":
            x = ops.relu(x, name=layer.name)
        elif layer.activation == "relu6":
            x = ops.clamp(x, *layer.activation_range, name=layer.name)
        size = layer.output_side(size[0]), layer.output_side(size[1])
    return x


def _add_int8(ops: Any, network: Int8Network, x: Any, size: tuple[int, int]) -> Any:
    outside = np.array(network.outside, np.float32)  # (C,)
    x = ops.subtract(x, outside.reshape(1, -1, 1, 1))
    for layer in network.layers:
        if isinstance(layer, Int8Pool):
            x = ops.reduce_mean(x, np.array([2, 3]), name=layer.name)
            x = _requantised(ops, x, layer.output_scale, _BYTES - 1)
            continue
        stored = _shaped(layer)
        step = layer.weight_scale.reshape(-1, *[1] * (stored.ndim - 1))
        weight = ops.multiply(ops.convert(ops.constant(stored), np.float32), step)
        # What is subtracted from the bytes goes back into the bias.
        taps = layer.weight.astype(np.int64).sum(axis=tuple(range(2, layer.weight.ndim)))  # (O, I)
        bias = layer.bias + (taps * outside[: taps.shape[1]].astype(np.int64)).sum(axis=1)
        scale = np.float64(layer.input_scale) * layer.weight_scale
        x = _add_sums(ops, layer, x, weight, (bias * scale).astype(np.float32), size)
        if layer.kind != "dense":
            x = _requantised(ops, x, layer.output_scale, layer.maximum)
        size = layer.output_side(size[0]), layer.output_side(size[1])
        outside = np.zeros(layer.out_channels, np.float32)
    return x


def _add_sums(
    ops: Any, layer: Layer, x: Any, weight: Any, bias: np.ndarray[Any, Any], size: tuple[int, int]
) -> Any:
    """A convolution or the classifier, without its activation."""
    if layer.kind == "dense":
        return ops.add(ops.matmul(x, weight, False, True), bias.reshape(1, -1), name="logits")
    (top, bottom), (left, right) = layer.border(size[0]), layer.border(size[1])
    window = ([layer.stride] * 2, [top, left], [bottom, right], [1, 1])
    if layer.kind == "depthwise":
        x = ops.group_convolution(x, weight, *window)
    else:
        x = ops.convolution(x, weight, *window)
    return ops.add(x, bias.reshape(1, -1, 1, 1))


def _requantised(ops: Any, x: Any, scale: float, maximum: int) -> Any:
    """Values rounded to those of the bytes 0 to ``maximum``."""
    low, high = (ops.constant(np.float32(byte * np.float64(scale))) for byte in (0, maximum))
    return ops.fake_quantize(x, low, high, low, high, maximum + 1)


def _shaped(layer: FloatLayer | Int8Layer) -> np.ndarray[Any, Any]:
    """Weights as OpenVINO has them: depthwise ones are (groups, 1, 1, kernel, kernel)."""
    return layer.weight[:, np.newaxis] if layer.kind == "depthwise" else layer.weight
