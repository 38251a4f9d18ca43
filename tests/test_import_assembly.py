"""Whatever MobileNet a chain of layers is, its arguments are found from the layers alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import valid_arguments

from lucid.architecture import MobileNetArguments, convolutions, tensor_shapes
from lucid.errors import CheckpointError
from lucid.importers.assembly import dense_stem, find_arguments
from lucid.importers.parts import BatchNorm, ConvolutionPart, DensePart, Found


def found(arguments: MobileNetArguments) -> Found:
    """The layers of a MobileNet, as a reader of some format gives them."""
    parts = []
    for layer in convolutions(arguments):
        one = np.ones(layer.out_channels, np.float32)
        parts.append(
            ConvolutionPart(
                name=f"layer {len(parts)}",
                weight=np.ones(layer.weight_shape, np.float32),
                groups=layer.groups,
                stride=layer.stride,
                padding=arguments.padding,
                activation=arguments.activation,
                norm=BatchNorm(one, one, one, one, arguments.batch_norm_epsilon),
            )
        )
    weight = np.ones((arguments.num_classes, arguments.feature_channels), np.float32)
    return Found("test", tuple(parts), DensePart("top", weight, weight[:, 0]))


@given(valid_arguments, st.integers(32, 256))
def test_arguments_are_found(arguments: MobileNetArguments, side: int) -> None:
    """Dropout is no layer of the source; other widths may give the same channels."""
    result = find_arguments(found(arguments), [side])
    assert tensor_shapes(result) == tensor_shapes(arguments)
    known = replace(
        result,
        width_multiplier=arguments.width_multiplier,
        channel_rounding=arguments.channel_rounding,
        dropout=arguments.dropout,
    )
    assert known == arguments


@pytest.mark.parametrize("width", [0.0625, 0.1875, 0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.4, 2.0])
def test_published_widths_are_found(width: float) -> None:
    assert find_arguments(found(MobileNetArguments(width, 2)), [224]).width_multiplier == width


def test_no_width_gives_such_channels() -> None:
    network = found(MobileNetArguments(0.5, 2))
    first, *others = network.convolutions
    wide = replace(first, weight=np.ones((20, 3, 3, 3), np.float32))
    with pytest.raises(CheckpointError, match="no width multiplier gives them"):
        find_arguments(replace(network, convolutions=(wide, *others)), [224])


@pytest.mark.parametrize("count", [1, 26, 29])
def test_another_number_of_convolutions(count: int) -> None:
    network = found(MobileNetArguments(0.25, 2))
    parts = (*network.convolutions, *network.convolutions[-1:] * 2)[:count]
    words = "the end after 28" if count == 29 else f"{count} convolutions found"
    with pytest.raises(CheckpointError, match=words):
        find_arguments(replace(network, convolutions=parts), [224])


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        (3, {"padding": "symmetric"}, "layer layer 3: .*padding same, as .*found symmetric"),
        (7, {"stride": 1}, "layer layer 7: .*stride 2, found .*stride 1"),
        (8, {"activation": "relu6"}, "layer layer 8: .*activation relu, as before, found relu6"),
        (9, {"groups": 2}, "layer layer 9: expected a depthwise .* in 2 groups"),
    ],
)
def test_a_layer_that_differs_is_named(number: int, changes: dict[str, Any], words: str) -> None:
    network = found(MobileNetArguments(0.25, 2, padding="same"))
    parts = list(network.convolutions)
    parts[number] = replace(parts[number], **changes)
    with pytest.raises(CheckpointError, match=words):
        find_arguments(replace(network, convolutions=tuple(parts)), [224])


def test_dense_stem_keeps_each_channel_apart() -> None:
    stem = found(MobileNetArguments(0.25, 2)).convolutions[0]
    weight = np.arange(1, 1 + 6 * 9, dtype=np.float32).reshape(6, 1, 3, 3)
    dense = dense_stem(replace(stem, weight=weight, groups=3))
    assert dense.groups == 1
    assert dense.weight.shape == (6, 3, 3, 3)
    for output in range(6):
        for channel in range(3):
            expected = weight[output, 0] if channel == output // 2 else 0
            assert np.array_equal(dense.weight[output, channel], np.broadcast_to(expected, (3, 3)))
