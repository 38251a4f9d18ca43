"""ONNX files give what the reference gives, and hold what a user of the file needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import (
    float_networks,
    images,
    int8_networks,
)
from test_imports import run_without_extras

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.engine import isas
from lucid.errors import ConfigError
from lucid.exporters.onnx import OPSET, to_onnx
from lucid.images import Pixels, normalise
from lucid.network import FloatNetwork, Int8Network
from lucid.quantization import measure_ranges, quantise

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Array = np.ndarray[Any, Any]

# Without them ONNX Runtime adds pairs of products in int16, which saturate.
needs_exact_kernels = pytest.mark.skipif(
    not {"avx512vnni", "avxvnni", "dotprod"} & set(isas("int8")),
    reason="this CPU has no 8-bit dot products",
)


def run(model: bytes, pixels: Array) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, {"images": pixels})[0]
    return logits


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def settled(resolution: int = 75, **variant: Any) -> FloatNetwork:
    return settled_network(MobileNetArguments(0.25, 10, **variant), resolution)


def quantised(network: FloatNetwork) -> Int8Network:
    side = network.preprocessing.resolution
    return quantise(network, measure_ranges(network, [photo_like(8, side, side, seed=1)]))


def photos(network: FloatNetwork | Int8Network, count: int = 4) -> Pixels:
    side = network.preprocessing.resolution
    return photo_like(count, side, side, seed=2)


@settings(max_examples=25)
@given(st.data())
def test_random_float_networks(data: st.DataObject) -> None:
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    size = pixels.shape[1:3]
    expected = reference.run(network, pixels)
    planes = pixels.transpose(0, 3, 1, 2) / np.float32(255)
    for taken, values in (
        ("uint8", pixels),
        ("float32", planes.astype(np.float32)),
        ("normalised", normalise(pixels, network.preprocessing)),
    ):
        logits = run(to_onnx(network, images=taken, size=size), values)  # type: ignore[arg-type]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5, err_msg=taken)


@needs_exact_kernels
@settings(max_examples=100)
@given(st.data())
def test_random_int8_networks_give_the_same_bits(data: st.DataObject) -> None:
    network = data.draw(int8_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    logits = run(to_onnx(network, size=pixels.shape[1:3]), pixels)
    np.testing.assert_array_equal(logits, reference.run(network, pixels))


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("resolution", [64, 75])
def test_float_variants(resolution: int, padding: str, last_stride: int) -> None:
    network = settled(resolution, padding=padding, last_stride=last_stride, activation="relu6")
    pixels = photos(network)
    expected = reference.run(network, pixels)
    assert expected.std(axis=0).min() > 0.1  # else any network would pass
    np.testing.assert_allclose(run(to_onnx(network), pixels), expected, rtol=0, atol=2e-4)


@needs_exact_kernels
@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)], ids=["one", "three"])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("maximum", [255, 128])
def test_int8_gives_the_same_bits(maximum: int, padding: str, mean: tuple[float, ...]) -> None:
    """With one zero point and with three; with a ReLU6 that ends within the bytes too."""
    network = settled(64, padding=padding, activation="relu6")
    network = replace(network, preprocessing=replace(network.preprocessing, mean=mean))
    ranges = measure_ranges(network, [photo_like(8, 64, 64, seed=1)])
    stem = network.layers[0].name
    int8 = quantise(network, ranges | {stem: 6 * 255 / maximum})
    assert int8.layers[0].maximum == maximum  # type: ignore[union-attr]
    model = to_onnx(int8)
    assert operators(model).count("Clip") == (maximum < 255)
    pixels = photos(int8, 8)
    expected = reference.run(int8, pixels)
    assert expected.std(axis=0).min() > 0.1  # else any network would pass
    np.testing.assert_array_equal(run(model, pixels), expected)


def test_a_float_file_has_no_other_operators() -> None:
    found = operators(to_onnx(settled(), images="normalised"))
    assert found == ["Conv", "Relu"] * 27 + ["GlobalAveragePool", "Flatten", "Gemm"]


def test_a_half_file_is_half_all_through() -> None:
    network = settled()
    model = to_onnx(network, half=True)
    found = operators(model)
    assert found[:5] == ["Transpose", "Cast", "Sub", "Mul", "Cast"]
    assert found[5:] == ["Conv", "Relu"] * 27 + ["GlobalAveragePool", "Flatten", "Gemm", "Cast"]
    kinds = {one.name: one.data_type for one in onnx.load_from_string(model).graph.initializer}
    floats = [name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT]
    assert sorted(floats) == ["factor", "mean"]
    pixels = photos(network)
    expected = reference.run(network, pixels)
    difference = np.abs(run(model, pixels) - expected).max()
    assert 1e-4 < difference < 0.02 * np.ptp(expected), difference


def test_an_int8_file_runs_in_integer_kernels(tmp_path: Path) -> None:
    """ONNX Runtime fuses every convolution and the classifier; the pool's sums are floats."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    model = to_onnx(quantised(settled()))
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    fused = operators((tmp_path / "optimised.onnx").read_bytes())
    assert fused.count("QLinearConv") == 27
    assert (fused.count("QGemm"), fused.count("QuantizeLinear"), fused.count("Conv")) == (1, 1, 0)


def test_description_and_shapes() -> None:
    network = settled()
    model = onnx.load_from_string(to_onnx(network, size=(40, 56)))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["class_names"]) == list(network.class_names)
    assert json.loads(found["preprocessing"]) == network.preprocessing.to_dict()
    assert found["images"] == "uint8"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    (taken,) = model.graph.input
    dimensions = taken.type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch"
    assert [part.dim_value for part in dimensions[1:]] == [40, 56, 3]


def test_any_batch() -> None:
    model, pixels = to_onnx(settled()), photos(settled(), 3)
    whole = run(model, pixels)
    single = np.concatenate([run(model, one[None]) for one in pixels])
    np.testing.assert_allclose(whole, single, rtol=0, atol=1e-4)


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="images must be"):
        to_onnx(settled(), images="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="images must be"):
        to_onnx(quantised(settled()), images="float32")
    with pytest.raises(ConfigError, match="height must be"):
        to_onnx(settled(), size=(0, 8))


def test_the_extra_is_named() -> None:
    code = (
        "from lucid.exporters.onnx import to_onnx\n"
        "from lucid.benchmark.samples import settled_network\n"
        "from lucid.architecture import MobileNetArguments\n"
        "to_onnx(settled_network(MobileNetArguments(0.25, 2), 16))"
    )
    last = run_without_extras(code).stderr.strip().splitlines()[-1]
    assert last.endswith("run: pip install 'lucid-mobilenet[onnx]'"), last
