"""The layers of a MobileNet as plain records: shapes, parameters, multiply-adds, memory.

One record is what runs as one step on a device: a convolution with its batch norm and activation,
the pool, the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from lucid.architecture import MobileNetArguments, convolutions
from lucid.checks import check_integer

Kind = Literal["stem", "depthwise", "pointwise", "pool", "dense"]
Shape = tuple[int, int, int]

# A side of this many pixels is beyond any image that lucid reads.
MAX_SIDE = 1_000_000


@dataclass(frozen=True)
class Layer:
    """One layer: its path in the model, what it reads and gives, and how its window moves.

    Shapes are (C, H, W), the kernel is (height, width). The pool's kernel is its whole input; the
    classifier is a 1x1 kernel on one pixel.
    """

    name: str
    kind: Kind
    input_shape: Shape
    output_shape: Shape
    kernel: tuple[int, int]
    stride: int

    @property
    def weights(self) -> int:
        """Values in the weight tensor."""
        taps = prod(self.kernel)
        if self.kind == "pool":
            return 0
        if self.kind == "depthwise":
            return self.output_shape[0] * taps
        return self.output_shape[0] * self.input_shape[0] * taps

    @property
    def parameters(self) -> int:
        """Trainable values: the weights with batch norm's scale and shift, or with the bias."""
        if self.kind == "pool":
            return 0
        return self.weights + self.output_shape[0] * (1 if self.kind == "dense" else 2)

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
    peak: Layer


def layers(arguments: MobileNetArguments, height: int, width: int) -> tuple[Layer, ...]:
    """The 29 layers in the order in which an image of (height, width) pixels passes them.

    Raises:
        ConfigError: height or width is not from 1 to ``MAX_SIDE``.
    """
    check_integer("height", height, 1, MAX_SIDE)
    check_integer("width", width, 1, MAX_SIDE)
    found: list[Layer] = []
    shape = (arguments.in_channels, height, width)
    for convolution in convolutions(arguments):
        output = (
            convolution.out_channels,
            convolution.output_side(shape[1]),
            convolution.output_side(shape[2]),
        )
        kernel = (convolution.kernel, convolution.kernel)
        found.append(
            Layer(convolution.name, convolution.kind, shape, output, kernel, convolution.stride)
        )
        shape = output
    pooled = (shape[0], 1, 1)
    found.append(Layer("avgpool", "pool", shape, pooled, shape[1:], 1))
    found.append(Layer("fc", "dense", pooled, (arguments.num_classes, 1, 1), (1, 1), 1))
    return tuple(found)


def totals(network: Sequence[Layer]) -> Totals:
    """Add up the layers of ``layers``; of several peaks the first counts."""
    return Totals(
        parameters=sum(layer.parameters for layer in network),
        multiply_adds=sum(layer.multiply_adds for layer in network),
        peak=max(network, key=lambda layer: layer.activations),
    )
