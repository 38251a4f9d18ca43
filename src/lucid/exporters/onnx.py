"""From a network to an ONNX file, for ONNX Runtime and for everything that converts from ONNX.

A float network becomes convolutions, a pool and a Gemm. An int8 network becomes the same between
QuantizeLinear and DequantizeLinear nodes (QDQ) that hold its own bytes and multipliers, nothing
re-quantised: runtimes fuse them into integer kernels. A runtime makes the multiplier of a layer
out of three scales, input * weight / output, in float32. So that it comes out as the network's own
to the last bit, scales of activations are rounded to powers of two, and those of weights take up
the rest; ONNX Runtime then gives the reference's bits where it has 8-bit instructions that do not
saturate (VNNI, dot product).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import lucid
from lucid.checks import check_choice, check_integer
from lucid.errors import require
from lucid.exporters.formats import Files, Precision
from lucid.exporters.halves import to_half
from lucid.exporters.metadata import describe
from lucid.images import MAX_RESOLUTION
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

__all__ = ["INPUTS", "OPSET", "Input", "to_files", "to_onnx"]

Array = NDArray[Any]
Input = Literal["uint8", "float32", "normalised"]

INPUTS: tuple[Input, ...] = ("uint8", "float32", "normalised")

# Read by every runtime since the beginning of 2022; nothing newer is needed.
OPSET = 17
IR_VERSION = 8

BATCH = "batch"


def to_files(
    network: FloatNetwork | Int8Network, precision: Precision, size: tuple[int, int]
) -> Files:
    """The file that takes the image's bytes, for ``lucid.exporters.export``."""
    return {".onnx": to_onnx(network, size=size, half=precision == "float16")}


