"""The planner and the runtime of the C export, on networks of every shape."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace

import numpy as np
import pytest
from c_helpers import CLayer, Device, c_network, compile_runtime, random_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_helpers import images, int8_networks

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.errors import ConfigError
from lucid.exporters.c import to_c
from lucid.exporters.c.plan import Plan, make_plan
from lucid.network import Layer, layers


@pytest.fixture(scope="module", params=["", "-DLUCID_SOFT_FLOAT"], ids=["FPU", "no FPU"])
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """With the arithmetic of CPUs with and without an FPU."""
    if shutil.which("cc") is None:
        pytest.skip("no cc")
    flags = (request.param,) if request.param else ()
    return compile_runtime(tmp_path_factory.mktemp("runtime"), *flags)


def plan_of(width: float, side: int, **arguments: object) -> Plan:
    fields = {"width_multiplier": width, "num_classes": 2, **arguments}
    return make_plan(layers(MobileNetArguments.from_dict(fields)), side, side)


def test_visual_wake_words_fits() -> None:
    """The issue's limits; TFLM's arena for this network takes 103,680 bytes."""
    export = to_c(c_network(96, width_multiplier=0.25, num_classes=2, last_stride=1))
    assert export.plan.image_bytes == 27_648
    assert export.image_ram_bytes <= 48 * 1024
    assert export.row_ram_bytes <= 24 * 1024
    assert (
        export.const_bytes == 208_112 + 2 * 10_952 + 4
    )  # weights, biases, multipliers, the pool's
    assert max(export.plan.layer_bytes) == export.plan.layer_bytes[export.plan.peak]
    assert max(export.plan.layer_bytes) <= export.plan.memory


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("side", [1, 2, 33, 96, 131, 224])
def test_memory_is_far_below_that_of_whole_maps(width: float, side: int) -> None:
    plan = plan_of(width, side)
    whole = max(layer.activations for layer in plan.layers)
    if side >= 96:
        assert plan.memory < 0.55 * whole, (plan.memory, whole)
    for stage in plan.stages:
        assert 0 <= stage.offset <= plan.memory - stage.bytes
        assert 0 <= stage.between <= plan.memory - stage.scratch_bytes
        assert stage.offset % 4 == stage.between % 4 == stage.work % 4 == 0


def test_too_large_for_the_structures() -> None:
    with pytest.raises(ConfigError, match=r"at most 65535 channels and pixels a side, got 70000"):
        plan_of(0.25, 70_000)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_runtime_equals_reference(library: ctypes.CDLL, data: st.DataObject) -> None:
    """Any channels, sizes, strides and paddings; the rows at once and the streamed stages too."""
    network = data.draw(int8_networks(most_channels=7))
    pixels = data.draw(images(network.layers[0].in_channels))[:1]
    side = (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20)))
    pixels = np.resize(pixels, (1, *side, pixels.shape[3]))
    paired = to_c(network).network
    plan = make_plan(paired.layers, *side)
    device = Device(library, paired, plan)
    expected = reference.run(network, pixels)[0]
    for by_rows in (False, True):
        assert device.logits(pixels[0], by_rows).tobytes() == expected.tobytes(), plan


@pytest.mark.parametrize("maximum", [255, 200, 0])
def test_rounding(library: ctypes.CDLL, maximum: int) -> None:
    """Sums at and beside the halves between two bytes, and the largest; multipliers of all sizes.

    Through a pointwise layer without weights: each channel's sum is its bias.
    """
    random = np.random.default_rng(maximum)
    count = 60_000
    multiplier = (2.0 ** random.uniform(-40, 4, count)).astype(np.float32)
    halves = random.integers(0, 257, count) + 0.5
    sums = halves / multiplier + random.integers(-2, 3, count)
    sums[::7] = random.integers(-(2**31), 2**31, len(sums[::7]))
    multiplier[::5] = 2.0 ** np.round(np.log2(multiplier[::5]))  # exact halves
    bias = np.clip(np.rint(sums), -(2**31), 2**31 - 1).astype(np.int32)
    bias[np.abs(bias * multiplier.astype(np.float64)) >= 2**30] = 0  # NetworkError in a network
    weights, value = np.zeros(count, np.int8), np.array([7], np.uint8)
    found = np.empty(count, np.uint8)
    layer = CLayer(
        *(weights.ctypes.data, bias.ctypes.data, multiplier.ctypes.data),
        *(1, count, 1, 1, 1, 1, 1, 0, 0, maximum),
    )
    library.lucid_pointwise(
        *(ctypes.byref(layer), ctypes.c_void_p(value.ctypes.data), 1),
        *(None, ctypes.c_void_p(found.ctypes.data)),
    )
    expected = reference.requantise(bias, multiplier, maximum)
    wrong = np.flatnonzero(found != expected)
    assert not len(wrong), [(bias[k], multiplier[k], found[k], expected[k]) for k in wrong[:5]]
    if maximum == 255:
        assert len(np.unique(expected)) == 256


@pytest.mark.parametrize("side", [9, 32, 47])
def test_every_choice_of_streamed_stages(library: ctypes.CDLL, side: int) -> None:
    """Not only the plan that takes the least memory has to be right."""
    from lucid.exporters.c import plan as planner

    network = c_network(side, width_multiplier=0.1, num_classes=3, padding="same")
    pixels = random_pixels(1, side, 3)
    expected = reference.run(network, pixels)[0]
    sized = make_plan(network.layers, side, side).layers
    for streamed in range(1, 15):
        plan = planner._plan(sized, streamed)
        found = Device(library, network, plan).logits(pixels[0], by_rows=True)
        assert found.tobytes() == expected.tobytes(), (streamed, plan)


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_probabilities(library: ctypes.CDLL, count: int) -> None:
    random = np.random.default_rng(count)
    for scale in (0.01, 1, 10, 1e6, 1e38):
        logits = (random.uniform(-scale, scale, count)).astype(np.float32)
        found = logits.copy()
        best = library.lucid_probabilities(ctypes.c_void_p(found.ctypes.data), count)
        exponents = np.exp(logits.astype(np.float64) - logits.max())
        expected = exponents / exponents.sum()
        assert best == logits.argmax()
        assert np.abs(found - expected).max() < 1e-5, scale


def test_first_of_equal_classes(library: ctypes.CDLL) -> None:
    values = np.array([1, 2, 2], np.float32)
    assert library.lucid_probabilities(ctypes.c_void_p(values.ctypes.data), 3) == 1
    assert values[1] == values[2]


def test_a_single_pointwise_layer_gets_a_partner() -> None:
    network = c_network(16, width_multiplier=0.1, num_classes=3)
    *start, pool, dense = network.layers
    last = start[-1]
    head = replace(last, name="head", in_channels=last.out_channels, input_scale=last.output_scale)
    single = replace(network, layers=(*start, head, pool, dense))
    paired = to_c(single).network
    pixels = random_pixels(3, 16, 3)
    assert len(paired.layers) == len(single.layers) + 1
    found, expected = reference.run(paired, pixels), reference.run(single, pixels)
    assert found.tobytes() == expected.tobytes()


def test_layers_are_those_of_the_network() -> None:
    plan = plan_of(0.25, 96)
    kinds: list[Layer] = [layer for layer in plan.layers if layer.kind == "depthwise"]
    assert len(kinds) == 13
    assert len(plan.stages) == 15
