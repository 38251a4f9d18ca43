"""From a checkpoint or a live model to the folded network.

Reading a checkpoint needs no PyTorch, so neither does predicting from one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lucid.architecture import convolutions
from lucid.checkpoint import Checkpoint
from lucid.container import Tensors
from lucid.images import Preprocessing
from lucid.network import FloatLayer, FloatNetwork, FloatPool, Layer, layers

if TYPE_CHECKING:
    from lucid.models import MobileNet

__all__ = ["fold_batch_norm", "lower", "lower_model"]

Array64 = NDArray[np.float64]


def lower(checkpoint: Checkpoint) -> FloatNetwork:
    """Fold a checkpoint's batch norms into its convolutions, in float64, rounded once to float32.

    Class names, preprocessing, metrics and provenance go along.

    Raises:
        NetworkError: a folded weight or bias is beyond float32; the layer is named.
    """
    arguments, tensors = checkpoint.arguments, checkpoint.tensors
    *structure, pool, dense = layers(arguments)
    built: list[FloatLayer | FloatPool] = []
    for layer, convolution in zip(structure, convolutions(arguments), strict=True):
        weight_path, norm_path = convolution.tensor_paths
        norm = [
            tensors[f"{norm_path}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        ]
        folded = fold_batch_norm(
            tensors[f"{weight_path}.weight"], *norm, epsilon=arguments.batch_norm_epsilon
        )
        built.append(_layer(layer, *folded))
    built.append(FloatPool(**pool.to_dict()))
    built.append(_layer(dense, tensors["fc.weight"], tensors["fc.bias"]))
    return FloatNetwork(layers=tuple(built), **checkpoint.description_fields())


def lower_model(
    model: MobileNet, class_names: Iterable[str], preprocessing: Preprocessing
) -> FloatNetwork:
    """Fold a live model as it computes in evaluation mode; its weights are taken as float32.

    Raises:
        CheckpointError: a weight is not finite, or class names or preprocessing do not fit.
        NetworkError: as ``lower``.
    """
    tensors: Tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
        for name, tensor in model.state_dict().items()
    }
    checkpoint = Checkpoint(
        arguments=model.arguments,
        class_names=tuple(class_names),
        preprocessing=preprocessing,
        tensors=tensors,
    )
    return lower(checkpoint)


def fold_batch_norm(
    weight: NDArray[np.floating],
    scale: NDArray[np.floating],
    shift: NDArray[np.floating],
    mean: NDArray[np.floating],
    variance: NDArray[np.floating],
    *,
    epsilon: float,
) -> tuple[Array64, Array64]:
    """Weight and bias, float64, of the convolution that does what convolution and batch norm do.

    Batch norm in evaluation mode is ``(y - mean) / sqrt(variance + epsilon) * scale + shift``
    (Ioffe and Szegedy 2015, arXiv:1502.03167, Algorithm 2), which is linear in ``y``.

    Args:
        weight: (O, ...), any dtype; all others (O,).
        epsilon: above 0.
    """
    factor = scale / np.sqrt(variance.astype(np.float64) + epsilon)  # (O,), float64
    per_filter = factor.reshape(-1, *[1] * (weight.ndim - 1))  # (O, 1, 1, 1)
    return weight * per_filter, shift - mean * factor


def _layer(layer: Layer, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> FloatLayer:
    """Round to float32; what is beyond becomes infinite, which the record refuses by name."""
    with np.errstate(over="ignore"):
        return FloatLayer(
            **layer.to_dict(), weight=weight.astype(np.float32), bias=bias.astype(np.float32)
        )
