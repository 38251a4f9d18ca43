"""Peaks, profiles and their pictures: whole, and in agreement with each other; never on time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lucid.architecture import MobileNetArguments
from lucid.benchmark.measure import compare, workload
from lucid.benchmark.peers import ISAS, Candidate, best_kernels
from lucid.benchmark.pictures import layer_times, roofline
from lucid.benchmark.profile import Profile, Step, bandwidths, profile
from lucid.benchmark.samples import photo_like, settled_network
from lucid.engine import PRECISIONS, Engine, Peak, Precision, isas, measure_bandwidth, measure_peak
from lucid.errors import ConfigError
from lucid.evaluation.plots import to_svg
from lucid.network import FloatNetwork, sized_layers, totals

SIDE = 48


@pytest.fixture(scope="module")
def network() -> FloatNetwork:
    return settled_network(MobileNetArguments(0.25, 10), SIDE)


EVERY_SET = [(precision, isa) for precision in PRECISIONS for isa in isas(precision)]


@pytest.mark.parametrize(("precision", "isa"), EVERY_SET, ids=str)
def test_every_set_but_plain_c_has_a_peak(precision: Precision, isa: str) -> None:
    peak = measure_peak(precision, isa, seconds=0.001)
    if isa == "scalar":
        assert peak is None
    else:
        assert isinstance(peak, Peak)
        assert peak.instruction
        assert np.isfinite(peak.multiply_adds)
        assert peak.multiply_adds > 1e6, "even under an emulator"


def test_a_peak_is_of_an_instruction_set_that_is_there() -> None:
    with pytest.raises(ConfigError, match="'mmx' is no instruction set"):
        measure_peak("int8", "mmx")
    with pytest.raises(ConfigError, match="precision"):
        measure_peak("int7")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_bandwidth_of_any_size(size: int) -> None:
    rate = measure_bandwidth(size, seconds=0.001)
    assert rate is None or 1e6 < rate < 1e14


def test_bandwidth_of_no_size() -> None:
    with pytest.raises(ConfigError, match="size must be"):
        measure_bandwidth(0)


def test_shares_follow_from_times(network: FloatNetwork) -> None:
    image = photo_like(1, SIDE, SIDE)[0]
    for threads in (1, 2):
        peak = None
        for step in Engine(network, threads=threads).profile(image, 2):
            peak = step.peak
            if peak is None:
                assert step.share is None
            else:
                assert step.share == pytest.approx(step.multiply_adds / step.seconds / peak)
        plain = Engine(network, threads=threads, isa="scalar").profile(image, 2)
        assert all(step.peak is None and step.share is None for step in plain)


def test_a_profile_has_every_layer_and_survives_json(network: FloatNetwork) -> None:
    found = profile(network, "float32", photo_like(1, SIDE, SIDE)[0], repetitions=2, rounds=2)
    names = [name for step in found.steps for name in step.name.split(" + ")]
    assert names == [layer.name for layer in network.layers]
    kinds = [kind for step in found.steps for kind in step.kind.split(" + ")]
    assert kinds == [layer.kind for layer in network.layers]
    work = totals(sized_layers(network.layers, SIDE, SIDE)).multiply_adds
    assert sum(step.multiply_adds for step in found.steps) == work
    assert found.isa == isas("float32")[0]
    assert Profile.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_comparison_knows_its_work_and_its_peak(network: FloatNetwork) -> None:
    work = workload(network, photo_like(4, SIDE, SIDE), batch=2)
    found = compare(work, [Candidate("lucid", "float32", 2)], work.calibration, rounds=1)
    (one,) = found.measurements
    expected = 2 * totals(sized_layers(network.layers, SIDE, SIDE)).multiply_adds
    assert one.multiply_adds == work.multiply_adds == expected
    if one.peak is None:
        assert one.share is None
    else:
        assert one.share == pytest.approx(expected / one.seconds / one.peak)
    assert one.to_json()["share"] == one.share


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_within_a_limit(isa: str) -> None:
    assert best_kernels("float32", None) is None
    assert best_kernels("float32", isa) in ISAS[isa].kernels
    with pytest.raises(ConfigError, match=f"float32-split within {isa}"):
        best_kernels("float32-split", isa)


# --- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def drawn() -> Profile:
    steps = (
        Step("first", "stem", 2e-6, 4000, 1000),
        Step("second + third", "depthwise + pointwise", 4e-6, 20_000, 900),
        Step("mean", "pool", 1e-6, 0, 100),
        Step("last", "dense", 1e-6, 1000, 1000),
    )
    return Profile("int8", "some", "multiply <&>", 1e10, steps)


def test_the_share_is_of_all_steps(drawn: Profile) -> None:
    assert drawn.seconds == pytest.approx(8e-6)
    assert drawn.share == pytest.approx(25_000 / 8e-6 / 1e10)
    assert replace(drawn, peak=None).share is None


def test_times_are_bars_of_all_steps(drawn: Profile) -> None:
    unknown = replace(drawn, precision="float32", instruction=None, peak=None)
    figure = layer_times([drawn, unknown])
    upper, lower = figure.axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx([2, 4, 1, 1])
    assert [len(axes.collections) for axes in (upper, lower)] == [1, 0], "no peak, no lines"
    assert upper.get_title(loc="left") == "int8 on some: 0.01 ms, 31% of the peak"
    assert [label.get_text() for label in lower.get_xticklabels()] == [
        step.name for step in drawn.steps
    ]


@pytest.mark.parametrize("rates", [{16 << 10: 2e10, 128 << 20: 1e9}, {}], ids=["loads", "none"])
def test_a_roofline_has_every_layer_that_computes(drawn: Profile, rates: dict[int, float]) -> None:
    figure = roofline([drawn, replace(drawn, precision="float32", peak=None)], rates)
    (axes,) = figure.axes
    points = [line.get_xydata() for line in axes.lines if line.get_marker() not in ("", "None")]
    assert len(points) == 2 * 3
    np.testing.assert_allclose(points[0], [[4, 2e9]])
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == len(rates)
    for line, rate in zip(dashed, rates.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata() / line.get_xdata(), rate)
    svg = to_svg(figure)
    assert "multiply &lt;&amp;&gt;: 10 G/s" in svg
    assert ("128 MiB: 1 GB/s" in svg) == bool(rates)
    assert "mathdefault" not in svg, "ticks are plain numbers"


def test_loads_that_are_measured_have_a_rate() -> None:
    assert all(rate > 0 for rate in bandwidths([4096]).values())