def to_onnx(
    network: FloatNetwork | Int8Network,
    *,
    images: Input = "uint8",
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> bytes:
    """A network as an ONNX model: any number of ``images`` -> ``logits``, float32 (N, classes).

    Class names, preprocessing and metrics stand in the model's metadata as JSON.

    Args:
        images: what the model takes, one of ``INPUTS``. ``"uint8"``: the bytes (N, H, W, C) of a
            picture; ``"float32"``: bytes / 255 (N, C, H, W); both are normalised in the model.
            ``"normalised"``: (N, C, H, W) as ``lucid.images.normalise`` gives. An int8 network
            takes bytes only.
        size: (height, width) in pixels; that of the preprocessing when left out.
        half: whether a float network's weights and activations are float16; what the model takes
            and gives stays as it is.
    Raises:
        ConfigError: an argument is out of range, does not go with an int8 network, or a weight is
            beyond float16.
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="onnx")
    is_int8 = isinstance(network, Int8Network)
    check_choice("images", images, INPUTS[:1] if is_int8 else INPUTS)
    side = network.preprocessing.resolution
    height, width = size or (side, side)
    check_integer("height", height, 1, MAX_RESOLUTION)
    check_integer("width", width, 1, MAX_RESOLUTION)

    graph = _Graph(onnx, np.float16 if half else np.float32)
    if isinstance(network, Int8Network):
        _add_int8(graph, network, height, width)
    else:
        _add_float(graph, network, images, height, width)
    return graph.model(network, images, height, width)


@dataclass
class _Graph:
    """Nodes and constants as they are added.

    Args:
        onnx: the module.
        dtype: of a float network's weights and activations.
    """

    onnx: Any
    dtype: type[np.float32] | type[np.float16]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node that is named as what it gives."""
        node = self.onnx.helper.make_node(op, inputs, [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, name: str, value: Array | np.generic) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weights(self, name: str, value: NDArray[np.float32]) -> str:
        """A constant of the graph's own dtype; raises ConfigError where that can't hold it."""
        return self.constant(name, to_half(name, value) if self.dtype is np.float16 else value)

    def cast(self, x: str, output: str, dtype: type[np.floating[Any]]) -> str:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", [x], output, to=kind)

    def model(
        self, network: FloatNetwork | Int8Network, images: Input, height: int, width: int
    ) -> bytes:
        """The bytes of a checked model with the network's description."""
        helper, types = self.onnx.helper, self.onnx.TensorProto
        channels, classes = network.layers[0].in_channels, network.layers[-1].out_channels
        is_bytes = images == "uint8"
        shape = (height, width, channels) if is_bytes else (channels, height, width)
        graph = helper.make_graph(
            self.nodes,
            "MobileNet",
            [
                helper.make_tensor_value_info(
                    "images", types.UINT8 if is_bytes else types.FLOAT, [BATCH, *shape]
                )
            ],
            [helper.make_tensor_value_info("logits", types.FLOAT, [BATCH, classes])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="lucid",
            producer_version=lucid.__version__,
        )
        texts = {
            name: json.dumps(value, ensure_ascii=False) for name, value in describe(network).items()
        }
        helper.set_model_props(model, {"images": images} | texts)
        self.onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _add_float(
    graph: _Graph, network: FloatNetwork, images: Input, height: int, width: int
) -> None:
    x, half = "images", graph.dtype is np.float16
    layers = list(network.layers)
    if images != "normalised":
        x = _add_centring(graph, network, images)
        if half:
            x = _add_division(graph, network, images, x)
        else:
            assert isinstance(layers[0], FloatLayer)
            layers[0] = _for_centred(layers[0], network, images)
    if half:
        x = graph.cast(x, "halves", np.float16)
    for layer in layers:
        if isinstance(layer, FloatPool):
            x = graph.add("GlobalAveragePool", [x], f"{layer.name}.mean")  # (N, C, 1, 1)
            x = graph.add("Flatten", [x], layer.name)
            continue
        weight = graph.weights(f"{layer.name}.weight", layer.weight)
        bias = graph.weights(f"{layer.name}.bias", layer.bias)
        if layer.kind == "dense":
            output = "logits.halves" if half else "logits"
            x = graph.add("Gemm", [x, weight, bias], output, transB=1)
            continue
        x = _add_convolution(graph, layer, [x, weight, bias], (height, width))
        x = _add_activation(graph, layer, x)
        height, width = layer.output_side(height), layer.output_side(width)
    if half:
        graph.cast(x, "logits", np.float32)


def _add_centring(graph: _Graph, network: FloatNetwork, images: Input) -> str:
    """Subtract the mean, so that the zeros which a convolution pads with are normalised zeros."""
    mean = np.asarray(network.preprocessing.mean, np.float64).reshape(-1, 1, 1)  # (C, 1, 1)
    x = "images"
    if images == "uint8":
        x = graph.add("Transpose", [x], "planes", perm=[0, 3, 1, 2])
        x = graph.cast(x, "values", np.float32)
        mean = 255 * mean
    return graph.add("Sub", [x, graph.constant("mean", mean.astype(np.float32))], "centred")


def _add_division(graph: _Graph, network: FloatNetwork, images: Input, x: str) -> str:
    """Divide by the standard deviation before float16, whose small numbers are coarse."""
    std = np.asarray(network.preprocessing.std, np.float64).reshape(-1, 1, 1)  # (C, 1, 1)
    factor = 1 / (255 * std if images == "uint8" else std)
    return graph.add("Mul", [x, graph.constant("factor", factor.astype(np.float32))], "normalised")


def _for_centred(stem: FloatLayer, network: FloatNetwork, images: Input) -> FloatLayer:
    """The first layer with the division by the standard deviation in its weights."""
    if images == "uint8":
        return normalisation_folded(stem, network.preprocessing)[0]
    std = np.asarray(network.preprocessing.std, np.float64).reshape(1, -1, 1, 1)
    weight = (stem.weight / std).astype(np.float32)
    return FloatLayer(**stem.to_dict(), weight=weight, bias=stem.bias)


def _add_activation(graph: _Graph, layer: FloatLayer, x: str) -> str:
    low, high = layer.activation_range
    if np.isinf(high):
        return graph.add("Relu", [x], layer.name)
    bounds = [
        graph.constant(f"{layer.name}.{name}", graph.dtype(value))
        for name, value in (("minimum", low), ("maximum", high))
    ]
    return graph.add("Clip", [x, *bounds], layer.name)


def _add_int8(graph: _Graph, network: Int8Network, height: int, width: int) -> None:
    x = graph.add("Transpose", ["images"], "planes", perm=[0, 3, 1, 2])  # uint8 (N, C, H, W)
    stem = network.layers[0]
    assert isinstance(stem, Int8Layer)
    zeros = np.array(network.outside)  # (C,)
    pads = None
    if len(set(network.outside)) > 1:
        # A zero point is one for all channels, so these bytes are written around the image.
        x = _add_border(graph, stem, network.outside, x, height, width)
        pads, zeros = [0, 0, 0, 0], 0 * zeros
    steps = _steps(graph, "planes", stem.input_scale, int(zeros[0]))
    x = graph.add("DequantizeLinear", [x, *steps], "values")
    for layer in network.layers:
        if isinstance(layer, Int8Pool):
            # Sums of bytes are exact in float32, their mean is not.
            x = graph.add(
                "ReduceSum", [x, graph.constant("axes", np.array([2, 3]))], "sums", keepdims=0
            )
            factor = layer.multiplier(height * width) * _ratio(layer)
            x = graph.add("Mul", [x, graph.constant("factor", factor)], f"{layer.name}.mean")
            x = _requantise(graph, x, layer, 255)  # (N, C)
            continue
        weight, bias = _constants(graph, layer, zeros)
        if layer.kind == "dense":
            graph.add("Gemm", [x, weight, bias], "logits", transB=1)
            continue
        x = _add_convolution(graph, layer, [x, weight, bias], (height, width), pads)
        x = _requantise(graph, x, layer, layer.maximum)
        height, width = layer.output_side(height), layer.output_side(width)
        pads, zeros = None, np.zeros(layer.out_channels, int)


def _add_border(
    graph: _Graph, stem: Layer, outside: tuple[int, ...], x: str, height: int, width: int
) -> str:
    (top, bottom), (left, right) = stem.border(height), stem.border(width)
    pads = graph.constant("border", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    planes = [f"planes.{channel}" for channel in range(len(outside))]
    graph.nodes.append(graph.onnx.helper.make_node("Split", [x], planes, name="split", axis=1))
    padded = [
        graph.add(
            "Pad", [plane, pads, graph.constant(f"{plane}.outside", value)], f"{plane}.padded"
        )
        for plane, value in zip(planes, np.array(outside, np.uint8), strict=True)
    ]
    return graph.add("Concat", padded, "padded", axis=1)


def _constants(graph: _Graph, layer: Int8Layer, zeros: Array) -> tuple[str, str]:
    """Weight and bias, dequantised; ``zeros`` (in_channels,) is the input's zero point.

    What the model subtracts from the input as zero point goes back into the bias, which int32 holds
    all the same: the sum is a possible accumulator of the layer.
    """
    names = []
    weight_scale = layer.multiplier * _ratio(layer)
    axes = tuple(range(2, layer.weight.ndim))
    taps = layer.weight.astype(np.int64).sum(axis=axes)  # (O, I)
    bias = layer.bias + (taps * zeros[: taps.shape[1]]).sum(axis=1)
    for part, value, step in (
        ("weight", layer.weight, weight_scale),
        ("bias", bias.astype(np.int32), _power(layer.input_scale) * weight_scale),
    ):
        name = f"{layer.name}.{part}"
        quantised = graph.constant(f"{name}.quantised", value)
        steps = graph.constant(f"{name}.scale", step)
        zero = graph.constant(f"{name}.zero", np.zeros(layer.out_channels, value.dtype))
        names.append(graph.add("DequantizeLinear", [quantised, steps, zero], name, axis=0))
    return names[0], names[1]


def _requantise(graph: _Graph, x: str, layer: Int8Layer | Int8Pool, maximum: int) -> str:
    """Round to bytes up to ``maximum``, and take them as values again."""
    step, zero = _steps(graph, layer.name, layer.output_scale)
    x = graph.add("QuantizeLinear", [x, step, zero], f"{layer.name}.quantised")
    if maximum < 255:  # else the clamp is that of a byte
        bounds = [
            graph.constant(f"{layer.name}.{name}", np.uint8(value))
            for name, value in (("minimum", 0), ("maximum", maximum))
        ]
        x = graph.add("Clip", [x, *bounds], f"{layer.name}.clamped")
    return graph.add("DequantizeLinear", [x, step, zero], layer.name)


def _steps(graph: _Graph, name: str, scale: float, zero: int = 0) -> tuple[str, str]:
    """Scale and zero point of bytes."""
    return (
        graph.constant(f"{name}.scale", _power(scale)),
        graph.constant(f"{name}.zero", np.uint8(zero)),
    )


def _power(scale: float) -> np.float32:
    """The power of two that stands for a scale of activations."""
    return np.float32(2.0 ** np.rint(np.log2(scale)))


def _ratio(layer: Int8Layer | Int8Pool) -> np.float32:
    """What makes a multiplier a scale of weights, exactly."""
    return _power(layer.output_scale) / _power(layer.input_scale)


def _add_convolution(
    graph: _Graph,
    layer: Layer,
    inputs: list[str],
    size: tuple[int, int],
    pads: list[int] | None = None,
) -> str:
    (top, bottom), (left, right) = layer.border(size[0]), layer.border(size[1])
    return graph.add(
        "Conv",
        inputs,
        f"{layer.name}.sums",
        group=layer.in_channels if layer.kind == "depthwise" else 1,
        kernel_shape=[layer.kernel] * 2,
        pads=[top, left, bottom, right] if pads is None else pads,
        strides=[layer.stride] * 2,
    )
