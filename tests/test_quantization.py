"""Rounding a float network to int8: scales, biases, and what it costs on real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import steady
from network_helpers import described, float_networks, images
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import ConfigError, DataError, NetworkError, ShapeError
from lucid.images import Preprocessing, load, normalise
from lucid.lowering import lower_model
from lucid.models import MobileNet
from lucid.network import FloatLayer, FloatNetwork, FloatPool, Int8Layer, Int8Network, Int8Pool
from lucid.quantization import (
    measure_ranges,
    minmax_weight_scale,
    normalisation_folded,
    quantise,
    quantise_layer,
)


def one_channel(weight: list[float], bias: list[float]) -> FloatLayer:
    """A classifier that sees one value; one class for each weight."""
    return FloatLayer(
        name="fc",
        kind="dense",
        in_channels=1,
        out_channels=len(weight),
        weight=np.float32(weight)[:, np.newaxis],
        bias=np.float32(bias),
    )


def three_layers(
    stem_weight: float = 0.1, stem_bias: float = 0.0, mean: float = 0.5, **fields: Any
) -> FloatNetwork:
    """A grey stem of one channel with weights that are all alike, the pool, one class."""
    channels = {"in_channels": 1, "out_channels": 1}
    layers = (
        FloatLayer(
            name="conv1",
            kind="stem",
            weight=np.full((1, 1, 3, 3), stem_weight, np.float32),
            bias=np.float32([stem_bias]),
            **({"stride": 2, "activation": "relu"} | channels | fields),
        ),
        FloatPool(name="avgpool", kind="pool", **channels),
        one_channel([1], [0]),
    )
    return FloatNetwork(layers=layers, **described(layers, mean))


# --- one layer -------------------------------------------------------------------------------


def test_weights_go_to_the_nearest_step_half_to_even() -> None:
    weight = [0.5, 1.5, -0.5, -1.5, 2.5, 126.5, 127.4, -127.4, 200.0, -200.0]
    layer = quantise_layer(one_channel(weight, [0] * 10), np.ones(10, np.float32), 1.0, 1.0)
    assert layer.weight[:, 0].tolist() == [0, 2, 0, -2, 2, 126, 127, -127, 127, -127]
    assert layer.weight.dtype == np.int8


def test_the_bias_has_the_scale_of_the_products() -> None:
    scale = np.float32([0.5, 0.25, 1.0, 1.0])
    layer = quantise_layer(one_channel([0, 0, 0, 0], [1, 1, 2.5, -3.5]), scale, 0.5, 1.0)
    assert layer.bias.tolist() == [4, 8, 5, -7]
    layer = quantise_layer(one_channel([0, 0, 0, 0], [1.25, 0.3125, 0, 0]), scale, 1.0, 1.0)
    assert layer.bias.tolist() == [2, 1, 0, 0]  # 2.5 and 1.25


def test_the_largest_weight_of_each_channel_is_127_steps() -> None:
    layer = one_channel([0.5, -2.0, 1e-3], [0.1, 0.2, 0.3])
    scale = minmax_weight_scale(layer, 0.02, 1.0)
    np.testing.assert_array_equal(scale, np.float32([0.5 / 127, 2 / 127, 1e-3 / 127]))
    found = quantise_layer(layer, scale, float(np.float32(0.02)), 1.0)
    assert found.weight[:, 0].tolist() == [127, -127, 127]


@pytest.mark.parametrize("weight", [0.0, 1e-12, 1e-30, 1e-45])
@pytest.mark.parametrize("bias", [0.0, 0.5, -20.0])
def test_dead_channels_keep_their_bias(weight: float, bias: float) -> None:
    """Their weights alone would ask for a scale so small that int32 can't hold the bias."""
    layer = one_channel([weight], [bias])
    scale = minmax_weight_scale(layer, 2.0**-6, 1.0)
    found = quantise_layer(layer, scale, 2.0**-6, 1.0)
    value = found.bias[0] * found.multiplier[0]
    assert value == pytest.approx(bias, rel=1e-6)


