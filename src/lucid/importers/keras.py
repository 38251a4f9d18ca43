"""Reading Keras models whose layers form a MobileNet-V1, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lucid.errors import CheckpointError
from lucid.importers.keras_files import HDF5, Layer, read_keras_archive, read_keras_h5
from lucid.importers.parts import (
    Array,
    BatchNorm,
    ConvolutionPart,
    DensePart,
    Found,
    PartPadding,
    refuse,
)

# Configurations and weights come from others, and h5py raises what HDF5 meets.
_DAMAGE = (
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    LookupError,
    OSError,
    RuntimeError,
)
_PADDINGS: dict[Any, PartPadding] = {
    ((1, 1), (1, 1)): "symmetric",
    ((0, 1), (0, 1)): "end",
}
# They do nothing once training is over.
_IDENTITIES = (
    "Dropout",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
)


def read_keras(content: bytes) -> Found:
    """Read an .h5 or .keras file.

    Raises:
        CheckpointError: it is damaged, or has a layer that no MobileNet-V1 has, which is named.
        MissingDependencyError: h5py is not installed.
    """
    chain = _Chain()
    try:
        read = read_keras_h5 if content.startswith(HDF5) else read_keras_archive
        for layer in read(content):
            chain.add(layer)
    except _DAMAGE as error:
        raise CheckpointError(f"the Keras model can't be read ({str(error)[:200]})") from error
    if chain.padding is not None:
        raise CheckpointError("the network ends with padding")
    return Found(
        format="keras",
        convolutions=tuple(chain.convolutions),
        classifier=chain.classifier,
        resolution=chain.resolution,
        preprocessing=chain.preprocessing,
    )


@dataclass
class _Chain:
    """Takes the layers one after another and keeps what they are."""

    convolutions: list[ConvolutionPart] = field(default_factory=list)
    classifier: DensePart | None = None
    padding: PartPadding | None = None
    resolution: int | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    channels: int = 3
    is_pooled: bool = False
    is_over: bool = False

    def add(self, layer: Layer) -> None:
        """Take the next layer, or refuse it by name."""
        if layer.kind in _IDENTITIES:
            return
        steps: dict[str, Callable[[Layer], None]]
        if not self.is_pooled:
            steps = {
                "Conv2D": self._convolution,
                "DepthwiseConv2D": self._convolution,
                "BatchNormalization": self._batch_norm,
                "ReLU": self._relu,
                "Activation": self._activation,
                "ZeroPadding2D": self._pad,
                "GlobalAveragePooling2D": self._pool,
            }
            if not self.convolutions:
                steps |= {"InputLayer": self._input, "Rescaling": self._rescaling}
        elif self.classifier is None:
            steps = {
                "Dense": self._dense,
                "Conv2D": self._dense,
                "Flatten": self._reshape,
                "Reshape": self._reshape,
            }
        else:
            steps = {
                "Flatten": self._reshape,
                "Reshape": self._reshape,
                "Activation": self._softmax,
                "Softmax": self._softmax,
            }
        # An inner model starts with an input of its own.
        if layer.kind == "InputLayer" and self.resolution is not None and "InputLayer" in steps:
            return
        if layer.kind not in steps or self.is_over:
            raise refuse(layer.label, f"one of {', '.join(steps)}", layer.kind)
        steps[layer.kind](layer)

    def _input(self, layer: Layer) -> None:
        shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
        if not isinstance(shape, list) or len(shape) != 4 or shape[1] != shape[2]:
            raise refuse(layer.label, "square images (N, H, W, C)", shape)
        self.resolution, self.channels = shape[1], shape[3]

    def _rescaling(self, layer: Layer) -> None:
        if self.preprocessing:
            raise refuse(layer.label, "one rescaling", "another")
        scale = _per_channel(layer.config["scale"], self.channels)
        offset = _per_channel(layer.config.get("offset", 0), self.channels)
        if not all(value > 0 for value in scale):
            raise refuse(layer.label, "scales above 0", scale)
        # scale * 255 * p + offset = (p - mean) / std for p = pixel / 255
        self.preprocessing = {
            "mean": tuple(-b / (255 * a) for a, b in zip(scale, offset, strict=True)),
            "std": tuple(1 / (255 * a) for a in scale),
        }

    def _pad(self, layer: Layer) -> None:
        amounts = layer.config["padding"]
        known = _PADDINGS.get(tuple(map(tuple, amounts)))
        if known is None or self.padding is not None:
            raise refuse(layer.label, "padding by one pixel", amounts)
        self.padding = known

    def _convolution(self, layer: Layer) -> None:
        config, weights = layer.config, layer.weights()
        kernel = weights["kernel"]
        if kernel.ndim != 4:
            raise refuse(layer.label, "weights of 4 dimensions", kernel.shape)
        _check_plain(layer)
        strides = tuple(config["strides"])
        if strides[0] != strides[1]:
            raise refuse(layer.label, "one stride", strides)
        if layer.kind == "DepthwiseConv2D":
            groups = kernel.shape[2]
            # (H, W, C, multiplier) -> (C * multiplier, 1, H, W)
            weight = kernel.reshape(*kernel.shape[:2], -1)[None].transpose(3, 0, 1, 2)
        else:
            groups = config.get("groups", 1)
            weight = kernel.transpose(3, 2, 0, 1)  # (H, W, I, O) -> (O, I, H, W)
        if type(groups) is not int or groups < 1:
            raise refuse(layer.label, "a number of groups", f"{groups!r:.80}")
        self.convolutions.append(
            ConvolutionPart(
                name=layer.label,
                weight=np.ascontiguousarray(weight),
                groups=groups,
                stride=strides[0],
                padding=self._padding(layer, kernel.shape[0]),
                activation=_activation_name(config.get("activation")),
                norm=_bias(weights, len(weight)),
            )
        )

    def _padding(self, layer: Layer, kernel: int) -> PartPadding:
        padding, self.padding = self.padding, None
        if kernel == 1 and padding is None:
            return "same"  # which is none
        if (layer.config["padding"] == "same") == (padding is not None):
            raise refuse(
                layer.label,
                "padding that keeps the size",
                layer.config["padding"] + (" after padding" if padding else ""),
            )
        return padding or "same"

    def _batch_norm(self, layer: Layer) -> None:
        last = self._take_last(layer)
        if isinstance(last.norm, BatchNorm):
            raise refuse(layer.label, "one batch norm", "another")
        if layer.config.get("axis", -1) not in (-1, 3, [3], [-1]):
            raise refuse(layer.label, "the norm of channels", f"axis {layer.config['axis']}")
        weights, channels = layer.weights(), len(last.weight)
        for name, values in weights.items():
            if values.shape != (channels,):
                raise refuse(layer.label, f"{channels} values of {name}", values.shape)
        norm = BatchNorm(
            scale=weights.get("gamma", np.ones(channels, np.float32)),
            shift=weights.get("beta", np.zeros(channels, np.float32)),
            mean=weights["moving_mean"] - last.norm,
            variance=weights["moving_variance"],
            epsilon=float(layer.config.get("epsilon", 1e-3)),
        )
        self.convolutions.append(replace(last, norm=norm))

    def _relu(self, layer: Layer) -> None:
        values = [layer.config.get(key) or 0 for key in ("negative_slope", "threshold")]
        highest = layer.config.get("max_value")
        if values != [0, 0] or highest not in (None, 6):
            raise refuse(layer.label, "ReLU or ReLU6", f"max_value {highest}, slope {values[0]}")
        self._activate(layer, "relu" if highest is None else "relu6")

    def _activation(self, layer: Layer) -> None:
        self._activate(layer, _activation_name(layer.config["activation"]))

    def _activate(self, layer: Layer, name: str) -> None:
        self.convolutions.append(replace(self._take_last(layer), activation=name))

    def _take_last(self, layer: Layer) -> ConvolutionPart:
        """The last convolution, which must still be without activation."""
        if not self.convolutions or self.convolutions[-1].activation != "linear":
            raise refuse(layer.label, "a convolution right before it", "none")
        return self.convolutions.pop()

    def _pool(self, layer: Layer) -> None:
        _check_plain(layer)
        if self.padding is not None:
            raise refuse(layer.label, "a convolution after padding", layer.kind)
        self.is_pooled = True

    def _reshape(self, layer: Layer) -> None:
        """One pixel has its channels in one order, whatever its shape."""

    def _dense(self, layer: Layer) -> None:
        weights = layer.weights()
        kernel = weights["kernel"]  # (channels, classes), for a convolution (1, 1, ...)
        if kernel.ndim not in (2, 4) or kernel.shape[:-2] not in ((), (1, 1)):
            raise refuse(layer.label, "a kernel of one pixel", kernel.shape)
        weight = np.ascontiguousarray(kernel.reshape(kernel.shape[-2:]).T)
        self.classifier = DensePart(layer.label, weight, _bias(weights, len(weight)))
        activation = _activation_name(layer.config.get("activation"))
        if activation not in ("linear", "softmax"):
            raise refuse(layer.label, "softmax or no activation", activation)
        self.is_over = activation == "softmax" and layer.kind == "Dense"

    def _softmax(self, layer: Layer) -> None:
        name = _activation_name(layer.config.get("activation", "softmax"))
        if name not in ("softmax", "linear"):
            raise refuse(layer.label, "softmax or no activation", name)
        self.is_over = name == "softmax"


def _bias(weights: Mapping[str, Array], channels: int) -> Array:
    bias = weights.get("bias", np.zeros(channels, np.float32))
    if bias.shape != (channels,):
        raise CheckpointError(f"expected {channels} biases, found {bias.shape}")
    return bias


def _check_plain(layer: Layer) -> None:
    """Refuse what lucid's layers can't do."""
    dilation = layer.config.get("dilation_rate", 1)
    if dilation not in (1, [1, 1], (1, 1)):
        raise refuse(layer.label, "no dilation", dilation)
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise refuse(layer.label, "channels last", layer.config["data_format"])


def _activation_name(config: Any) -> str:
    """The name of an activation, which may be written as a text or as an object."""
    if isinstance(config, Mapping):
        config = (
            config.get("config") if config.get("class_name") == "function" else config["class_name"]
        )
    return "linear" if config is None else str(config)[:40]


def _per_channel(value: Any, channels: int) -> Sequence[float]:
    values = value if isinstance(value, list) else [value] * channels
    return [float(item) for item in values]
