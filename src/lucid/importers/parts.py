"""What every source of weights is brought to first: a chain of layers, with the source's names.

A reader of a format says what stands in the file; ``lucid.importers.assembly`` says whether that is
a MobileNet-V1, and which one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucid.errors import CheckpointError

Array = NDArray[np.float32]

# "end" is one row at the bottom and one column at the right, whatever the size.
PartPadding = Literal["same", "symmetric", "end"]

# Of all published MobileNet-V1 weights: TF-Slim's ``slim.batch_norm``, Keras's default.
TENSORFLOW_EPSILON = 1e-3


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """A batch norm's scale, shift, mean and variance, float32 (out channels,) each."""

    scale: Array
    shift: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True, eq=False)
class ConvolutionPart:
    """A convolution with what stands behind it.

    Args:
        name: of the layer in the source; errors say it.
        weight: float32 (out channels, in channels of a group, height, width).
        groups: of input channels.
        stride: of both axes.
        padding: how the input is padded.
        activation: name of the activation.
        norm: the batch norm behind the convolution, or the bias that it was folded into.
    """

    name: str
    weight: Array
    groups: int
    stride: int
    padding: PartPadding
    activation: str
    norm: BatchNorm | Array


@dataclass(frozen=True, eq=False)
class DensePart:
    """A classifier: float32 weight (classes, channels) and bias (classes,)."""

    name: str
    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Found:
    """What a source holds.

    Args:
        format: its name, for the checkpoint's provenance.
        convolutions: in the order in which an image passes them.
        classifier: None for a backbone.
        resolution: input side in pixels for which the source was made; None if it doesn't say.
        preprocessing: the fields of ``lucid.images.Preprocessing`` that the source gives.
        class_names: if the source has them; not yet checked.
    """

    format: str
    convolutions: tuple[ConvolutionPart, ...]
    classifier: DensePart | None
    resolution: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def refuse(layer: str, expected: str, found: object) -> CheckpointError:
    """The error for a layer that no MobileNet of lucid has."""
    return CheckpointError(
        f"layer {layer}: expected {expected}, found {found}; "
        "only networks that are a MobileNet-V1 layer by layer can be imported"
    )
