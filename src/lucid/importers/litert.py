"""Reading LiteRT (TFLite) networks, float and quantised, as the float networks that they are.

A quantised network is read as the one that it approximates: weights and biases times their scales.
The rounding between its layers, and the largest number that each can pass on, are not kept.
Option numbers are those of TensorFlow Lite's ``schema.fbs``, version 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.errors import CheckpointError
from lucid.importers.litert_file import LiteRTFile, Operator, Tensor
from lucid.importers.parts import Array, ConvolutionPart, DensePart, Found, PartPadding, refuse

_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh", 5: "sign_bit"}
_SAME = 0
# Of what lucid says of a network, what its operators do not.
_STATED = ("crop_fraction", "interpolation", "decoder")
_CHANNELS_LAST = (0, 2, 3, 1)
_PADDINGS: dict[tuple[int, ...], PartPadding] = {
    (0, 0, 1, 1, 1, 1, 0, 0): "symmetric",
    (0, 0, 1, 0, 1, 0, 0, 0): "symmetric",  # what a stride of 2 sees of it, on even sides
    (0, 0, 0, 1, 0, 1, 0, 0): "end",
}


def read_litert(content: bytes) -> Found:
    """Read a .tflite file.

    Raises:
        CheckpointError: it is damaged, or has a layer that no MobileNet-V1 has, which is named.
    """
    file = LiteRTFile(content)
    chain = _Chain(file, file.input)
    for operator in _operators(file):
        chain.add(operator)
    chain.finish()
    image = file.tensor(chain.image)
    if len(image.shape) != 4 or image.shape[1] != image.shape[2] or image.shape[3] not in (1, 3):
        raise CheckpointError(
            f"input {image.name!r}: expected square images (N, H, W, 1 or 3), found {image.shape}"
        )
    names = file.labels()
    classes = 0 if chain.classifier is None else len(chain.classifier.weight)
    return Found(
        format="litert",
        convolutions=tuple(chain.convolutions),
        classifier=chain.classifier,
        resolution=image.shape[1] if image.shape[1] > 0 else None,
        preprocessing=_preprocessing(chain, image),
        class_names=names if len(names) == classes else (),
    )


def _operators(file: LiteRTFile) -> Iterator[Operator]:
    """The operators from the input to the output; raises CheckpointError if they branch."""
    current, seen = file.input, {file.input}
    while current != file.output:
        readers = [operator for operator in file.operators if current in operator.inputs]
        if len(readers) != 1:
            raise CheckpointError(
                f"tensor {file.tensor(current).name!r}: expected one layer to read it, found "
                f"{' and '.join(f'layer {reader.label}' for reader in readers[:3]) or 'none'}; "
                "only networks that are a MobileNet-V1 layer by layer can be imported"
            )
        yield readers[0]
        current = readers[0].output
        if current in seen:
            raise CheckpointError(f"layer {readers[0].label}: the layers run in a circle")
        seen.add(current)


@dataclass
class _Chain:
    """Takes the operators one after another and keeps what they are.

    ``image`` is the tensor with the pixels, channels last; ``shift`` is subtracted from what they
    stand for, which is then multiplied by ``factor``. Exports of lucid choose the scales of bytes
    for the sake of exact arithmetic; ``rescaling`` is that of the network over that of the file.
    """

    file: LiteRTFile
    image: int
    convolutions: list[ConvolutionPart] = field(default_factory=list)
    classifier: DensePart | None = None
    padding: PartPadding | None = None
    is_pooled: bool = False
    is_over: bool = False
    shift: NDArray[Any] = field(default_factory=lambda: np.zeros(1))
    factor: NDArray[Any] = field(default_factory=lambda: np.ones(1))
    rescaling: float = 1.0

    def add(self, operator: Operator) -> None:
        """Take the next operator, or refuse it by name."""
        if operator.kind in ("QUANTIZE", "DEQUANTIZE"):
            return
        if self.is_over:
            raise refuse(operator.label, "the end of the network", operator.kind)
        if operator.kind == "TRANSPOSE" and operator.inputs[:1] == (self.file.input,):
            self._to_channels_last(operator)
            return
        if operator.kind in ("SUB", "MUL") and not self.convolutions and self.padding is None:
            self._normalise(operator)
            return
        if not self.is_pooled:
            steps = {
                "PAD": self._pad,
                "CONV_2D": self._convolution,
                "DEPTHWISE_CONV_2D": self._convolution,
                "RELU": self._activation,
                "RELU6": self._activation,
                "AVERAGE_POOL_2D": self._pool,
                "MEAN": self._pool,
            }
        elif self.classifier is None:
            steps = {
                "CONV_2D": self._dense,
                "FULLY_CONNECTED": self._dense,
                "RESHAPE": self._reshape,
                "SQUEEZE": self._reshape,
            }
        else:
            steps = {
                "RESHAPE": self._reshape,
                "SQUEEZE": self._reshape,
                "SOFTMAX": self._softmax,
            }
        if operator.kind not in steps:
            raise refuse(operator.label, f"one of {', '.join(steps)}", operator.kind)
        steps[operator.kind](operator)

    def stated(self, name: str) -> dict[str, Any]:
        """What lucid says of a network that it exported; empty if another program did."""
        found = self.file.description.get(name)
        return found if isinstance(found, dict) else {}

    def finish(self) -> None:
        """Check that what was taken is a whole network."""
        if self.padding is not None:
            raise CheckpointError("the network ends with padding")

    def _to_channels_last(self, operator: Operator) -> None:
        """Exports of PyTorch models take images with channels first, and turn them themselves."""
        order = tuple(self.file.stored(self._input(operator, 1)).ravel().tolist())
        if order != _CHANNELS_LAST:
            raise refuse(operator.label, f"the order {_CHANNELS_LAST}", f"{order[:8]}")
        self.image = operator.output

    def _normalise(self, operator: Operator) -> None:
        """Exports of lucid normalise pixels by themselves."""
        index = self._input(operator, 1)
        channels = self.file.tensor(self.image).shape[-1]
        if not self.file.is_constant(index):
            raise refuse(operator.label, "constants", "values")
        value = self.file.constant(index).astype(np.float64)
        is_product = operator.kind == "MUL"
        if value.shape not in ((), (1,), (channels,)) or (is_product and not (value > 0).all()):
            raise refuse(operator.label, f"1 or {channels} factors above 0", f"{value.shape}")
        if is_product:
            self.factor = self.factor * value
        else:
            self.shift = self.shift + value / self.factor

    def _pad(self, operator: Operator) -> None:
        amounts = tuple(self.file.stored(self._input(operator, 1)).ravel().tolist())
        if amounts not in _PADDINGS or self.padding is not None:
            raise refuse(operator.label, "padding by one pixel", f"{amounts[:8]}")
        if amounts[2:4] == (1, 0):
            readers = [one for one in self.file.operators if operator.output in one.inputs]
            strides = {one.option(number, "i") for one in readers for number in (1, 2)}
            if strides != {2} or any(side % 2 for side in self._tensor(operator, 0).shape[1:3]):
                raise refuse(operator.label, "padding on all sides", f"{amounts[:8]}")
        self.padding = _PADDINGS[amounts]

    def _convolution(self, operator: Operator) -> None:
        is_depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        activation, dilation = (4, 5) if is_depthwise else (3, 4)
        weight = self._weight(operator, 4)
        # depthwise (1, H, W, C) -> (C, 1, H, W); others (O, H, W, I) -> (O, I, H, W)
        weight = weight.transpose((3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2))
        channels = self._tensor(operator, 0).shape[-1:]
        if not weight.size or channels < (1,) or channels[0] % weight.shape[1]:
            raise refuse(operator.label, "weights that fit its input", f"{weight.shape}")
        strides = operator.option(1, "i"), operator.option(2, "i")
        dilations = operator.option(dilation, "i", 1), operator.option(dilation + 1, "i", 1)
        if strides[0] != strides[1] or dilations != (1, 1):
            raise refuse(
                operator.label,
                "one stride and no dilation",
                f"strides {strides}, dilations {dilations}",
            )
        before, after = self.rescaling, self._rescaling(operator)
        self.rescaling = after
        self.convolutions.append(
            ConvolutionPart(
                name=operator.label,
                weight=np.ascontiguousarray(weight * np.float32(after / before)),
                groups=channels[0] // weight.shape[1],
                stride=strides[0],
                padding=self._padding(operator, weight.shape[2]),
                activation=self._fused_activation(operator, activation),
                norm=self._bias(operator, len(weight)) * np.float32(after),
            )
        )

    def _rescaling(self, operator: Operator) -> float:
        output = self.file.tensor(operator.output)
        scale = self.stated("scales").get(output.name)
        if not output.is_quantised or not isinstance(scale, float):
            return 1.0
        ratio = scale / output.scale[0] if output.scale[0] > 0 else 0.0
        if not 0.5 <= ratio <= 2:
            raise refuse(operator.label, f"a scale near {scale:g}", f"{output.scale[0]:g}")
        return ratio

    def _padding(self, operator: Operator, kernel: int) -> PartPadding:
        padding, self.padding = self.padding, None
        is_same = operator.option(0, "b") == _SAME
        if kernel == 1 and padding is None:
            return "same"  # which is none
        if is_same == (padding is not None):
            raise refuse(
                operator.label,
                "padding that keeps the size",
                "padding twice" if is_same else "VALID",
            )
        return padding or "same"

    def _fused_activation(self, operator: Operator, option: int) -> str:
        code = operator.option(option, "b")
        name = _ACTIVATIONS.get(code, f"activation {code}")
        output = self.file.tensor(operator.output)
        if name == "none" and output.is_quantised and output.zero_byte == 0:
            # The bytes end at 0, and at 6 where that was learnt: converters leave out the rest.
            return "relu6" if abs(output.scale[0] * 255 - 6) < 0.01 else "relu"
        return name

    def _activation(self, operator: Operator) -> None:
        if not self.convolutions or self.convolutions[-1].activation not in ("none", "relu"):
            raise refuse(operator.label, "a convolution before it", "none")
        last = self.convolutions.pop()
        self.convolutions.append(replace(last, activation=operator.kind.lower()))

    def _pool(self, operator: Operator) -> None:
        shape = self._tensor(operator, 0).shape
        if operator.kind == "MEAN":
            axes = tuple(self.file.stored(self._input(operator, 1)).ravel().tolist())
            is_global = sorted(axis % 4 for axis in axes) == [1, 2]
        else:
            window = operator.option(4, "i"), operator.option(3, "i")
            output = self.file.tensor(operator.output).shape
            is_global = window == shape[1:3] and output[1:3] == (1, 1)
        if not is_global or self.padding is not None:
            raise refuse(operator.label, "the average of every channel", f"input {shape}")
        self.is_pooled = True

    def _reshape(self, operator: Operator) -> None:
        """One pixel has its channels in one order, whatever its shape."""

    def _dense(self, operator: Operator) -> None:
        is_dense = operator.kind == "FULLY_CONNECTED"
        weight = self._weight(operator, 2 if is_dense else 4)
        if not is_dense and weight.shape[1:3] != (1, 1):
            raise refuse(operator.label, "a kernel of one pixel", f"weights {weight.shape}")
        if operator.option(0 if is_dense else 3, "b") != 0:
            raise refuse(operator.label, "a classifier without activation", "one")
        weight = weight.reshape(len(weight), -1)
        weight = weight / np.float32(self.rescaling)
        self.classifier = DensePart(operator.label, weight, self._bias(operator, len(weight)))

    def _softmax(self, operator: Operator) -> None:
        self.is_over = True
        beta: Any = operator.options.number(0, "f") if operator.options else 1.0
        if beta != 1.0:
            raise refuse(operator.label, "a softmax with beta 1", f"{beta:g}")

    def _weight(self, operator: Operator, rank: int) -> Array:
        index = self._input(operator, 1)
        if not self.file.is_constant(index):
            raise refuse(operator.label, "weights that stand in the file", "others")
        weight = self.file.constant(index)
        if weight.ndim != rank:
            raise refuse(operator.label, f"weights of {rank} dimensions", f"{weight.shape}")
        return weight

    def _bias(self, operator: Operator, channels: int) -> Array:
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return np.zeros(channels, np.float32)
        index = operator.inputs[2]
        scale: tuple[float, ...] = ()
        image, weight = self._tensor(operator, 0), self._tensor(operator, 1)
        if image.is_quantised:
            scale = tuple(image.scale[0] * value for value in weight.scale)
        bias = self.file.constant(index, scale)
        if bias.shape != (channels,):
            raise refuse(operator.label, f"{channels} biases", f"{bias.shape}")
        return bias

    def _input(self, operator: Operator, number: int) -> int:
        if len(operator.inputs) <= number:
            raise refuse(operator.label, f"{number + 1} inputs", f"{len(operator.inputs)}")
        return operator.inputs[number]

    def _tensor(self, operator: Operator, number: int) -> Tensor:
        return self.file.tensor(self._input(operator, number))


def _preprocessing(chain: _Chain, image: Tensor) -> dict[str, Any]:
    """What is known of ``lucid.images.Preprocessing``, by its names."""
    stated = chain.stated("preprocessing")
    kept = {name: stated[name] for name in _STATED if name in stated}
    return kept | _normalisation(chain, image)


def _normalisation(chain: _Chain, image: Tensor) -> dict[str, Any]:
    """Mean and std of pixel / 255 by which a byte becomes what the network expects."""
    if image.is_quantised:
        # scale * (byte - zero byte); LiteRT is given a picture's bytes, less 128 if signed.
        channels, scale = image.shape[-1], image.scale[0]
        if not scale > 0:
            raise CheckpointError(f"input {image.name}: a scale of {scale}")
        mean = image.zero_byte / 255 + chain.shift / (255 * scale)
        std = 1 / (255 * scale * chain.factor)
        return {
            name: tuple(_undo_rounding(float(one)) for one in np.broadcast_to(values, channels))
            for name, values in (("mean", mean), ("std", std))
        }
    found = chain.file.normalisation()
    if found is None:
        return {}
    return {
        name: tuple(value / 255 for value in values) * (image.shape[-1] if len(values) == 1 else 1)
        for name, values in zip(("mean", "std"), found, strict=True)
    }


def _undo_rounding(value: float) -> float:
    """The short number that a float32 was before, such as 1 for 0.99999994."""
    short = round(value, 6)
    return short if abs(short - value) <= 1e-7 * abs(value) else value
