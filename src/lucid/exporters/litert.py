"""From a network to a LiteRT (TensorFlow Lite) file: channels last, no transposes.

All files take the bytes of a picture and give float32 logits, unless told otherwise. An int8
network keeps its own scales and weights; LiteRT stores bytes as int8 with the zero point -128. Its
classifier reads and gives int16, fine enough that logits need no calibration of their own.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucid.checks import check_choice, check_integer, check_number
from lucid.exporters.flatbuffer import Number
from lucid.exporters.formats import Files, Precision
from lucid.exporters.halves import to_half
from lucid.exporters.litert_file import (
    NONE,
    RELU,
    RELU6,
    SAME,
    VALID,
    Model,
    Quantisation,
    Tensor,
)
from lucid.exporters.litert_metadata import attach, metadata
from lucid.exporters.scales import StatedScales, power_of_two, state_scales
from lucid.images import MAX_RESOLUTION, Preprocessing
from lucid.network import (
    FloatLayer,
    FloatNetwork,
    FloatPool,
    Int8Layer,
    Int8Network,
    Int8Pool,
    Layer,
)
from lucid.network.file import Network

__all__ = ["INPUTS", "Input", "to_files", "to_litert"]

Array = NDArray[Any]
Input = Literal["uint8", "normalised", "int8"]

INPUTS: tuple[Input, ...] = ("uint8", "normalised", "int8")

# Bytes 0 to 255 stand in the file as -128 to 127.
_ZERO = -128

_ACTIVATIONS = {"relu": RELU, "relu6": RELU6}


def to_files(network: Network, precision: Precision, size: tuple[int, int]) -> Files:
    """As ``lucid.exporters.formats`` asks for."""
    return {".tflite": to_litert(network, size=size, half=precision == "float16")}


def to_litert(
    network: Network,
    *,
    images: Input = "uint8",
    size: tuple[int, int] | None = None,
    batch: int = 1,
    half: bool = False,
    largest_logit: float | None = None,
) -> bytes:
    """A network as a LiteRT model: ``images`` (batch, H, W, C) -> ``logits`` (batch, classes).

    Whoever runs it can change the batch, and read class names and preprocessing in its metadata.

    Args:
        images: what the model takes. ``"uint8"``: the bytes of a picture. ``"normalised"``, of a
            float network: float32, as ``lucid.images.normalise`` gives but channels last.
            ``"int8"``, of an int8 network: bytes minus 128.
        size: (height, width) in pixels; that of the preprocessing when left out.
        batch: 1 or more.
        half: whether weights and biases of a float network are stored as float16.
        largest_logit: of an int8 network: its classifier gives int8 with the scale
            ``largest_logit`` / 127, for devices without int16; larger logits are clamped. Above 0;
            float32 logits by default.
    Raises:
        ConfigError: an argument is out of range, or does not go with the network; or a weight is
            beyond float16.
    """
    side = network.preprocessing.resolution
    height, width = size or (side, side)
    check_integer("height", height, 1, MAX_RESOLUTION)
    check_integer("width", width, 1, MAX_RESOLUTION)
    check_integer("batch", batch, 1, 2**16)
    shape = (batch, height, width, network.layers[0].in_channels)
    if isinstance(network, FloatNetwork):
        check_choice("images", images, ("uint8", "normalised"))
        model, taken, given = _float_model(network, shape, images, half)
    else:
        check_choice("images", images, ("uint8", "int8"))
        if largest_logit is not None:
            check_number("largest_logit", largest_logit, "above 0", lambda value: value > 0)
        model, taken, given = _int8_model(network, shape, images, largest_logit)
    described = metadata(network, (height, width), images != "normalised")
    return attach(model.content(taken, given, {"TFLITE_METADATA": described}), network)


def _float_model(
    network: FloatNetwork, shape: tuple[int, ...], images: Input, half: bool
) -> tuple[Model, Tensor, Tensor]:
    model = Model(is_int8=False)
    if images == "uint8":
        taken, x = _add_normalisation(model, network.preprocessing, shape)
    else:
        taken = x = model.values("images", shape, "float32")
    for layer in network.layers:
        if isinstance(layer, FloatPool):
            x = _add_mean(model, layer, x)
            continue
        constants = [
            _add_weights(model, f"{layer.name}.{part}", values, half)
            for part, values in (("weight", _channels_last(layer)), ("bias", layer.bias))
        ]
        if layer.kind == "dense":
            logits = model.values("logits", (shape[0], layer.out_channels), "float32")
            x = model.add("FULLY_CONNECTED", [x, *constants], logits)
        else:
            x = _add_convolution(model, layer, *_add_border(model, layer, x), constants)
    return model, taken, x


def _add_normalisation(
    model: Model, preprocessing: Preprocessing, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Input and normalised values; weights stay as they are, and what is padded with is 0."""
    mean, std = (np.array(values) for values in (preprocessing.mean, preprocessing.std))
    divisor = std[0] if len(set(std)) == 1 else 1.0
    scale = Quantisation(np.float32(1 / (255 * divisor)))
    taken = model.values("images", shape, "uint8", scale)
    x = model.add("DEQUANTIZE", [taken], model.values("values", shape, "float32"))
    if mean.any():
        centre = model.constant("mean", (mean / divisor).astype(np.float32))
        x = model.add("SUB", [x, centre], model.values("centred", shape, "float32"))
    if len(set(std)) > 1:
        factor = model.constant("factor", (1 / std).astype(np.float32))
        x = model.add("MUL", [x, factor], model.values("normalised", shape, "float32"))
    return taken, x


