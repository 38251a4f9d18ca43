"""Checks that float and int8 networks share; each raises NetworkError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lucid.description import Description
from lucid.errors import NetworkError
from lucid.network.layers import Kind, Layer

Scalar = TypeVar("Scalar", bound=np.generic)


def read_only(
    name: str, array: NDArray[Any], dtype: type[Scalar], shape: tuple[int, ...]
) -> NDArray[Scalar]:
    """A copy that nobody can change, so that what was checked of a network stays true.

    Raises:
        NetworkError: the array has another dtype or shape, or holds a value that is not finite.
    """
    expected = np.dtype(dtype)
    if array.dtype != expected or array.shape != shape:
        raise NetworkError(f"{name}: expected {expected} {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise NetworkError(f"{name}: holds values that are not finite (NaN or infinity)")
    copy: NDArray[Scalar] = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def check_chain(description: Description, layers: Sequence[Layer]) -> None:
    """Check that the layers are a MobileNet's, that each fits the one before, and the description.

    That is the stem, any number of depthwise layers with a pointwise one behind each, perhaps one
    more pointwise layer, the pool, the classifier.

    Raises:
        NetworkError: the layers are others.
        CheckpointError: class names or preprocessing don't fit.
    """
    found = [layer.kind for layer in layers]
    expected = list(_kinds(len(layers)))
    if found != expected:
        raise NetworkError(
            "layers: expected stem, pairs of depthwise and pointwise, perhaps one more pointwise, "
            "pool and dense; "
            f"got {', '.join(found) or 'none'}"
        )
    seen = set()
    for layer in layers:
        if layer.name in seen:
            raise NetworkError(f"layers: the name {layer.name} stands there twice")
        seen.add(layer.name)
    for before, layer in pairwise(layers):
        if layer.in_channels != before.out_channels:
            raise NetworkError(
                f"{layer.name}: takes {layer.in_channels} channels, but {before.name} before it "
                f"gives {before.out_channels}"
            )
    description.check_fits(classes=layers[-1].out_channels, channels=layers[0].in_channels)


def _kinds(count: int) -> Iterator[Kind]:
    """The kinds that the layers of a network with ``count`` of them have; 3 is the least."""
    yield "stem"
    for _ in range((count - 3) // 2):
        yield "depthwise"
        yield "pointwise"
    if count % 2 == 0:
        yield "pointwise"
    yield "pool"
    yield "dense"
