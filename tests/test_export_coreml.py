"""Core ML's packages: what is in them, and that executing their programs is sensitive."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.exporters import Exported, export
from lucid.exporters.coreml import coremltools
from lucid.exporters.runners.coreml import prepare
from lucid.network import FloatNetwork
from lucid.quantization import measure_ranges, quantise

pytest.importorskip("coremltools")


@pytest.fixture(scope="module")
def network() -> FloatNetwork:
    """With a mean and a standard deviation for each channel, of which Core ML takes one."""
    network = settled_network(MobileNetArguments(0.25, 10, activation="relu6"), 40)
    varied = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return replace(network, preprocessing=replace(network.preprocessing, **varied))


@pytest.fixture(scope="module")
def exported(network: FloatNetwork) -> Exported:
    return export(network, "coreml")


def specification(exported: Exported) -> Any:
    with exported.temporary() as path:
        return coremltools().models.utils.load_spec(str(path))


def operations(exported: Exported) -> Counter[str]:
    main = specification(exported).mlProgram.functions["main"]
    block = main.block_specializations[main.opset]
    return Counter(one.type for one in block.operations) - Counter(const=10_000)


def test_a_float_program_has_no_other_operations(exported: Exported) -> None:
    rest = {"mul": 1, "add": 1, "reduce_mean": 1, "linear": 1, "softmax": 1, "classify": 1}
    assert operations(exported) == {"conv": 27, "relu6": 27} | rest
    half = export(exported.network, "coreml", precision="float16")
    assert operations(half) == operations(exported) + Counter(cast=3)
    assert half.size < 0.6 * exported.size


def test_an_int8_program_keeps_bytes_and_scales(network: FloatNetwork) -> None:
    int8 = quantise(network, measure_ranges(network, [photo_like(4, 40, 40)]))
    made = export(int8, "coreml")
    found = operations(made)
    for kind in ("constexpr_affine_dequantize", "quantize", "dequantize"):
        assert found[kind] == 28, kind
    weights = made.files[".mlpackage/Data/com.apple.CoreML/weights/weight.bin"]
    for layer in int8.layers[2:6]:  # fewer channels than ten stand in the program itself
        assert layer.weight.tobytes() in weights, layer.name  # type: ignore[union-attr]
        assert layer.weight_scale.tobytes() in weights, layer.name  # type: ignore[union-attr]
    assert specification(made).specificationVersion == 8  # iOS 17


def test_an_image_goes_in_and_labels_come_out(exported: Exported, network: FloatNetwork) -> None:
    description = specification(exported).description
    (image,) = description.input
    assert (image.type.imageType.width, image.type.imageType.height) == (40, 40)
    assert image.type.imageType.colorSpace == 20  # RGB, in Apple's FeatureTypes.proto
    assert [one.name for one in description.output] == ["classLabel", "classLabel_probs", "logits"]
    assert description.predictedFeatureName == "classLabel"
    texts = description.metadata.userDefined
    assert json.loads(texts["class_names"]) == list(network.class_names)
    assert json.loads(texts["preprocessing"]) == network.preprocessing.to_dict()
    assert texts["com.apple.coreml.model.preview.type"] == "imageClassifier"
    main = specification(exported).mlProgram.functions["main"]
    block = main.block_specializations[main.opset]
    (classify,) = (one for one in block.operations if one.type == "classify")
    assert [name for name in network.class_names if f'"{name}"' not in str(classify)] == []


def test_a_grey_image() -> None:
    network = settled_network(MobileNetArguments(0.25, 3, in_channels=1), 32)
    made = export(network, "coreml")
    assert specification(made).description.input[0].type.imageType.colorSpace == 10  # grey
    pixels = photo_like(3, 32, 32, channels=1, seed=2)
    expected = reference.run(network, pixels, dtype=np.float64)
    assert expected.std(axis=0).min() > 0.1
    with made.temporary() as path:
        runner = prepare(path, 1)
        found = np.concatenate([runner(one[None]) for one in pixels])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