def test_normalisation_is_folded_exactly() -> None:
    """In float64: 255 bytes through folded weights, and through normalise and plain weights."""
    preprocessing = Preprocessing(8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    random = np.random.default_rng(0)
    stem = FloatLayer(
        name="conv1",
        kind="stem",
        in_channels=3,
        out_channels=4,
        activation="relu",
        weight=random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        bias=random.normal(size=4).astype(np.float32),
    )
    folded, zero = normalisation_folded(stem, preprocessing)
    np.testing.assert_allclose(zero, [123.675, 116.28, 103.53])
    pixels = random.integers(0, 256, (1, 3, 3, 3), np.uint8)
    plain = np.einsum("oihw,nihw->o", stem.weight, normalise(pixels, preprocessing))
    bytes_ = pixels.transpose(0, 3, 1, 2) - zero[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(np.einsum("oihw,nihw->o", folded.weight, bytes_), plain, rtol=1e-5)
    np.testing.assert_array_equal(folded.bias, stem.bias)


@pytest.mark.parametrize("mean", [0.0, 0.3, 0.5, 1.0])
def test_a_flat_image_of_the_mean_gives_the_bias(mean: float) -> None:
    """Whatever the weights were rounded to, since the bias takes up the zero with those."""
    network = three_layers(stem_weight=0.0123, stem_bias=0.7, mean=mean, stride=1)
    found = quantise(network, {"conv1": 1.0, "avgpool": 1.0})
    pixels = np.full((1, 6, 6, 1), found.outside[0], np.uint8)
    (_, output), *_ = reference.trace(found, pixels)
    # The byte is not quite the mean; a weight is at most 0.0123 / 127.5 a byte.
    apart = abs(found.outside[0] - 255 * mean) * 9 * 0.0123 / 127.5
    assert np.abs(output / 255 - 0.7).max() <= apart + 1 / 255


def test_other_roundings_of_the_weights_are_taken_as_they_are() -> None:
    layer = one_channel([0.4, 0.6], [1, 1])
    weight = np.int8([[1], [0]])
    found = quantise_layer(layer, np.ones(2, np.float32), 1.0, 1.0, 10.0, weight)
    np.testing.assert_array_equal(found.weight, weight)
    assert found.bias.tolist() == [1 - 10, 1]


# --- a network -------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60)
def test_any_network_rounds_to_one_that_computes_nearly_the_same(data: st.DataObject) -> None:
    """With the ranges of the image itself: an error of a few steps of each output on the way."""
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    ranges = measure_ranges(network, [pixels])
    assert list(ranges) == [layer.name for layer in network.layers[:-1]]
    found = quantise(network, ranges)
    assert found.description_fields() == network.description_fields()
    assert [a.to_dict() for a in found.layers] == [b.to_dict() for b in network.layers]
    outputs = zip(
        reference.trace(found, pixels), reference.trace(network, pixels, dtype=np.float64),
        strict=True,
    )  # fmt: skip
    # Of the first layer, whose input is exact: half a step of the output, half a step of each of
    # its 9 weights a channel, half a byte around the image.
    (layer, output), (_, expected) = next(outputs)
    assert isinstance(layer, Int8Layer)
    step = layer.weight_scale.max() * 9 * layer.in_channels * 255 / 2
    border = np.abs(layer.weight).max() * layer.weight_scale.max() * 8 * layer.in_channels / 2
    error = np.abs(output * layer.output_scale - expected).max()
    assert error <= 0.51 * layer.output_scale + step + border


def test_a_layer_whose_output_is_always_0() -> None:
    network = three_layers(stem_weight=0, stem_bias=-1)
    pixels = np.zeros((1, 4, 4, 1), np.uint8)
    ranges = measure_ranges(network, [pixels])
    assert ranges == {"conv1": 0, "avgpool": 0}
    assert reference.run(quantise(network, ranges), pixels).tolist() == [[0]]


def test_the_pool_has_a_scale_of_its_own() -> None:
    found = quantise(three_layers(), {"conv1": 2.0, "avgpool": 0.25})
    pool = found.layers[1]
    assert isinstance(pool, Int8Pool)
    assert pool.input_scale == np.float32(2 / 255)
    assert pool.output_scale == np.float32(0.25 / 255)
    assert pool.multiplier(4) == 2.0


def test_weight_scales_that_are_given_are_used() -> None:
    given_scales = {"fc": np.float32([0.5])}
    found = quantise(three_layers(), {"conv1": 1, "avgpool": 1}, given_scales)
    stem, _, dense = found.layers
    assert isinstance(dense, Int8Layer)
    assert isinstance(stem, Int8Layer)
    assert dense.weight_scale.tolist() == [0.5]
    assert dense.weight.tolist() == [[2]]
    assert stem.weight.tolist() == np.full((1, 1, 3, 3), 127).tolist()


# --- what bad input gets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "reason"),
    [
        ({"conv1": 1.0}, "ranges needs the argument 'avgpool'"),
        ({"conv1": 1.0, "avgpool": 1.0, "fc": 1.0}, "ranges has no argument 'fc'"),
        ({"conv1": -1.0, "avgpool": 1.0}, "ranges: conv1 must be 0 to 3.4.*, got -1.0"),
        ({"conv1": float("nan"), "avgpool": 1.0}, "ranges: conv1 must be"),
        ({"conv1": 1e300, "avgpool": 1.0}, "ranges: conv1 must be"),
    ],
)
def test_ranges_that_do_not_fit(ranges: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        quantise(three_layers(), ranges)


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        (np.float32([0]), "fc.weight_scale: must be above 0"),
        (np.float32([1, 1]), r"fc.weight_scale: expected float32 \(1,\), got float32 \(2,\)"),
        (np.float32([np.inf]), "fc.weight_scale: holds values that are not finite"),
        (np.float32([1e-30]), "fc: a bias of .* steps is beyond int32; give its channel a larger"),
    ],
)
def test_weight_scales_that_do_not_fit(scale: NDArray[np.float32], reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        quantise_layer(one_channel([1], [1]), scale, 1.0, 1.0)


def test_weight_scales_of_an_unknown_layer() -> None:
    with pytest.raises(ConfigError, match="'conv9'; did you mean 'conv1'"):
        quantise(three_layers(), {"conv1": 1, "avgpool": 1}, {"conv9": np.ones(1, np.float32)})


def test_ranges_that_are_absurdly_small() -> None:
    with pytest.raises(NetworkError, match=r"conv1: the multipliers, .* the scales do not fit"):
        quantise(three_layers(stem_bias=1), {"conv1": 1e-30, "avgpool": 1})
    with pytest.raises(NetworkError, match=r"conv1\.output_scale: must be a finite float32"):
        quantise(three_layers(), {"conv1": 1e-44, "avgpool": 1})


def test_calibration_without_images() -> None:
    for batches in ([], [np.zeros((0, 4, 4, 1), np.uint8)]):
        with pytest.raises(DataError, match="calibration needs at least one image"):
            measure_ranges(three_layers(), batches)
    with pytest.raises(ShapeError, match="expects uint8 images"):
        measure_ranges(three_layers(), [np.zeros((1, 4, 4, 3), np.uint8)])


# --- real photos -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(flowers: Path) -> NDArray[np.uint8]:
    """Every 60th flower at 128x128."""
    paths = sorted(flowers.glob("*/*.jpg"))[::60]
    return np.stack([load(path, Preprocessing(128)) for path in paths])


def test_int8_agrees_with_float_on_real_photos(photos: NDArray[np.uint8]) -> None:
    """An untrained model that tells photos apart, calibrated on half of them, tried on the rest.

    Minimum and maximum, the plainest calibration: it changes the class of a few.
    """
    names = tuple("abcde")
    torch.manual_seed(0)
    model = MobileNet(0.25, len(names))
    half = normalise(photos[::2], Preprocessing(128))
    steady(model, torch.from_numpy(half))
    network = lower_model(model, names, Preprocessing(128))
    unseen = photos[1::2]
    expected = reference.run(network, unseen)
    expected_spread = (expected - expected.mean(axis=0)).std()
    assert expected_spread > 0.01 * np.abs(expected).max(), "photos have the same logits"
    found: Int8Network = quantise(network, measure_ranges(network, [photos[::2]]))
    logits = reference.run(found, unseen)
    error = (logits - expected).std()
    agreement = (logits.argmax(axis=1) == expected.argmax(axis=1)).mean()
    # Measured: 33 of 34, and 0.18.
    assert agreement >= 0.9
    assert error < 0.25 * expected_spread
