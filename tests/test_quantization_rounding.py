"""Fitting ranges, weights and factors to real inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import described, float_networks, images
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import DataError, ShapeError
from lucid.network import FloatLayer, FloatNetwork, FloatPool, Int8Layer
from lucid.quantization import (
    compare,
    equalise,
    measure_channels,
    measure_ranges,
    quantise,
    quantise_calibrated,
    reconstruct,
)
from lucid.quantization.calibration import minimum_error_range
from lucid.quantization.rounding import Rounded, Samples, round_to_fit


def correlated(groups: int, outputs: int, inputs: int, low: float = -np.inf) -> tuple[
    NDArray[np.float32], Samples
]:  # fmt: skip
    """Weights, and samples whose inputs are 0 or more and say much the same as one another."""
    random = np.random.default_rng(0)
    common = random.random((groups, 500, 1))
    seen = (random.random((groups, 500, inputs)) * 0.3 + common).astype(np.float32)
    weight = random.normal(size=(groups, outputs, inputs)).astype(np.float32)
    return weight, Samples(seen, np.matmul(seen, weight.swapaxes(1, 2)), low, np.inf)


def error(rounded: Rounded, samples: Samples) -> float:
    weight = rounded.steps * rounded.scale[:, :, np.newaxis]
    found = np.matmul(samples.inputs, weight.swapaxes(1, 2)) + rounded.bias[:, np.newaxis]
    clamped = (np.clip(side, samples.low, samples.high) for side in (found, samples.targets))
    return float(np.square(np.subtract(*clamped)).mean())


def nearest(weight: NDArray[np.float32]) -> Rounded:
    scale = np.abs(weight).max(axis=2) / 127
    steps = np.rint(weight / scale[:, :, np.newaxis]).astype(np.int8)
    return Rounded(steps, scale, np.zeros(scale.shape))


@pytest.mark.parametrize("low", [-np.inf, 0.0])
@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(1, 12, 40), (7, 1, 9)])
def test_outputs_come_back_better_than_from_the_nearest_steps(
    groups: int, outputs: int, inputs: int, low: float
) -> None:
    weight, samples = correlated(groups, outputs, inputs, low)
    smallest = np.full(weight.shape[:2], 1e-9)
    found = round_to_fit(weight, smallest, samples)
    assert found.steps.dtype == np.int8
    assert found.steps.min() >= -127
    assert found.scale.dtype == np.float32
    # Measured: 14 to 70 times less.
    assert error(found, samples) < 0.3 * error(nearest(weight), samples)


def test_whole_numbers_are_found_again() -> None:
    """As in a network that was int8 before: 100 steps of 0.013, say, not 127 of another size."""
    _, samples = correlated(1, 3, 20)
    steps = np.random.default_rng(1).integers(-100, 101, (1, 3, 20))
    steps[:, :, 0] = 100
    weight = (steps * np.array([0.013, 0.7, 5.1])[:, np.newaxis]).astype(np.float32)
    samples = replace(samples, targets=np.matmul(samples.inputs, weight.swapaxes(1, 2)))
    found = round_to_fit(weight, np.full((1, 3), 1e-9), samples)
    np.testing.assert_array_equal(found.steps, steps)
    np.testing.assert_allclose(found.scale[0], [0.013, 0.7, 5.1], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_inputs_that_never_change(value: float) -> None:
    weight, samples = correlated(1, 4, 9)
    samples = replace(samples, inputs=np.full_like(samples.inputs, value))
    found = round_to_fit(weight, np.full((1, 4), 1e-9), samples)
    np.testing.assert_allclose(
        found.bias + (found.steps * found.scale[:, :, np.newaxis]).sum(axis=2) * value,
        samples.targets.mean(axis=1),
        rtol=1e-4,
    )


# --- ranges ------------------------------------------------------------------------------------


def test_a_range_gives_up_an_outlier() -> None:
    values = np.random.default_rng(0).random((20_000, 2))
    whole = minimum_error_range(values, np.ones(2))
    assert 0.97 < whole <= 1
    values[0, 0] = 1.3
    assert minimum_error_range(values, np.ones(2)) < 1.26
    # Unless the channel is what counts, and is no more than that.
    assert minimum_error_range(values[:1], np.array([1.0, 0.0])) == pytest.approx(1.3, rel=0.01)


def test_the_range_of_nothing_is_0() -> None:
    assert minimum_error_range(np.zeros((10, 3)), np.ones(3)) == 0


# --- equalisation --------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60)
def test_equalised_networks_compute_the_same(data: st.DataObject) -> None:
    """On the images that were measured, with ReLU6 too."""
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    found = equalise(network, measure_channels(network, [pixels]))
    expected = reference.run(network, pixels, dtype=np.float64)
    logits = reference.run(found, pixels, dtype=np.float64)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert [a.to_dict() for a in found.layers] == [b.to_dict() for b in network.layers]


def uneven(activation: str = "relu") -> FloatNetwork:
    """Stem, one pair, pool and classifier of 8 channels; each output is twice the one before."""
    random = np.random.default_rng(0)
    sizes = 2.0 ** -np.arange(8)

    def layer(name: str, kind: str, shape: tuple[int, ...], factors: object = 1) -> FloatLayer:
        values = np.abs(random.normal(size=shape)) * np.reshape(
            factors, (-1, *[1] * len(shape[1:]))
        )
        return FloatLayer(
            name=name,
            kind=kind,
            in_channels=3 if kind == "stem" else 8,
            out_channels=shape[0],
            activation=None if kind == "dense" else activation,
            weight=values.astype(np.float32),
            bias=np.zeros(shape[0], np.float32),
        )

    layers = (
        layer("conv1", "stem", (8, 3, 3, 3), sizes),
        layer("conv2.depthwise", "depthwise", (8, 1, 3, 3)),
        layer("conv2.pointwise", "pointwise", (8, 8, 1, 1), sizes),
        FloatPool(name="avgpool", kind="pool", in_channels=8, out_channels=8),
        layer("fc", "dense", (4, 8), 1),
    )
    return FloatNetwork(layers=layers, **described(layers))


def photos(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_equalised_channels_have_like_ranges(activation: str) -> None:
    network, pixels = uneven(activation), photos(8)
    before = measure_channels(network, [pixels])["conv1"].largest
    after = measure_channels(equalise(network, measure_channels(network, [pixels])), [pixels])
    assert before.max() / before.min() > 20
    spread = after["conv1"].largest.max() / after["conv1"].largest.min()
    # A margin of 1.5 and a smallest factor of 1/16 keep it from being 1.
    assert spread < 0.5 * before.max() / before.min()
    # What stands for byte 255 in a channel may not be beyond ReLU6's clamp.
    if activation == "relu6":
        assert after["conv1"].largest.max() <= 6


# --- a network -----------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=40)
def test_any_network_can_be_calibrated(data: st.DataObject) -> None:
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    found = quantise_calibrated(network, pixels)
    assert found.description_fields() == network.description_fields()
    assert [a.to_dict() for a in found.layers] == [b.to_dict() for b in network.layers]
    again = quantise_calibrated(network, pixels)
    for layer, same in zip(found.layers, again.layers, strict=True):
        assert layer.output_scale == same.output_scale
        if isinstance(layer, Int8Layer):
            assert isinstance(same, Int8Layer)
            np.testing.assert_array_equal(layer.weight, same.weight)
            np.testing.assert_array_equal(layer.bias, same.bias)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_calibrated_is_better_than_minimum_and_maximum(activation: str) -> None:
    network, pixels, unseen = uneven(activation), photos(64), photos(32, seed=1)
    plain = compare(network, quantise(network, measure_ranges(network, [pixels])), unseen)
    fitted = compare(network, quantise_calibrated(network, pixels), unseen)
    assert fitted.logits_decibels > plain.logits_decibels + 3


def test_calibration_without_images() -> None:
    network = uneven()
    for attempt in (
        lambda: quantise_calibrated(network, photos(0)),
        lambda: reconstruct(network, photos(0)),
        lambda: measure_channels(network, []),
        lambda: compare(network, quantise_calibrated(network, photos(1)), photos(0)),
    ):
        with pytest.raises(DataError, match="at least one image, got none"):
            attempt()


def test_images_of_another_kind() -> None:
    with pytest.raises(ShapeError, match=r"expects uint8 images \(N, H, W, 3\)"):
        quantise_calibrated(uneven(), np.zeros((1, 8, 8, 1), np.uint8))


# --- the comparison ---------------------------------------------------------------------------


def test_a_comparison_counts() -> None:
    network, pixels = uneven(), photos(24)
    quantised = quantise_calibrated(network, pixels)
    wanted, found = (reference.run(one, pixels) for one in (network, quantised))
    labels = wanted.argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 4
    result = compare(network, quantised, pixels, labels)
    assert result.images == 24
    assert result.float_top1 == 0.75
    assert result.int8_top1 == (found.argmax(axis=1) == labels).mean()
    assert result.agreement == (found.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    assert result.float_top5 is None  # of four classes
    apart = found - wanted
    apart -= apart.mean(axis=1, keepdims=True)
    assert result.worst[0] == np.square(apart).sum(axis=1).argmax()
    assert compare(network, quantised, pixels).float_top1 is None


def test_the_noise_of_a_layer_does_not_see_factors() -> None:
    """The first layer, by hand: distance of bytes times their scale, up to a factor a channel."""
    network, pixels = uneven(), photos(16)
    statistics = measure_channels(network, [pixels])
    equal = equalise(network, statistics)
    quantised = quantise(equal, measure_ranges(equal, [pixels]))
    (_, wanted), (_, found) = (next(reference.trace(one, pixels)) for one in (equal, quantised))
    stem = quantised.layers[0]
    factors = network.layers[0].weight[:, 0, 0, 0] / equal.layers[0].weight[:, 0, 0, 0]
    shaped = factors[:, np.newaxis, np.newaxis]
    noise = np.square((found * stem.output_scale - wanted) * shaped).sum()
    expected = 10 * np.log10(np.square(wanted * shaped).sum() / noise)
    first = compare(network, quantised, pixels).layers[0]
    assert (first.name, first.kind) == ("conv1", "stem")
    assert first.decibels == pytest.approx(expected, abs=1)
