"""The cost model gives the paper's numbers, and those of independent counters."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import valid_arguments
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lucid.architecture import MobileNetArguments
from lucid.errors import ConfigError
from lucid.models import MobileNet
from lucid.network import MAX_SIDE, layers, sized_layers, totals

sides = st.integers(1, 300)


@pytest.mark.parametrize(
    ("width", "parameters", "million_multiply_adds"),
    [(1.0, 4_231_976, 569), (0.75, 2_585_560, 325), (0.5, 1_331_592, 149), (0.25, 470_072, 41)],
)
def test_published_widths(width, parameters, million_multiply_adds):
    """arXiv:1704.04861, Table 6, whose parameters TF-Slim's page gives exactly."""
    costs = totals(sized_layers(layers(MobileNetArguments(width, last_stride=1)), 224, 224))
    assert costs.parameters == parameters
    assert round(costs.multiply_adds / 1e6) == million_multiply_adds


@pytest.mark.parametrize(
    ("resolution", "million_multiply_adds"), [(224, 569), (192, 418), (160, 290), (128, 186)]
)
def test_published_resolutions(resolution, million_multiply_adds):
    """arXiv:1704.04861, Table 7, which rounds 290.7 down."""
    costs = totals(
        sized_layers(layers(MobileNetArguments(1.0, last_stride=1)), resolution, resolution)
    )
    assert costs.multiply_adds / 1e6 == pytest.approx(million_multiply_adds, abs=0.75)


@pytest.mark.parametrize(
    ("width", "multiply_adds"),
    [(1.0, 533_833_216), (0.75, 305_708_160), (0.5, 140_694_272), (0.25, 38_791_552)],
)
def test_last_stride_2_saves_multiply_adds_only(width, multiply_adds):
    seed = totals(sized_layers(layers(MobileNetArguments(width)), 224, 224))
    published = totals(sized_layers(layers(MobileNetArguments(width, last_stride=1)), 224, 224))
    assert seed.parameters == published.parameters
    assert seed.multiply_adds == multiply_adds
    # The last depthwise layer on 4x4 instead of 7x7 pixels, and the pointwise layer behind it.
    channels = int(width * 1024)
    saved = (7 * 7 - 4 * 4) * (9 * channels + channels * channels)
    assert published.multiply_adds - seed.multiply_adds == saved


@given(valid_arguments, sides, sides)
@settings(max_examples=30)
def test_counts_are_those_of_the_live_model(arguments, height, width):
    """torch counts two operations for each multiply-add; batch norm and the pool count as none."""
    with torch.device("meta"):
        model = MobileNet.from_arguments(arguments).eval()
        image = torch.empty(1, arguments.in_channels, height, width)
    with FlopCounterMode(display=False) as counter:
        model(image)
    costs = totals(sized_layers(layers(arguments), height, width))
    assert 2 * costs.multiply_adds == counter.get_total_flops()
    assert costs.parameters == sum(parameter.numel() for parameter in model.parameters())


@given(valid_arguments, sides, sides)
@settings(max_examples=30)
def test_shapes_are_those_of_the_live_model(arguments, height, width):
    with torch.device("meta"):
        model = MobileNet.from_arguments(arguments).eval()
        image = torch.empty(1, arguments.in_channels, height, width)
    found: dict[str, tuple[torch.Size, torch.Size]] = {}

    def keep(name: str):
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            found[name] = (inputs[0].shape[1:], output.shape[1:])

        return hook

    records = sized_layers(layers(arguments), height, width)
    for layer in records:
        model.get_submodule(layer.name).register_forward_hook(keep(layer.name))
    model(image)
    assert list(found) == [layer.name for layer in records]
    for layer in records[:-1]:
        assert found[layer.name] == (layer.input_shape, layer.output_shape)
    dense = records[-1]
    assert (*found["fc"][0], 1, 1) == dense.input_shape
    assert (*found["fc"][1], 1, 1) == dense.output_shape


def test_layers_of_the_seed():
    """The shapes that the seed's chart states, at width 1.0 and 224."""
    records = sized_layers(layers(MobileNetArguments(1.0)), 224, 224)
    assert len(records) == 29
    by_name = {layer.name: layer for layer in records}
    stem = by_name["conv1"]
    assert (stem.kind, stem.input_shape, stem.output_shape) == (
        "stem",
        (3, 224, 224),
        (32, 112, 112),
    )
    assert (stem.window, stem.stride) == ((3, 3), 2)
    assert (stem.parameters, stem.multiply_adds) == (32 * 27 + 64, 32 * 27 * 112 * 112)
    depthwise = by_name["conv6.depthwise"]
    assert depthwise.input_shape == (512, 14, 14)
    assert depthwise.output_shape == (512, 7, 7)
    assert depthwise.parameters == 512 * 9 + 1024
    pool = by_name["avgpool"]
    assert (pool.kind, pool.input_shape, pool.output_shape) == ("pool", (1024, 4, 4), (1024, 1, 1))
    assert (pool.window, pool.parameters, pool.multiply_adds) == ((4, 4), 0, 0)
    dense = by_name["fc"]
    assert (dense.kind, dense.parameters) == ("dense", 1_025_000)
    assert dense.multiply_adds == 1_024_000


def test_peak_is_the_largest_input_and_output():
    records = sized_layers(layers(MobileNetArguments(1.0)), 224, 224)
    peak = totals(records).peak
    assert peak.name == "conv2.pointwise"
    assert peak.activations == (32 + 64) * 112 * 112
    assert all(layer.activations <= peak.activations for layer in records)
    # Among equals the first counts, so the mark does not depend on the order of a set or a sort.
    again = dataclasses.replace(peak, name="again")
    assert totals([peak, again]).peak.name == "conv2.pointwise"


@pytest.mark.parametrize(
    ("height", "width", "name"),
    [(0, 224, "height"), (224, -1, "width"), (224, 1.5, "width"), (MAX_SIDE + 1, 1, "height")],
)
def test_bad_sizes_are_named(height, width, name):
    with pytest.raises(ConfigError, match=f"{name} must be a whole number from 1"):
        sized_layers(layers(MobileNetArguments(1.0)), height, width)
