"""From a network to a Core ML package (.mlpackage), an image classifier for Xcode and Vision.

An int8 network keeps its bytes and scales: weights are stored as int8, activations pass quantize
and dequantize, which Apple's neural engines take as integers.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.formats import Files, Precision
from lucid.exporters.metadata import describe
from lucid.images import Preprocessing
from lucid.network import FloatNetwork, FloatPool, Int8Layer, Int8Network, Int8Pool, Layer

__all__ = ["coremltools", "to_files"]

_SPECIFICATION = "com.apple.CoreML/model.mlmodel"
_WEIGHTS = "com.apple.CoreML/weights"

# Of coremltools' passes over the program; it is folded already, the others find nothing.
_TO_HALF = [
    "common::add_fp16_cast",
    "common::cast_optimization",
    "common::const_elimination",
    "common::dead_code_elimination",
]


def to_files(
    network: FloatNetwork | Int8Network, precision: Precision, size: tuple[int, int]
) -> Files:
    """One ``image`` -> ``logits``, float32 (1, classes), the class's label and all probabilities.

    Float networks run from iOS 15 and macOS 12 on, int8 networks from iOS 17 and macOS 14 on. The
    same network gives the same bytes.

    Raises:
        MissingDependencyError: coremltools is not installed.
    """
    ct = coremltools()
    half = precision == "float16"
    with _quietly():
        builder = _Builder(ct, network, size)
        model = ct.convert(
            builder.program,
            source="milinternal",
            convert_to="mlprogram",
            inputs=[builder.images],
            classifier_config=ct.ClassifierConfig(
                list(network.class_names), predicted_probabilities_output="probabilities"
            ),
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline(_TO_HALF if half else [], "lucid"),
            minimum_deployment_target=builder.target,
            skip_model_load=True,
        )
    specification = model.get_spec()
    metadata = specification.description.metadata
    metadata.shortDescription = f"MobileNet of {len(network.class_names)} classes"
    texts = {
        part: json.dumps(value, ensure_ascii=False) for part, value in describe(network).items()
    }
    del metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    preview = {"com.apple.coreml.model.preview.type": "imageClassifier"}
    for part, text in (preview | texts).items():
        metadata.userDefined[part] = text
    data = ".mlpackage/Data/"
    return {
        ".mlpackage/Manifest.json": _manifest(),
        data + _SPECIFICATION: specification.SerializeToString(deterministic=True),
        f"{data}{_WEIGHTS}/weight.bin": Path(model.weights_dir, "weight.bin").read_bytes(),
    }


def coremltools() -> Any:
    """The module; what it says while it is loaded, on versions and on being no Mac, is dropped.

    Raises:
        MissingDependencyError: it is not installed.
    """
    with _quietly():
        return require("coremltools", extra="coreml")


class _Builder:
    """The program, and how it takes its image."""

    def __init__(self, ct: Any, network: FloatNetwork | Int8Network, size: tuple[int, int]) -> None:
        mil = require("coremltools.converters.mil", extra="coreml")
        self._ops = mil.Builder
        self._size = size
        self.target = ct.target.iOS17 if isinstance(network, Int8Network) else ct.target.iOS15
        preprocessing = network.preprocessing
        shape = (1, preprocessing.channels, *size)
        scale, bias = _scale_and_bias(network)
        layout = ct.colorlayout.RGB if preprocessing.channels == 3 else ct.colorlayout.GRAYSCALE
        self.images = ct.ImageType(
            name="image",
            shape=shape,
            color_layout=layout,
            scale=scale,
            bias=bias if len(bias) > 1 else bias[0],
        )

        def program(image: Any) -> Any:
            x = (
                self._float(network, image)
                if isinstance(network, FloatNetwork)
                else self._int8(network, image)
            )
            return x, self._ops.softmax(x=x, axis=-1, name="probabilities")

        specs = [self._ops.TensorSpec(shape=shape)]
        decorate = self._ops.program(input_specs=specs, opset_version=self.target)
        self.program = decorate(program)

    def _float(self, network: FloatNetwork, x: Any) -> Any:
        for layer in network.layers:
            if isinstance(layer, FloatPool):
                x = self._mean(layer, x)
                continue
            weight = layer.weight
            if layer.kind == "stem":
                weight = (weight * _spread(network.preprocessing)).astype(np.float32)
            x = self._sums(layer, x, weight, layer.bias)
            if layer.activation is not None:
                x = getattr(self._ops, layer.activation)(x=x, name=layer.name)
        return x

    def _int8(self, network: Int8Network, x: Any) -> Any:
        outside = np.array(network.outside, np.int64)  # (C,), which the image's bias subtracts
        for layer in network.layers:
            if isinstance(layer, Int8Pool):
                x = self._requantised(layer, self._mean(layer, x), 255)
                continue
            weight = self._ops.constexpr_affine_dequantize(
                quantized_data=layer.weight,
                zero_point=np.int8(0),
                scale=layer.weight_scale,
                axis=0,
                name=f"{layer.name}.weight",
            )
            taps = layer.weight.astype(np.int64).sum(axis=tuple(range(2, layer.weight.ndim)))
            bias = layer.bias + (taps * outside[: taps.shape[1]]).sum(axis=1)
            scale = np.float64(layer.input_scale) * layer.weight_scale
            x = self._sums(layer, x, weight, (bias * scale).astype(np.float32))
            if layer.kind != "dense":
                x = self._requantised(layer, x, layer.maximum)
            outside = np.zeros(layer.out_channels, np.int64)
        return x

    def _sums(self, layer: Layer, x: Any, weight: Any, bias: Any) -> Any:
        """A convolution or the classifier, without its activation."""
        if layer.kind == "dense":
            return self._ops.linear(x=x, weight=weight, bias=bias, name="logits")
        height, width = self._size
        self._size = layer.output_side(height), layer.output_side(width)
        return self._ops.conv(
            x=x,
            weight=weight,
            bias=bias,
            strides=[layer.stride] * 2,
            pad_type="custom",
            pad=[*layer.border(height), *layer.border(width)],
            groups=layer.in_channels if layer.kind == "depthwise" else 1,
            name=f"{layer.name}.sums",
        )

    def _mean(self, layer: Layer, x: Any) -> Any:
        return self._ops.reduce_mean(x=x, axes=[2, 3], keep_dims=False, name=f"{layer.name}.mean")

    def _requantised(self, layer: Int8Layer | Int8Pool, x: Any, maximum: int) -> Any:
        """Values rounded to those of the bytes 0 to ``maximum``."""
        steps = {"scale": np.float32(layer.output_scale), "zero_point": np.uint8(0)}
        if maximum < 255:  # else the clamp is that of a byte
            high = np.float32(maximum * np.float64(layer.output_scale))
            x = self._ops.clip(x=x, alpha=np.float32(0), beta=high, name=f"{layer.name}.clamped")
        name = f"{layer.name}.quantised"
        x = self._ops.quantize(input=x, output_dtype="uint8", name=name, **steps)
        return self._ops.dequantize(input=x, name=layer.name, **steps)


def _scale_and_bias(network: FloatNetwork | Int8Network) -> tuple[float, list[float]]:
    """What Core ML multiplies bytes with, one number, and then adds, one for each channel."""
    if isinstance(network, Int8Network):
        return 1.0, [-float(byte) for byte in network.outside]
    mean, std = (np.asarray(v) for v in (network.preprocessing.mean, network.preprocessing.std))
    common = float(std.mean())
    return 1 / (255 * common), [float(value) for value in -mean / common]


def _spread(preprocessing: Preprocessing) -> np.ndarray[Any, Any]:
    """What the first layer's weights take up where channels have other standard deviations."""
    std = np.asarray(preprocessing.std, np.float64)
    spread: np.ndarray[Any, Any] = (std.mean() / std).reshape(1, -1, 1, 1)
    return spread


def _manifest() -> bytes:
    """What is in the package; identifiers are made of paths, so that they are always the same."""
    entries = {}
    for path, text in ((_SPECIFICATION, "Specification"), (_WEIGHTS, "Weights")):
        identifier = str(uuid.uuid5(uuid.NAMESPACE_URL, path)).upper()
        entries[identifier] = {
            "author": "com.apple.CoreML",
            "description": f"CoreML Model {text}",
            "name": path.rpartition("/")[2],
            "path": path,
        }
    content = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": next(iter(entries)),
    }
    return (json.dumps(content, indent=4) + "\n").encode()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Within it coremltools, which reports every step, can't be heard; errors are raised."""
    silence = io.StringIO()
    before = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(silence),
        contextlib.redirect_stdout(silence),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)