def _add_weights(model: Model, name: str, values: Array, half: bool) -> Tensor:
    if not half:
        return model.constant(name, values)
    stored = model.constant(f"{name}.half", to_half(name, values))
    return model.add("DEQUANTIZE", [stored], model.tensor(name, values.shape, "float32"))


def _int8_model(
    network: Int8Network, shape: tuple[int, ...], images: Input, largest_logit: float | None
) -> tuple[Model, Tensor, Tensor]:
    model = Model(is_int8=True)
    outside = network.outside
    zero = outside[0]
    step = power_of_two(1 / (255 * max(network.preprocessing.std)))
    signed = Quantisation(step, zero + _ZERO)
    if images == "uint8":
        taken = model.values("images", shape, "uint8", Quantisation(step, zero))
        x = model.add("QUANTIZE", [taken], model.values("signed", shape, "int8", signed))
    else:
        taken = x = model.values("images", shape, "int8", signed)
    for layer, scales in zip(network.layers, state_scales(network, step), strict=True):
        steps = Quantisation(scales.given, _ZERO)
        if isinstance(layer, Int8Pool):
            x = _add_mean(model, layer, x, steps)
            continue
        if layer.kind == "dense":
            x = _add_classifier(model, layer, scales, x, largest_logit)
            continue
        constants = _int8_constants(model, layer, scales, zero)
        if layer.kind == "stem" and len(set(outside)) > 1:
            x, padding = _add_border_of_bytes(model, layer, x, outside), VALID
        else:
            x, padding = _add_border(model, layer, x)
        x = _add_convolution(model, layer, x, padding, constants, steps)
        zero = 0
    return model, taken, x


def _int8_constants(
    model: Model,
    layer: Int8Layer,
    scales: StatedScales,
    zero: int = 0,
    bias_type: type[np.signedinteger[Any]] = np.int32,
) -> list[Tensor]:
    """Weights and bias; what LiteRT subtracts from bytes as zero point goes back into the bias."""
    sums = layer.weight.reshape(layer.out_channels, -1).sum(axis=1, dtype=np.int64)
    bias = (layer.bias + zero * sums).astype(bias_type)
    steps = Quantisation(scales.weight(layer), axis=3 if layer.kind == "depthwise" else 0)
    return [
        model.constant(f"{layer.name}.weight", _channels_last(layer), steps),
        model.constant(f"{layer.name}.bias", bias, Quantisation(scales.bias(layer))),
    ]


def _add_classifier(
    model: Model, layer: Int8Layer, scales: StatedScales, x: Tensor, largest_logit: float | None
) -> Tensor:
    shape = (x.shape[0], layer.out_channels)
    if largest_logit is not None:
        step = Quantisation(np.float32(largest_logit / 127))
        logits = model.values("logits", shape, "int8", step)
        return model.add("FULLY_CONNECTED", [x, *_int8_constants(model, layer, scales)], logits)
    # The same steps of the pooled bytes, and logits in steps of which no logit needs more than
    # int16 holds, whatever the image.
    low, high = layer.accumulator_bounds()
    bound = float((np.maximum(-low, high) * layer.multiplier.astype(np.float64)).max())
    step = Quantisation(np.float32(bound / np.iinfo(np.int16).max or 1))
    wide = model.values(f"{layer.name}.input", x.shape, "int16", Quantisation(scales.taken))
    wide = model.add("QUANTIZE", [x], wide)
    constants = _int8_constants(model, layer, scales, bias_type=np.int64)
    rounded = model.values(layer.name, shape, "int16", step)
    model.add("FULLY_CONNECTED", [wide, *constants], rounded)
    return model.add("DEQUANTIZE", [rounded], model.values("logits", shape, "float32"))


