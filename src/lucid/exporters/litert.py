"""From a network to a LiteRT (TensorFlow Lite) file: channels last, no transposes.

An int8 network keeps its own scales and weights. LiteRT stores bytes as int8 with the zero point
-128, and rounds its logits to int8 too, for which it needs their range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucid.checks import check_integer, check_number
from lucid.errors import ConfigError, require
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

__all__ = ["INPUTS", "Input", "to_litert"]

Array = NDArray[Any]
Input = Literal["normalised", "int8"]

INPUTS: tuple[Input, ...] = ("normalised", "int8")

# Bytes 0 to 255 stand in the file as -128 to 127.
_ZERO = -128

# The version of each operator that first had int8, by channel (TFLite, kernels/register.cc).
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5, "MEAN": 2, "PAD": 2}


def to_litert(
    network: FloatNetwork | Int8Network,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    largest_logit: float = 0.0,
) -> bytes:
    """A network as a LiteRT model: ``images`` (batch, H, W, C) -> ``logits`` (batch, classes).

    A float network takes normalised float32 and gives float32; an int8 network takes int8, the
    bytes minus 128, and gives int8 with the scale ``largest_logit`` / 127.

    Args:
        size: (height, width) in pixels; that of the preprocessing when left out.
        batch: 1 or more.
        largest_logit: of an int8 network: magnitude beyond which a logit is clamped; above 0.
    Raises:
        ConfigError: an argument is out of range, or an int8 network whose preprocessing has a mean
            for each channel: LiteRT pads all channels alike.
        MissingDependencyError: ai-edge-litert or flatbuffers is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="litert")
    side = network.preprocessing.resolution
    height, width = size or (side, side)
    check_integer("height", height, 1, MAX_RESOLUTION)
    check_integer("width", width, 1, MAX_RESOLUTION)
    check_integer("batch", batch, 1, 2**16)
    model = _Model(schema, batch)
    if isinstance(network, FloatNetwork):
        _add_float(model, network, height, width)
    else:
        check_number("largest_logit", largest_logit, "above 0", lambda value: value > 0)
        _add_int8(model, network, height, width, largest_logit / 127)
    return model.content()


@dataclass
class _Quantisation:
    """Scales and zero point; ``axis`` is that of the channels where there are several scales."""

    scale: Array | np.float32
    zero: int = 0
    axis: int = 0


@dataclass
class _Model:
    """Tensors and operators as they are added; a tensor is known by its index."""

    schema: Any
    batch: int
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.buffers.append(self.schema.BufferT())  # buffer 0 is that of tensors without data

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantisation: _Quantisation | None = None,
        data: Array | None = None,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        tensor.buffer = 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if quantisation is not None:
            found = self.schema.QuantizationParametersT()
            scale = np.atleast_1d(quantisation.scale).astype(np.float32)
            found.scale, found.zeroPoint = scale, np.full(scale.shape, quantisation.zero, np.int64)
            found.quantizedDimension = quantisation.axis
            tensor.quantization = found
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array, quantisation: _Quantisation | None = None) -> int:
        return self.tensor(name, data.shape, str(data.dtype), quantisation, data)

    def operator(
        self, kind: str, inputs: list[int], output: int, options: str = "", **values: Any
    ) -> int:
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(kind, len(self.codes))
        operator.inputs, operator.outputs = inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in values.items():
                setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        return output

    def convolution(
        self, layer: Layer, inputs: list[int], size: tuple[int, int], quantisation: Any, dtype: str
    ) -> int:
        """A convolution with its activation, after a PAD where SAME padding is not the layer's."""
        schema = self.schema
        borders = [layer.border(side) for side in size]
        as_same = Layer(**layer.to_dict() | {"padding": "same"})
        padding = schema.Padding.SAME
        if borders != [as_same.border(side) for side in size]:
            padding = schema.Padding.VALID
            inputs[0] = self._pad(layer, inputs[0], borders, dtype)
        shape = (self.batch, *(layer.output_side(side) for side in size), layer.out_channels)
        output = self.tensor(layer.name, shape, dtype, quantisation)
        values = {
            "padding": padding,
            "strideH": layer.stride,
            "strideW": layer.stride,
            "fusedActivationFunction": getattr(
                schema.ActivationFunctionType, str(layer.activation).upper()
            ),
        }
        if layer.kind == "depthwise":
            options, values["depthMultiplier"] = "DepthwiseConv2DOptions", 1
            return self.operator("DEPTHWISE_CONV_2D", inputs, output, options, **values)
        return self.operator("CONV_2D", inputs, output, "Conv2DOptions", **values)

    def mean(self, layer: Layer, x: int, quantisation: Any, dtype: str) -> int:
        axes = self.constant(f"{layer.name}.axes", np.array([1, 2], np.int32))
        shape = (self.batch, layer.out_channels)
        output = self.tensor(layer.name, shape, dtype, quantisation)
        return self.operator("MEAN", [x, axes], output, "ReducerOptions", keepDims=False)

    def content(self) -> bytes:
        """The file; its first tensor is the input, its last the output."""
        schema = self.schema
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs, graph.outputs = [0], [len(self.tensors) - 1]
        model = schema.ModelT()
        model.version, model.description = 3, "lucid"
        model.subgraphs, model.buffers, model.operatorCodes = [graph], self.buffers, []
        for kind in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS[kind]
            model.operatorCodes.append(code)
        builder = require("flatbuffers", extra="litert").Builder()
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _pad(self, layer: Layer, x: int, borders: list[tuple[int, int]], dtype: str) -> int:
        pads = np.array([(0, 0), *borders, (0, 0)], np.int32)  # (4, 2)
        before = self.tensors[x]
        shape = tuple(int(n) for n in np.array(before.shape) + pads.sum(axis=1))
        output = self.tensor(f"{layer.name}.padded", shape, dtype)
        self.tensors[output].quantization = before.quantization
        border = self.constant(f"{layer.name}.border", pads)
        return self.operator("PAD", [x, border], output, "PadOptions")


