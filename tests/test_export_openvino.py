"""OpenVINO's files: what is in them, and how OpenVINO runs them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.exporters import Exported, export
from lucid.exporters.runners.openvino import compile_model, prepare
from lucid.network import FloatNetwork
from lucid.quantization import measure_ranges, quantise

os.environ.setdefault("CI", "true")
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def network() -> FloatNetwork:
    return settled_network(MobileNetArguments(0.25, 10, activation="relu6"), 40)


@pytest.fixture(scope="module")
def int8(network: FloatNetwork) -> Exported:
    return export(quantise(network, measure_ranges(network, [photo_like(4, 40, 40)])), "openvino")


def operators(exported: Exported) -> Counter[str]:
    text = exported.files[".xml"].decode()
    return Counter(re.findall(r'<layer [^>]*type="(\w+)"', text)) - Counter(Const=10_000)


def test_a_float_file_has_no_other_operators(network: FloatNetwork) -> None:
    assert operators(export(network, "openvino")) == {
        "Parameter": 1,
        "Transpose": 1,
        "Convert": 1,
        "Subtract": 1,
        "Convolution": 14,
        "GroupConvolution": 13,
        "Clamp": 27,
        "ReduceMean": 1,
        "MatMul": 1,
        "Add": 28,
        "Result": 1,
    }


def test_an_int8_file_stores_bytes(int8: Exported) -> None:
    found = operators(int8)
    assert found["FakeQuantize"] == 28
    assert found["Multiply"] == 28  # the scales of weights
    parameters = sum(layer.weights for layer in int8.network.layers)
    assert parameters < len(int8.files[".bin"]) < 1.25 * parameters


def test_an_int8_file_runs_in_integer_kernels(int8: Exported) -> None:
    """All but the first layer, whose pixels are not those of a rounded activation."""
    with int8.temporary() as path:
        compiled = compile_model(openvino.Core().read_model(path), 1)
        precisions = [
            one.get_rt_info()["runtimePrecision"].astype(str)
            for one in compiled.get_runtime_model().get_ops()
            if one.get_rt_info()["layerType"].astype(str) in ("Convolution", "FullyConnected")
        ]
    assert Counter(precisions) == {"u8": 27, "f32": 1}


def test_names_and_preprocessing(network: FloatNetwork) -> None:
    with export(network, "openvino").temporary() as path:
        model = openvino.Core().read_model(path)
    names = json.loads(model.get_rt_info(["lucid", "class_names"]).astype(str))
    assert names == list(network.class_names)
    found = json.loads(model.get_rt_info(["lucid", "preprocessing"]).astype(str))
    assert found == network.preprocessing.to_dict()
    labels = model.get_rt_info(["model_info", "labels"]).astype(str)
    assert labels.split()[3] == "class_3"
    assert model.get_rt_info(["model_info", "model_type"]).astype(str) == "Classification"
    assert [str(one) for one in model.input("images").partial_shape] == ["?", "40", "40", "3"]
    assert model.input("images").element_type == openvino.Type.u8
    assert model.output("logits").element_type == openvino.Type.f32


def test_any_batch(network: FloatNetwork) -> None:
    pixels = photo_like(5, 40, 40, seed=2)
    expected = reference.run(network, pixels, dtype=np.float64)
    with export(network, "openvino").temporary() as path:
        runner = prepare(path, 1)
        for count in (5, 1, 2):
            np.testing.assert_allclose(runner(pixels[:count]), expected[:count], rtol=0, atol=2e-4)


def test_weights_are_float32_unless_asked(network: FloatNetwork) -> None:
    sizes: dict[Any, int] = {
        precision: len(export(network, "openvino", precision=precision).files[".bin"])
        for precision in ("float32", "float16")
    }
    parameters = sum(layer.weights for layer in network.layers)
    assert sizes["float32"] > 4 * parameters
    assert 2 * parameters < sizes["float16"] < 2.2 * parameters
