"""The reference: what PyTorch computes in float, and what the documentation says in int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import (
    assert_sensitive,
    color,
    network_of,
    random_pixels,
    steady_model,
    valid_arguments,
)
from network_helpers import described, float_networks, images, int8_networks, slow_logits
from numpy.typing import NDArray

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.errors import ConfigError, ShapeError
from lucid.images import Preprocessing, normalise
from lucid.network import Int8Layer, Int8Network, Int8Pool

# Of the range of the logits. Folded weights are float32, so float64 has a limit too.
TOLERANCE = 1e-5


@torch.no_grad()
def assert_equal_to_pytorch(arguments: MobileNetArguments, height: int, width: int) -> None:
    """Logits in float32; in float64, where less rounding hides less, every stage too."""
    model = steady_model(arguments)
    preprocessing = Preprocessing(32, color=color(arguments.in_channels))
    pixels = random_pixels((4, height, width, arguments.in_channels))
    x = torch.from_numpy(normalise(pixels, preprocessing))
    assert_sensitive(model, x, model.conv2.depthwise[0].weight)
    network = network_of(model)
    assert_close(reference.run(network, pixels), model(x).numpy())
    model, x = model.double(), x.double()
    expected = model.features(x) | {"fc": model(x)}
    found = {
        layer.name: output for layer, output in reference.trace(network, pixels, dtype=np.float64)
    }
    assert len(found) == 29
    for stage, values in expected.items():
        last = [name for name in found if name.split(".")[0] == stage][-1]
        assert_close(found[last], values.numpy())


def assert_close(found: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    largest = np.abs(found - expected).max()
    assert largest <= TOLERANCE * np.ptp(expected), largest / np.ptp(expected)


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 20)], ids=str)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_equals_pytorch(size, padding, last_stride, activation):
    """Even at every layer, odd at some, and a side that is smaller than the total stride."""
    arguments = MobileNetArguments(
        0.25, 7, padding=padding, last_stride=last_stride, activation=activation
    )
    assert_equal_to_pytorch(arguments, *size)


@pytest.mark.parametrize(
    "arguments",
    [
        MobileNetArguments(0.1, 10, channel_rounding="truncate"),
        MobileNetArguments(0.1, 10, channel_rounding="minimum8"),
        MobileNetArguments(0.35, 10, channel_rounding="multiple8", batch_norm_epsilon=1e-3),
        MobileNetArguments(0.25, 1),
        MobileNetArguments(0.25, 2, in_channels=1, dropout=0.5),
        MobileNetArguments(0.5, 1001, last_stride=1, activation="relu6", padding="same"),
        MobileNetArguments(1.0, 5),
    ],
    ids=repr,
)
def test_equals_pytorch_at_every_width(arguments):
    assert_equal_to_pytorch(arguments, 45, 64)


@given(
    valid_arguments.filter(lambda arguments: arguments.in_channels in (1, 3)),
    st.integers(1, 40),
    st.integers(1, 40),
)
@settings(max_examples=15)
def test_equals_pytorch_for_any_arguments(arguments, height, width):
    """In float64, since what is drawn may be as narrow as one channel a layer."""
    model = steady_model(arguments)
    pixels = random_pixels((3, height, width, arguments.in_channels))
    preprocessing = Preprocessing(32, color=color(arguments.in_channels))
    x = torch.from_numpy(normalise(pixels, preprocessing))
    network = network_of(model)
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    found = reference.run(network, pixels, dtype=np.float64)
    largest = np.abs(found - expected).max()
    assert largest <= TOLERANCE * np.abs(expected).max()


# --- int8 ------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=100)
def test_int8_equals_the_slow_executor(data):
    network = data.draw(int8_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    found = reference.run(network, pixels)
    assert found.dtype == np.float32
    expected = np.array([slow_logits(network, image) for image in pixels])
    np.testing.assert_array_equal(found, expected)


@given(st.data())
@settings(max_examples=30)
def test_an_image_does_not_depend_on_its_batch(data):
    network = data.draw(st.one_of(int8_networks(), float_networks()))
    pixels = data.draw(images(network.layers[0].in_channels))
    together = reference.run(network, pixels)
    alone = np.concatenate([reference.run(network, image[np.newaxis]) for image in pixels])
    if isinstance(network, Int8Network):
        np.testing.assert_array_equal(together, alone)
    else:
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("accumulator", "multiplier", "byte"),
    [
        (1, 0.5, 0),
        (3, 0.5, 2),
        (5, 0.5, 2),
        (7, 0.5, 4),
        (-1, 0.5, 0),
        (-7, 0.5, 0),
        (509, 0.5, 254),
        (510, 0.5, 255),
        (511, 0.5, 255),
        (100_000, 0.5, 255),
        (2**31 - 1, 0.4, 255),
        (-(2**31), 0.4, 0),
        # 2**24 + 1 is no float32 and goes to 2**24, whose half the byte then is: not 129 / 2**17.
        (2**24 + 1, 2.0**-17, 128),
        (2**24 + 2**17, 2.0**-18, 64),  # 64.5
        (2**24 + 3 * 2**17, 2.0**-18, 66),  # 65.5
        # 3 * float32(0.1) is 0.3000000119 once rounded; 0.1 itself is no float32.
        (15, 0.1, 2),  # 1.5000000224 in exact arithmetic, 1.5 once rounded to float32
        (25, 0.1, 2),  # 2.5000000373, likewise
        (35, 0.1, 4),
    ],
)
def test_requantisation_rounds_half_to_even(accumulator, multiplier, byte):
    found = reference.requantise(np.int32([accumulator]), np.float32([multiplier]), 255)
    assert (found.dtype, found.tolist()) == (np.uint8, [byte])


def test_requantisation_clamps():
    found = reference.requantise(np.int32([-5, 99, 100, 101]), np.float32([1, 1, 1, 1]), 100)
    assert found.tolist() == [0, 99, 100, 100]


def small_int8(weight: int, bias: int, scale: float, **stem: object) -> Int8Network:
    """A 3x3 stem with one channel whose weights are all alike, pool, one class."""
    fields = {"in_channels": 1, "out_channels": 1}
    layers = (
        Int8Layer(
            name="conv1",
            kind="stem",
            weight=np.full((1, 1, 3, 3), weight, np.int8),
            bias=np.int32([bias]),
            weight_scale=np.float32([scale]),
            input_scale=1.0,
            output_scale=1.0,
            **({"stride": 2, "activation": "relu"} | fields | stem),
        ),
        Int8Pool(name="avgpool", kind="pool", input_scale=1.0, output_scale=0.5, **fields),
        Int8Layer(
            name="fc",
            kind="dense",
            weight=np.int8([[1]]),
            bias=np.int32([0]),
            weight_scale=np.float32([1]),
            input_scale=0.5,
            output_scale=1.0,
            **fields,
        ),
    )
    return Int8Network(layers=layers, **described(layers))


def test_int8_by_hand():
    """One pixel of 100 in the middle, eight of 128 outside: 0.125 * (100 + 8 * 128 + 7)."""
    network = small_int8(1, 7, 0.125)
    assert network.outside == (128,)  # 127.5, half to even
    found = {layer.name: output for layer, output in reference.trace(network, one_pixel(100))}
    assert found["conv1"].tolist() == [[[[141]]]]  # 141.375
    assert found["avgpool"].tolist() == [[255]]  # 282 steps of a half
    assert found["fc"].tolist() == [[127.5]]


def test_same_padding_sees_what_is_outside_at_the_bottom_and_right_only():
    pixels = np.zeros((1, 2, 2, 1), np.uint8)
    outputs = {
        padding: next(reference.trace(small_int8(1, 0, 0.125, padding=padding), pixels))[1]
        for padding in ("symmetric", "same")
    }
    assert [output.tolist() for output in outputs.values()] == [[[[[80]]]]] * 2  # 5 * 128 / 8
    pixels[0, 0, 0, 0] = 80
    pixels[0, 1, 1, 0] = 8
    for padding in outputs:
        network = small_int8(0, 0, 1, padding=padding)
        weight = np.zeros((1, 1, 3, 3), np.int8)
        weight[0, 0, 0, 0] = 1  # what is at the top left of the window
        stem = network.layers[0]
        parts = {name: getattr(stem, name) for name in stem.__dataclass_fields__}
        network = Int8Network(
            layers=(Int8Layer(**(parts | {"weight": weight})), *network.layers[1:]),
            **network.description_fields(),
        )
        outputs[padding] = next(reference.trace(network, pixels))[1]
    assert outputs["symmetric"].tolist() == [[[[128]]]]
    assert outputs["same"].tolist() == [[[[80]]]]


def one_pixel(value: int) -> NDArray[np.uint8]:
    return np.full((1, 1, 1, 1), value, np.uint8)


def test_relu6_clamps_to_the_byte_nearest_to_6():
    bright = one_pixel(255)
    for scale, maximum in [(6 / 255, 255), (0.5, 12), (4.0, 2), (12.0, 0), (2.0**-6, 255)]:
        network = small_int8(127, 0, 1, activation="relu6")
        stem, pool, dense = network.layers
        parts = {name: getattr(stem, name) for name in stem.__dataclass_fields__}
        scale = float(np.float32(scale))
        stem = Int8Layer(**(parts | {"output_scale": scale}))
        pool = Int8Pool(**pool.to_dict(), input_scale=scale, output_scale=0.5)
        changed = Int8Network(layers=(stem, pool, dense), **network.description_fields())
        assert stem.maximum == maximum
        assert next(reference.trace(changed, bright))[1].tolist() == [[[[maximum]]]]


# --- what bad input gets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 8, 8, 1), np.float32),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((1, 0, 8, 1), np.uint8),
        np.zeros((1, 8, 0, 1), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_images_of_another_kind(pixels):
    with pytest.raises(ShapeError, match=r"expects uint8 images \(N, H, W, 1\).*, got"):
        reference.run(small_int8(1, 0, 1), pixels)


def test_no_images_give_no_logits():
    assert reference.run(small_int8(1, 0, 1), np.zeros((0, 8, 8, 1), np.uint8)).shape == (0, 1)


def test_other_dtypes():
    with pytest.raises(ConfigError, match=r"dtype must be np\.float32 or np\.float64"):
        reference.run(small_int8(1, 0, 1), one_pixel(0), dtype=np.float16)
    with pytest.raises(ConfigError, match="an int8 network has its own arithmetic"):
        reference.run(small_int8(1, 0, 1), one_pixel(0), dtype=np.float64)