def _add_float(model: _Model, network: FloatNetwork, height: int, width: int) -> None:
    shape = (model.batch, height, width, network.layers[0].in_channels)
    x = model.tensor("images", shape, "float32")
    for layer in network.layers:
        if isinstance(layer, FloatPool):
            x = model.mean(layer, x, None, "float32")
            continue
        weight = model.constant(f"{layer.name}.weight", _channels_last(layer))
        bias = model.constant(f"{layer.name}.bias", layer.bias)
        if layer.kind == "dense":
            logits = model.tensor("logits", (model.batch, layer.out_channels), "float32")
            model.operator("FULLY_CONNECTED", [x, weight, bias], logits, "FullyConnectedOptions")
            continue
        x = model.convolution(layer, [x, weight, bias], (height, width), None, "float32")
        height, width = layer.output_side(height), layer.output_side(width)


def _add_int8(
    model: _Model, network: Int8Network, height: int, width: int, logit_scale: float
) -> None:
    if len(set(network.outside)) > 1:
        raise ConfigError(
            f"LiteRT pads all channels alike, but the preprocessing's means differ, "
            f"{network.preprocessing.mean}; an int8 export needs one mean"
        )
    outside = network.outside[0]
    shape = (model.batch, height, width, network.layers[0].in_channels)
    x = model.tensor("images", shape, "int8", _Quantisation(np.float32(1), outside + _ZERO))
    for layer in network.layers:
        values = _Quantisation(np.float32(layer.output_scale), _ZERO)
        if isinstance(layer, Int8Pool):
            x = model.mean(layer, x, values, "int8")
            continue
        # What LiteRT subtracts as zero point goes back into the bias.
        sums = layer.weight.reshape(layer.out_channels, -1).sum(axis=1, dtype=np.int64)
        bias = (layer.bias + outside * sums).astype(np.int32)
        scale = (np.float64(layer.input_scale) * layer.weight_scale).astype(np.float32)
        axis = 3 if layer.kind == "depthwise" else 0
        inputs = [
            x,
            model.constant(
                f"{layer.name}.weight",
                _channels_last(layer),
                _Quantisation(layer.weight_scale, axis=axis),
            ),
            model.constant(f"{layer.name}.bias", bias, _Quantisation(scale)),
        ]
        outside = 0
        if layer.kind == "dense":
            scales = _Quantisation(np.float32(logit_scale))
            logits = model.tensor("logits", (model.batch, layer.out_channels), "int8", scales)
            model.operator("FULLY_CONNECTED", inputs, logits, "FullyConnectedOptions")
            continue
        x = model.convolution(layer, inputs, (height, width), values, "int8")
        height, width = layer.output_side(height), layer.output_side(width)


def _channels_last(layer: FloatLayer | Int8Layer) -> Array:
    """Weights as LiteRT has them: (O, H, W, I), depthwise (1, H, W, C), dense (O, I)."""
    if layer.kind == "dense":
        return layer.weight
    if layer.kind == "depthwise":
        return layer.weight.transpose(1, 2, 3, 0)
    return layer.weight.transpose(0, 2, 3, 1)
