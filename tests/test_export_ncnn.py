"""ncnn's files give what the reference gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import float_networks, images

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.errors import ConfigError
from lucid.exporters import export
from lucid.exporters.ncnn import to_files, to_ncnn
from lucid.exporters.runners.ncnn import prepare
from lucid.images import Pixels
from lucid.network import FloatNetwork
from lucid.quantization import measure_ranges, quantise

pytest.importorskip("ncnn")

Array = np.ndarray[Any, Any]


def settled(resolution: int = 64, width: float = 0.25, classes: int = 10, **variant: Any) -> Any:
    return settled_network(MobileNetArguments(width, classes, **variant), resolution)


def write(network: FloatNetwork, folder: Path, size: tuple[int, int], **options: Any) -> Path:
    files = to_files(network, options.get("precision", "float32"), size)
    for suffix, content in files.items():
        (folder / f"network{suffix}").write_bytes(content)
    return folder / "network.ncnn.param"


def run(network: FloatNetwork, pixels: Pixels, folder: Path, **options: Any) -> Array:
    height, width = pixels.shape[1:3]
    return prepare(write(network, folder, (height, width), **options), 1)(pixels)


@settings(max_examples=25)
@given(data=st.data())
def test_random_networks(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    logits = run(network, pixels, tmp_path_factory.mktemp("ncnn"))
    np.testing.assert_allclose(logits, reference.run(network, pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("resolution", [64, 75])
def test_variants(resolution: int, padding: str, last_stride: int, tmp_path: Path) -> None:
    network = settled(resolution, padding=padding, last_stride=last_stride, activation="relu6")
    preprocessing = replace(
        network.preprocessing, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    network = replace(network, preprocessing=preprocessing)
    pixels = photo_like(3, resolution, resolution, seed=2)
    expected = reference.run(network, pixels, dtype=np.float64)
    assert expected.std(axis=0).mean() > 0.5, "else any network would pass"
    np.testing.assert_allclose(run(network, pixels, tmp_path), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("classes", [1, 1000])
def test_width_1(classes: int, tmp_path: Path) -> None:
    network = settled(96, width=1.0, classes=classes)
    pixels = photo_like(2, 96, 96, seed=2)
    expected = reference.run(network, pixels, dtype=np.float64)
    limit = max(1e-4, 1e-5 * np.ptp(expected))
    np.testing.assert_allclose(run(network, pixels, tmp_path), expected, rtol=0, atol=limit)


def test_float16_stores_weights_in_half_the_bytes(tmp_path: Path) -> None:
    network = settled()
    pixels = photo_like(3, 64, 64, seed=2)
    rounded = replace(
        network,
        layers=tuple(
            replace(layer, weight=layer.weight.astype(np.float16).astype(np.float32))
            if layer.kind != "pool"
            else layer
            for layer in network.layers
        ),
    )
    half = run(network, pixels, tmp_path, precision="float16")
    np.testing.assert_allclose(half, reference.run(rounded, pixels), rtol=0, atol=1e-4)
    sizes = [len(to_files(network, one, (64, 64))[".ncnn.bin"]) for one in ("float32", "float16")]
    assert sizes[1] < 0.55 * sizes[0]


def test_structure() -> None:
    """One layer a step, from the normalisation on."""
    param = to_files(settled(), "float32", (40, 56))[".ncnn.param"].decode()
    magic, counts, *layers = param.splitlines()
    assert (magic, counts) == ("7767517", "31 31")
    kinds = [line.split()[0] for line in layers]
    convolutions = ["Convolution"] + ["ConvolutionDepthWise", "Convolution"] * 13
    assert kinds == ["Input", "Scale", *convolutions, "Pooling", "InnerProduct"]
    assert layers[0].split()[4:] == ["images", "0=56", "1=40", "2=3"]
    assert layers[-1].split()[5] == "logits"


def test_description() -> None:
    network = settled()
    described = json.loads(to_files(network, "float32", (64, 64))[".ncnn.json"])
    assert described["class_names"] == list(network.class_names)
    assert described["preprocessing"] == network.preprocessing.to_dict()


def test_what_it_can_t_hold() -> None:
    network = settled(48)
    int8 = quantise(network, measure_ranges(network, [photo_like(4, 48, 48)]))
    with pytest.raises(ConfigError, match="ncnn has no int8; it has float32, float16"):
        export(int8, "ncnn")
    *layers, dense = network.layers
    weight = dense.weight.copy()
    weight[0, 0] = 1e6
    large = replace(network, layers=(*layers, replace(dense, weight=weight)))
    with pytest.raises(ConfigError, match=r"fc\.weight: float16 ends at 65,504"):
        to_ncnn(large, half=True)
    with pytest.raises(ConfigError, match="images must be"):
        to_ncnn(network, images="bytes")  # type: ignore[arg-type]
