"""LiteRT files for tests: written with LiteRT's own schema, and run by LiteRT itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from lucid.architecture import MobileNetArguments, convolutions

Array = NDArray[np.float32]
_ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 3}


def run(content: bytes, images: NDArray[Any], tensor: int | None = None) -> NDArray[Any]:
    """What LiteRT computes, image by image: the output or any other tensor."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    wanted = interpreter.get_output_details()[0]["index"] if tensor is None else tensor
    found = []
    for image in images:
        interpreter.set_tensor(place, image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(wanted).reshape(-1))
    return np.stack(found)


def read(content: bytes) -> Any:
    """The file as objects that can be changed."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for operator in model.subgraphs[0].operators:
        operator.inputs = list(operator.inputs)
    return model


def write(model: Any) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def dequantise(content: bytes) -> bytes:
    """The same network with float32 weights and activations."""
    model = read(content)
    graph = model.subgraphs[0]
    constants = {}
    for tensor in graph.tensors:
        quantisation, data = tensor.quantization, model.buffers[tensor.buffer].data
        if quantisation is None or quantisation.scale is None:
            continue
        if data is not None and len(data):
            dtype = {2: "<i4", 3: "u1", 9: "i1"}[tensor.type]
            stored = np.frombuffer(bytes(data), dtype).reshape(tensor.shape).astype(np.float64)
            shape = [1] * stored.ndim
            shape[quantisation.quantizedDimension] = -1
            scale = np.asarray(quantisation.scale, np.float64).reshape(shape)
            zero = np.asarray(quantisation.zeroPoint, np.float64).reshape(shape)
            constants[tensor.buffer] = ((stored - zero) * scale).astype("<f4")
        tensor.type, tensor.quantization = 0, None
    for index, values in constants.items():
        model.buffers[index].data = np.frombuffer(values.tobytes(), np.uint8)
    return write(model)


def move_buffers_out(content: bytes) -> bytes:
    """The same file with its weights behind the flatbuffer, as large files have them."""
    model = read(content)
    moved = {
        i: bytes(buffer.data)
        for i, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data) > 64
    }
    for i in moved:
        # As wide as the true ones, so that the second writing has the same length.
        model.buffers[i].data = None
        model.buffers[i].offset, model.buffers[i].size = 2**40, len(moved[i])
    position = math.ceil(len(write(model)) / 64) * 64
    start, packed = position, b""
    for i, data in moved.items():
        model.buffers[i].offset = start + len(packed)
        packed += data + b"\0" * (-len(data) % 64)
    head = write(model)
    return head + b"\0" * (position - len(head)) + packed


@dataclass
class Writer:
    """Writes a float network, an operator at a time."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[int] = []
        self.last = self._tensor("image", self.shape, 0)

    def add(self, code: int, constants: Sequence[NDArray[Any]], options: Any, shape: Any) -> None:
        """Append an operator of one data input and some constants; ``shape`` is its output's."""
        operator = schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs = [self.last, *map(self._constant, constants)]
        self.shape = tuple(shape)
        self.last = self._tensor(f"layer{len(self.operators)}", self.shape, 0)
        operator.outputs = [self.last]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self.operators.append(operator)

    def convolve(
        self,
        weight: Array,
        bias: Array,
        *,
        stride: int = 1,
        activation: str = "none",
        padding: str = "same",
        is_depthwise: bool = False,
    ) -> None:
        """``weight`` is (O, H, W, I), or (1, H, W, C) for a depthwise convolution."""
        side = self.shape[1]
        if padding != "same":
            before = 1 if padding == "symmetric" else 0
            amounts = np.array([[0, 0], [before, 1], [before, 1], [0, 0]], np.int32)
            padded = side + before + 1
            self.add(34, [amounts], schema.PadOptionsT(), (1, padded, padded, self.shape[3]))
        options = schema.DepthwiseConv2DOptionsT() if is_depthwise else schema.Conv2DOptionsT()
        options.padding = 0 if padding == "same" else 1
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        if is_depthwise:
            options.depthMultiplier = weight.shape[3] // self.shape[3]
        side = math.ceil(side / stride)
        self.add(4 if is_depthwise else 3, [weight, bias], options, (1, side, side, len(bias)))

    def pool(self) -> None:
        options = schema.Pool2DOptionsT()
        options.padding, options.strideH, options.strideW = 1, 1, 1
        options.filterHeight = options.filterWidth = self.shape[1]
        self.add(1, [], options, (1, 1, 1, self.shape[3]))

    def dense(self, weight: Array, bias: Array) -> None:
        shape = np.array([1, self.shape[3]], np.int32)
        self.add(22, [shape], schema.ReshapeOptionsT(), tuple(shape))
        self.add(9, [weight, bias], schema.FullyConnectedOptionsT(), (1, len(bias)))

    def finish(self) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [0], [self.last]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for value in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = value
            code.version = 1
            model.operatorCodes.append(code)
        return write(model)

    def _constant(self, values: NDArray[Any]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(buffer)
        kind = {"float32": 0, "int32": 2}[values.dtype.name]
        return self._tensor("constant", values.shape, kind, len(self.buffers) - 1)

    def _tensor(self, name: str, shape: Sequence[int], kind: int, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def mobilenet(
    arguments: MobileNetArguments,
    side: int,
    *,
    padding: str = "same",
    depthwise_stem: bool = False,
    classifier: bool = True,
    order: tuple[int, ...] | None = None,
    seed: int = 0,
) -> bytes:
    """A float network of random weights whose outputs depend on the image.

    With ``order`` its input is (N, C, H, W), which a first operator puts into this order.
    """
    generator = np.random.default_rng(seed)
    channels_last = (1, side, side, arguments.in_channels)
    writer = Writer((1, arguments.in_channels, side, side) if order else channels_last)
    if order:
        writer.add(39, [np.array(order, np.int32)], schema.TransposeOptionsT(), channels_last)
    for layer in convolutions(arguments):
        is_depthwise = layer.kind == "depthwise" or (layer.kind == "stem" and depthwise_stem)
        inputs = 1 if is_depthwise else layer.in_channels
        shape = (layer.out_channels, layer.kernel, layer.kernel, inputs)
        weight = generator.normal(0, math.sqrt(3 / math.prod(shape[1:])), shape)
        if is_depthwise:
            weight = weight.transpose(3, 1, 2, 0)
        writer.convolve(
            np.ascontiguousarray(weight, np.float32),
            generator.normal(0, 0.02, layer.out_channels).astype(np.float32),
            stride=layer.stride,
            activation=arguments.activation,
            padding=padding if layer.stride == 2 else "same",
            is_depthwise=is_depthwise,
        )
    writer.pool()
    if classifier:
        weight = generator.normal(size=(arguments.num_classes, arguments.feature_channels))
        bias = 0.1 * generator.normal(size=arguments.num_classes)
        writer.dense(weight.astype(np.float32), bias.astype(np.float32))
    return writer.finish()
