"""ExecuTorch programs give what the reference gives, and run in XNNPACK as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.errors import ConfigError
from lucid.exporters.executorch import _check_delegated, to_files
from lucid.exporters.runners.executorch import prepare
from lucid.network import FloatNetwork, Int8Network
from lucid.quantization import measure_ranges, quantise

pytest.importorskip("executorch")

MEANS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def settled(resolution: int, classes: int = 10, **variant: Any) -> FloatNetwork:
    return settled_network(MobileNetArguments(0.25, classes, **variant), resolution)


def quantised(network: FloatNetwork) -> Int8Network:
    side = network.preprocessing.resolution
    return quantise(network, measure_ranges(network, [photo_like(8, side, side, seed=1)]))


def with_means(network: FloatNetwork) -> FloatNetwork:
    return replace(network, preprocessing=replace(network.preprocessing, **MEANS))


def run(network: FloatNetwork | Int8Network, folder: Path) -> tuple[Any, Any]:
    """Logits of the program and of the reference, of one image and of three."""
    side = network.preprocessing.resolution
    files = to_files(network, "float32", (side, side))
    assert json.loads(files[".json"])["class_names"] == list(network.class_names)
    path = folder / "network.pte"
    path.write_bytes(files[".pte"])
    runner = prepare(path, 1)
    pixels = photo_like(4, side, side, seed=2)
    expected = reference.run(network, pixels)
    assert expected.std(axis=0).mean() > 0.5, "else any network would pass"
    return np.concatenate([runner(pixels[:1]), runner(pixels[1:])]), expected


@pytest.mark.parametrize(
    ("resolution", "variant"),
    [(48, {"padding": "same", "activation": "relu6"}), (51, {"last_stride": 1})],
    ids=str,
)
def test_float(resolution: int, variant: dict[str, Any], tmp_path: Path) -> None:
    logits, expected = run(settled(resolution, **variant), tmp_path)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("padding", "means"), [("same", False), ("symmetric", True)], ids=["one mean", "three means"]
)
def test_int8_gives_the_same_bytes(padding: str, means: bool, tmp_path: Path) -> None:
    """The classifier adds in float32, so its sums are rounded a little."""
    network = settled(48, padding=padding)
    logits, expected = run(quantised(with_means(network) if means else network), tmp_path)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_clamp_below_255_is_kept(tmp_path: Path) -> None:
    network = settled(48, activation="relu6")
    ranges = measure_ranges(network, [photo_like(8, 48, 48, seed=1)])
    int8 = quantise(network, ranges | {layer.name: 12.0 for layer in network.layers[:3]})
    logits, expected = run(int8, tmp_path)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.05 * np.ptp(expected))


def test_what_is_not_delegated_is_refused() -> None:
    class Node:
        op = "call_function"
        target = "aten.view_copy.default"

    class Manager:
        def exported_program(self) -> Any:
            graph = type("Graph", (), {"nodes": [Node()]})
            return type("Program", (), {"graph": graph})

    with pytest.raises(ConfigError, match=r"as a whole; aten\.view_copy\.default would"):
        _check_delegated(Manager())