def _add_border_of_bytes(
    model: Model, layer: Int8Layer, x: Tensor, outside: tuple[int, ...]
) -> Tensor:
    """Pad each channel with its own byte."""
    batch, height, width, channels = x.shape
    borders = np.array([(0, 0), *(layer.border(side) for side in (height, width)), (0, 0)])
    size = (height + int(borders[1].sum()), width + int(borders[2].sum()))
    amounts = model.constant("border", borders.astype(np.int32))
    axis = model.constant("channels", np.array(3, np.int32))
    planes = [
        model.values(f"plane.{channel}", (*x.shape[:3], 1), x.dtype, x.quantisation)
        for channel in range(channels)
    ]
    model.add("SPLIT", [axis, x], *planes, options={0: Number("i", channels)})
    padded = []
    for channel, plane in enumerate(planes):
        byte = np.array(outside[channel] + _ZERO, np.int8)
        padded.append(
            model.add(
                "PADV2",
                [plane, amounts, model.constant(f"outside.{channel}", byte, x.quantisation)],
                model.values(f"padded.{channel}", (batch, *size, 1), x.dtype, x.quantisation),
            )
        )
    whole = model.values("padded", (batch, *size, channels), x.dtype, x.quantisation)
    return model.add("CONCATENATION", padded, whole, options={0: Number("i", 3)})


def _add_border(model: Model, layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """Pad with zeros where the convolution's own SAME padding would stand elsewhere."""
    sides = x.shape[1:3]
    borders = [layer.border(side) for side in sides]
    as_same = Layer(**layer.to_dict() | {"padding": "same"})
    if borders == [as_same.border(side) for side in sides]:
        return x, SAME
    amounts = np.array([(0, 0), *borders, (0, 0)], np.int32)  # (4, 2)
    shape = tuple(int(n) for n in np.array(x.shape) + amounts.sum(axis=1))
    padded = model.values(f"{layer.name}.padded", shape, x.dtype, x.quantisation)
    return model.add("PAD", [x, model.constant(f"{layer.name}.border", amounts)], padded), VALID


def _add_convolution(
    model: Model,
    layer: Layer,
    x: Tensor,
    padding: int,
    constants: list[Tensor],
    quantisation: Quantisation | None = None,
) -> Tensor:
    """A convolution with its activation."""
    overlap = layer.kernel - 1 if padding == VALID else 0
    sides = [layer.output_side(side - overlap) for side in x.shape[1:3]]
    shape = (x.shape[0], *sides, layer.out_channels)
    output = model.values(layer.name, shape, x.dtype, quantisation)
    activation = Number("b", _ACTIVATIONS.get(layer.activation or "", NONE))
    options = {
        0: Number("b", padding),
        1: Number("i", layer.stride),
        2: Number("i", layer.stride),
    }
    if layer.kind == "depthwise":
        options |= {3: Number("i", 1), 4: activation}  # one output for an input
        return model.add("DEPTHWISE_CONV_2D", [x, *constants], output, options=options)
    return model.add("CONV_2D", [x, *constants], output, options=options | {3: activation})


def _add_mean(
    model: Model, layer: Layer, x: Tensor, quantisation: Quantisation | None = None
) -> Tensor:
    axes = model.constant(f"{layer.name}.axes", np.array([1, 2], np.int32))
    output = model.values(layer.name, (x.shape[0], layer.out_channels), x.dtype, quantisation)
    return model.add("MEAN", [x, axes], output)


def _channels_last(layer: FloatLayer | Int8Layer) -> Array:
    """Weights as LiteRT has them: (O, H, W, I), depthwise (1, H, W, C), dense (O, I)."""
    if layer.kind == "dense":
        return layer.weight
    if layer.kind == "depthwise":
        return layer.weight.transpose(1, 2, 3, 0)
    return layer.weight.transpose(0, 2, 3, 1)
