"""The layers of a MobileNet as plain records: structure, shapes, multiply-adds, memory.

One record is what runs as one step on a device: a convolution with its batch norm and activation,
the pool, the classifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from reprlib import repr as shorten  # names come from files too
from typing import Any, Literal

from lucid.architecture import (
    ACTIVATIONS,
    PADDINGS,
    Activation,
    MobileNetArguments,
    Padding,
    convolutions,
)
from lucid.checks import check_choice, check_integer
from lucid.errors import ConfigError

Kind = Literal["stem", "depthwise", "pointwise", "pool", "dense"]
Shape = tuple[int, int, int]

KINDS: tuple[Kind, ...] = ("stem", "depthwise", "pointwise", "pool", "dense")

# A side of this many pixels is beyond any image that lucid reads.
MAX_SIDE = 1_000_000
MAX_CHANNELS = 1_000_000


# The records of this package are told apart by identity: those derived from this one hold arrays,
# which have no single truth value.
@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One layer for images of any size: its path in the model, its channels, how its window moves.

    Args:
        name: letters, digits, ``_`` and ``.``, at most 100.
        kind: ``"stem"``, a 3x3 convolution; ``"depthwise"``, a 3x3 convolution of each channel by
            itself; ``"pointwise"``, a 1x1 convolution; ``"pool"``, the mean of each channel;
            ``"dense"``, the classifier.
        in_channels: of the input, 1 to 1,000,000.
        out_channels: of the output; those of the input for a depthwise layer and the pool.
        stride: 1 or 2; only stem and depthwise layers have 2.
        padding: where the pixels outside the image lie, see ``border``.
        activation: of a convolution: ``"relu"``, 0 or more, or ``"relu6"``, 0 to 6. None for the
            pool and the classifier.
    Raises:
        ConfigError: a field is out of range or does not go with the kind.
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    stride: int = 1
    padding: Padding = "symmetric"
    activation: Activation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch("[A-Za-z0-9_.]{1,100}", self.name):
            raise ConfigError(
                "name must be 1 to 100 letters, digits, underscores and points, "
                f"got {shorten(self.name)}"
            )
        check_choice("kind", self.kind, KINDS)
        check_choice("padding", self.padding, PADDINGS)
        check_integer("in_channels", self.in_channels, 1, MAX_CHANNELS)
        check_integer("out_channels", self.out_channels, 1, MAX_CHANNELS)
        check_integer("stride", self.stride, 1, 2 if self.kernel > 1 else 1)
        if self.kind in ("depthwise", "pool") and self.in_channels != self.out_channels:
            raise ConfigError(
                f"{self.name}: a {self.kind} layer has as many channels out as in, "
                f"got {self.in_channels} in and {self.out_channels} out"
            )
        if self.kind not in ("pool", "dense"):
            check_choice("activation", self.activation, ACTIVATIONS)
        elif self.activation is not None:
            raise ConfigError(f"{self.name}: a {self.kind} layer has no activation")

    @property
    def kernel(self) -> int:
        """Side of the square window of weights: 3 or 1."""
        return 3 if self.kind in ("stem", "depthwise") else 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out channels, in channels that each of them sees, kernel, kernel).

        (out channels, in channels) for the classifier; the pool has no weights: (0,).
        """
        if self.kind == "pool":
            return (0,)
        if self.kind == "dense":
            return (self.out_channels, self.in_channels)
        seen = 1 if self.kind == "depthwise" else self.in_channels
        return (self.out_channels, seen, self.kernel, self.kernel)

    @property
    def weights(self) -> int:
        """Values in the weight tensor."""
        return prod(self.weight_shape)

    @property
    def parameters(self) -> int:
        """Trainable values: the weights with batch norm's scale and shift, or with the bias."""
        if self.kind == "pool":
            return 0
        return self.weights + self.out_channels * (1 if self.kind == "dense" else 2)

    def output_side(self, side: int) -> int:
        """Pixels out for pixels in along one axis: a convolution's; the pool gives 1."""
        return 1 if self.kind == "pool" else -(-side // self.stride)

    def border(self, side: int) -> tuple[int, int]:
        """Pixels outside the image that the windows of a convolution see, (before, after).

        Along one axis of ``side`` pixels. Both paddings see as many and give the same output size.
        ``"symmetric"`` puts kernel // 2 before the image and the rest behind it, as PyTorch's
        ``padding=kernel // 2`` does; ``"same"`` puts half before, rounded down, as TensorFlow's
        SAME does. They differ for even sides at stride 2 only: (1, 0) against (0, 1).
        """
        outside = (self.output_side(side) - 1) * self.stride + self.kernel - side
        before = self.kernel // 2 if self.padding == "symmetric" else outside // 2
        return before, outside - before

    def to_dict(self) -> dict[str, Any]:
        """The structure by field, as JSON values; without what derived records add."""
        return {name: getattr(self, name) for name in Layer.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True, eq=False)
class SizedLayer(Layer):
    """A layer on an image of one size: what it reads, gives and costs.

    Args:
        height: of the layer's input, in pixels.
        width: of the layer's input, in pixels.
    """

    height: int
    width: int

    @property
    def input_shape(self) -> Shape:
        """(C, H, W)."""
        return (self.in_channels, self.height, self.width)

    @property
    def output_shape(self) -> Shape:
        """(C, H, W)."""
        return (self.out_channels, self.output_side(self.height), self.output_side(self.width))

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of what one output value is made of; the pool's is its whole input."""
        return (self.height, self.width) if self.kind == "pool" else (self.kernel, self.kernel)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of a weight by a value for one image, each added to a sum.

        Batch norm, which folds into the convolution, and the pool's sums count as none, as in
        arXiv:1704.04861.
        """
        return self.weights * prod(self.output_shape[1:])

    @property
    def activations(self) -> int:
        """Values in the input and in the output, both in memory while the layer runs.

        In bytes: 4 times this in float32, once this in uint8.
        """
        return prod(self.input_shape) + prod(self.output_shape)


@dataclass(frozen=True)
class Totals:
    """Sums over the layers of a network, and the layer that needs the most activation memory."""

    parameters: int
    multiply_adds: int
    peak: SizedLayer


def layers(arguments: MobileNetArguments) -> tuple[Layer, ...]:
    """The layers in the order in which an image passes them: 29, or 30 with a head."""
    found = [
        Layer(
            name=convolution.name,
            kind=convolution.kind,
            in_channels=convolution.in_channels,
            out_channels=convolution.out_channels,
            stride=convolution.stride,
            padding=arguments.padding,
            activation=arguments.activation,
        )
        for convolution in convolutions(arguments)
    ]
    channels = arguments.feature_channels
    found.append(Layer(name="avgpool", kind="pool", in_channels=channels, out_channels=channels))
    classes = arguments.num_classes
    found.append(Layer(name="fc", kind="dense", in_channels=channels, out_channels=classes))
    return tuple(found)


def sized_layers(network: Iterable[Layer], height: int, width: int) -> tuple[SizedLayer, ...]:
    """The layers of a network on an image of (height, width) pixels.

    Raises:
        ConfigError: height or width is not from 1 to ``MAX_SIDE``.
    """
    check_integer("height", height, 1, MAX_SIDE)
    check_integer("width", width, 1, MAX_SIDE)
    found: list[SizedLayer] = []
    for layer in network:
        found.append(SizedLayer(**layer.to_dict(), height=height, width=width))
        height, width = found[-1].output_shape[1:]
    return tuple(found)


def totals(network: Sequence[SizedLayer]) -> Totals:
    """Add up the layers of ``sized_layers``; of several peaks the first counts."""
    return Totals(
        parameters=sum(layer.parameters for layer in network),
        multiply_adds=sum(layer.multiply_adds for layer in network),
        peak=max(network, key=lambda layer: layer.activations),
    )
