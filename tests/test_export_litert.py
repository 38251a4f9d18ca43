"""LiteRT files give what the reference gives, and hold what apps look for in them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import float_networks, images, int8_networks

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.errors import CheckpointError, ConfigError
from lucid.exporters.flatbuffer import Bytes, Number, encode
from lucid.exporters.litert import to_litert
from lucid.exporters.runners.litert import open_interpreter
from lucid.importers import import_weights
from lucid.importers.flatbuffer import Table
from lucid.lowering import lower
from lucid.network import FloatNetwork, Int8Network
from lucid.quantization import measure_ranges, quantise

pytest.importorskip("ai_edge_litert")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

Array = np.ndarray[Any, Any]

MEANS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def run(content: bytes, pixels: Array, *, is_reference: bool = False) -> Array:
    interpreter = open_interpreter(content, 1, is_reference=is_reference)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], pixels.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], pixels)
    interpreter.invoke()
    logits: Array = interpreter.get_tensor(given["index"])
    return logits


def settled(resolution: int = 64, width: float = 0.25, **variant: Any) -> FloatNetwork:
    return settled_network(MobileNetArguments(width, 10, **variant), resolution)


def quantised(network: FloatNetwork) -> Int8Network:
    side = network.preprocessing.resolution
    return quantise(network, measure_ranges(network, [photo_like(8, side, side, seed=1)]))


def with_means(network: FloatNetwork) -> FloatNetwork:
    return replace(network, preprocessing=replace(network.preprocessing, **MEANS))


def photos(network: FloatNetwork | Int8Network, count: int = 3) -> Array:
    side = network.preprocessing.resolution
    return photo_like(count, side, side, seed=2)


def read(content: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(content, 0)


def operators(content: bytes) -> list[str]:
    model = read(content)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    return [
        names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for operator in model.subgraphs[0].operators
    ]


def step(content: bytes) -> float:
    """Of the classifier's int16 output."""
    tensors = read(content).subgraphs[0].tensors
    (found,) = [tensor for tensor in tensors if tensor.name == b"fc"]
    return float(found.quantization.scale[0])


@settings(max_examples=25)
@given(st.data())
def test_random_float_networks(data: st.DataObject) -> None:
    network = data.draw(float_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    logits = run(to_litert(network, size=pixels.shape[1:3]), pixels)
    np.testing.assert_allclose(logits, reference.run(network, pixels), rtol=1e-5, atol=1e-5)


@settings(max_examples=25)
@given(st.data())
def test_random_int8_networks(data: st.DataObject) -> None:
    """Scales may be such that 6 is less than the largest byte, or bytes overflow all the time."""
    network = data.draw(int8_networks())
    pixels = data.draw(images(network.layers[0].in_channels))
    logits = run(to_litert(network, size=pixels.shape[1:3]), pixels)
    expected = reference.run(network, pixels)
    scale = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(logits / scale, expected / scale, atol=0.05)


@pytest.mark.parametrize("variant", [{}, MEANS], ids=["one mean", "three means"])
@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("resolution", [64, 75])
def test_float_variants(
    resolution: int, padding: str, last_stride: int, variant: dict[str, Any]
) -> None:
    network = settled(resolution, padding=padding, last_stride=last_stride, activation="relu6")
    network = replace(network, preprocessing=replace(network.preprocessing, **variant))
    pixels = photos(network)
    expected = reference.run(network, pixels, dtype=np.float64)
    assert expected.std(axis=0).mean() > 0.5, "else any network would pass"
    np.testing.assert_allclose(run(to_litert(network), pixels), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("means", [False, True], ids=["one mean", "three means"])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("resolution", [64, 75])
def test_int8_in_xnnpack_gives_the_same_bytes(resolution: int, padding: str, means: bool) -> None:
    """So logits are those of the reference, but for the step of int16 that they are rounded to."""
    network = settled(resolution, padding=padding, activation="relu6")
    network = quantised(with_means(network) if means else network)
    pixels = photos(network, 8)
    content = to_litert(network)
    expected = reference.run(network, pixels)
    assert expected.std(axis=0).mean() > 0.5
    np.testing.assert_allclose(run(content, pixels), expected, rtol=0, atol=0.51 * step(content))


def test_reference_kernels_round_in_another_way() -> None:
    network = quantised(settled())
    pixels = photos(network)
    expected = reference.run(network, pixels)
    logits = run(to_litert(network), pixels, is_reference=True)
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("means", [False, True], ids=["one mean", "three means"])
def test_tflm_is_as_litert_s_reference_kernels(means: bool) -> None:
    """They give the same bytes; an int16 logit they may round to the next step."""
    network = quantised(with_means(settled(48)) if means else settled(48))
    pixels = photos(network)
    content = to_litert(network)
    found = run_in_tflm(content, pixels)
    expected = run(content, pixels, is_reference=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.01 * step(content))
    content = to_litert(network, largest_logit=5)
    expected = run(content, pixels, is_reference=True)
    assert expected.std(axis=0).mean() > 1
    np.testing.assert_array_equal(run_in_tflm(content, pixels), expected)


def test_tflm_s_arena(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tflite_micro")
    from lucid.exporters.runners.tflm import arena_bytes, open_interpreter

    interpreter = open_interpreter(to_litert(quantised(settled(48))))
    image = np.zeros((1, 48, 48, 3), np.uint8)
    interpreter.set_input(image, 0)
    interpreter.invoke()
    # The image and its copy with signed bytes at least.
    assert 2 * image.nbytes < arena_bytes(interpreter) < 20 * image.nbytes
    assert "Arena" not in capfd.readouterr().err


def run_in_tflm(content: bytes, pixels: Array) -> Array:
    pytest.importorskip("tflite_micro")
    from lucid.exporters.runners.tflm import open_interpreter

    interpreter = open_interpreter(content)
    found = []
    for image in pixels[:, np.newaxis]:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0))
    return np.concatenate(found)


def test_int8_logits_and_images() -> None:
    """For devices that know nothing but int8."""
    network = quantised(settled())
    pixels = photos(network, 8)
    expected = reference.run(network, pixels)
    largest = float(np.abs(expected).max())
    content = to_litert(network, images="int8", largest_logit=largest)
    assert set(operators(content)) == {
        "PAD",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
    }
    logits = run(content, (pixels ^ 128).view(np.int8))
    assert logits.dtype == np.int8
    np.testing.assert_allclose(logits * (largest / 127), expected, atol=0.51 * largest / 127)


def test_float16_stores_weights_in_half_the_bytes() -> None:
    network = settled()
    whole, half = to_litert(network), to_litert(network, half=True)
    assert len(half) < 0.55 * len(whole)
    pixels = photos(network)
    rounded = FloatNetwork(
        layers=tuple(
            replace(
                layer,
                weight=layer.weight.astype(np.float16).astype(np.float32),
                bias=layer.bias.astype(np.float16).astype(np.float32),
            )
            if layer.kind != "pool"
            else layer
            for layer in network.layers
        ),
        **network.description_fields(),
    )
    expected = reference.run(rounded, pixels)
    np.testing.assert_allclose(run(half, pixels), expected, rtol=0, atol=1e-4)


def test_operators_of_float_files() -> None:
    """Channels last from end to end; normalisation first, nothing behind the classifier."""
    layers = ["CONV_2D"] + ["DEPTHWISE_CONV_2D", "CONV_2D"] * 13
    start, end = ["DEQUANTIZE", "SUB"], ["MEAN", "FULLY_CONNECTED"]
    same = to_litert(settled(padding="same"))
    assert operators(same) == start + layers + end
    # At odd sides, symmetric padding is SAME.
    odd = operators(to_litert(settled(65)))
    assert odd == start + layers + end
    even = operators(to_litert(settled(64)))
    assert even.count("PAD") == 6
    assert [name for name in even if name != "PAD"] == start + layers + end
    assert operators(to_litert(with_means(settled(65))))[:3] == ["DEQUANTIZE", "SUB", "MUL"]


def test_operators_of_int8_files() -> None:
    layers = ["CONV_2D"] + ["DEPTHWISE_CONV_2D", "CONV_2D"] * 13
    found = operators(to_litert(quantised(settled(padding="same"))))
    end = ["MEAN", "QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert found == ["QUANTIZE", *layers, *end]
    split = operators(to_litert(quantised(with_means(settled(padding="same")))))
    assert split[1:6] == ["SPLIT", "PADV2", "PADV2", "PADV2", "CONCATENATION"]


@pytest.mark.parametrize("network", [settled(), quantised(settled())], ids=["float", "int8"])
def test_nothing_is_there_in_vain(network: FloatNetwork | Int8Network) -> None:
    content = to_litert(network)
    model = read(content)
    graph = model.subgraphs[0]
    used = {index for operator in graph.operators for index in operator.inputs}
    assert used | set(graph.outputs) == set(range(len(graph.tensors)))
    buffers = {tensor.buffer for tensor in graph.tensors} | {
        entry.buffer for entry in model.metadata
    }
    assert buffers == set(range(len(model.buffers)))
    for buffer in model.buffers[1:]:
        assert buffer.offset == 0, "weights are inside of the flatbuffer, where TFLM finds them"
        start = content.find(bytes(buffer.data))
        assert len(buffer.data) < 64 or start % 16 == 0, "runtimes read weights in place"
    (signature,) = model.signatureDefs
    assert signature.inputs[0].name == b"images"
    assert signature.outputs[0].name == b"logits"


def test_an_int8_file_has_the_network_s_own_weights() -> None:
    network = quantised(settled(padding="same"))
    model = read(to_litert(network))
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    for layer in network.layers:
        if layer.kind == "pool":
            continue
        stored = model.buffers[tensors[f"{layer.name}.weight"].buffer].data
        order = {"dense": (0, 1), "depthwise": (1, 2, 3, 0)}.get(layer.kind, (0, 2, 3, 1))
        assert bytes(stored) == layer.weight.transpose(order).tobytes(), layer.name


@pytest.mark.parametrize("network", [settled(), quantised(settled())], ids=["float", "int8"])
def test_labels_and_description_are_a_zip_archive(network: FloatNetwork | Int8Network) -> None:
    """What MediaPipe unpacks, and ``unzip`` too."""
    with zipfile.ZipFile(io.BytesIO(to_litert(network))) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode().splitlines() == list(network.class_names)
        description = json.loads(archive.read("lucid.json"))
    assert description["preprocessing"] == network.preprocessing.to_dict()


def test_metadata() -> None:
    """Field numbers are those of TFLite Support's metadata_schema.fbs."""
    network = with_means(settled())
    model = read(to_litert(network, size=(40, 56)))
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    metadata = Table.root(bytes(model.buffers[entry.buffer].data), b"M001")
    (graph,) = metadata.tables(3)
    (taken,), (given,) = graph.tables(2), graph.tables(3)
    assert (taken.text(0), given.text(0)) == ("images", "logits")
    content = taken.table(3)
    assert content is not None
    assert content.number(0, "B") == 2, "ImageProperties"
    image = content.table(1)
    assert image is not None
    assert image.number(0, "b") == 1, "RGB"
    size = image.table(1)
    assert size is not None
    assert (size.number(0, "I"), size.number(1, "I")) == (56, 40)
    (unit,) = taken.tables(4)
    assert unit.number(0, "B") == 1, "NormalizationOptions"
    options = unit.table(1)
    assert options is not None
    for field, values in enumerate((MEANS["mean"], MEANS["std"])):
        assert options.numbers(field, "f") == pytest.approx([255 * value for value in values])
    (labels,) = given.tables(6)
    assert (labels.text(0), labels.number(2, "b")) == ("labels.txt", 2), "TENSOR_AXIS_LABELS"


@pytest.mark.parametrize("variant", ["symmetric", "same", "odd", "means", "relu6"])
def test_import_gives_the_same_network(variant: str, tmp_path: Path) -> None:
    network = settled(
        65 if variant == "odd" else 64,
        padding="same" if variant == "same" else "symmetric",
        activation="relu6" if variant == "relu6" else "relu",
    )
    network = with_means(network) if variant == "means" else network
    preprocessing = replace(network.preprocessing, crop_fraction=0.9, interpolation="bicubic")
    network = replace(network, preprocessing=preprocessing)
    path = tmp_path / "network.tflite"
    path.write_bytes(to_litert(network))
    found = lower(import_weights(path))
    assert found.class_names == network.class_names
    rounded = [np.round(part, 6).tolist() for part in (preprocessing.mean, preprocessing.std)]
    read_back = found.preprocessing
    assert [np.round(part, 6).tolist() for part in (read_back.mean, read_back.std)] == rounded
    assert replace(read_back, mean=(), std=()) == replace(preprocessing, mean=(), std=())
    pixels = photos(network)
    expected = reference.run(network, pixels)
    np.testing.assert_allclose(reference.run(found, pixels), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_import_of_int8_gives_the_network_that_it_approximates(
    activation: str, tmp_path: Path
) -> None:
    network = settled(activation=activation)
    int8 = quantised(network)
    path = tmp_path / "network.tflite"
    path.write_bytes(to_litert(int8))
    found = lower(import_weights(path))
    for layer, expected in zip(found.layers, int8.layers, strict=True):
        if layer.kind in ("pool", "stem"):  # the stem reads bytes in one, pixels in the other
            continue
        scale = expected.weight_scale.reshape(-1, *[1] * (expected.weight.ndim - 1))
        np.testing.assert_allclose(layer.weight, expected.weight * scale, rtol=1e-4, atol=1e-6)
    pixels = photos(network, 8)
    expected = reference.run(network, pixels)
    assert np.abs(reference.run(found, pixels) - expected).max() < 0.2 * np.ptp(expected)


class TestRealNetworks:
    """On photos; a file for the accuracy that it costs."""

    def test_imported_imagenet(self, shared: Path) -> None:
        source = shared / "models" / "mobilenet_v1_0.25_128_quant.tflite"
        network = lower(import_weights(source))
        pixels = photos(network, 8)
        expected = reference.run(network, pixels, dtype=np.float64)
        limit = max(1e-4, 1e-5 * np.ptp(expected))
        np.testing.assert_allclose(run(to_litert(network), pixels), expected, rtol=0, atol=limit)

    def test_width_1_with_1000_classes(self) -> None:
        network = settled_network(MobileNetArguments(1.0, 1000), 96)
        pixels = photo_like(2, 96, 96, seed=2)
        expected = reference.run(network, pixels, dtype=np.float64)
        limit = max(1e-4, 1e-5 * np.ptp(expected))
        np.testing.assert_allclose(run(to_litert(network), pixels), expected, rtol=0, atol=limit)

    def test_one_class_and_grey_pictures(self) -> None:
        network = settled_network(MobileNetArguments(0.25, 1, in_channels=1), 48)
        pixels = photo_like(3, 48, 48, channels=1, seed=2)
        for found in (network, quantise(network, measure_ranges(network, [pixels]))):
            expected = reference.run(found, pixels)
            content = to_litert(found)
            limit = 1e-4 if found is network else 0.51 * step(content)
            np.testing.assert_allclose(run(content, pixels), expected, rtol=0, atol=limit)


def test_the_same_network_gives_the_same_bytes() -> None:
    network = settled(48)
    assert to_litert(network) == to_litert(network)


def test_wrong_arguments() -> None:
    network = settled(48)
    with pytest.raises(ConfigError, match="images must be"):
        to_litert(network, images="int8")
    with pytest.raises(ConfigError, match="images must be"):
        to_litert(quantised(network), images="normalised")
    with pytest.raises(ConfigError, match="width must be"):
        to_litert(network, size=(8, 0))
    with pytest.raises(ConfigError, match="largest_logit must be above 0"):
        to_litert(quantised(network), largest_logit=0)
    *layers, dense = network.layers
    large = replace(network, layers=(*layers, replace(dense, bias=dense.bias + np.float32(1e6))))
    with pytest.raises(ConfigError, match=r"fc\.bias: float16 ends at 65,504"):
        to_litert(large, half=True)


def test_flatbuffer() -> None:
    """Every kind of value, read by the reader that checks all offsets."""
    content = encode(
        {
            0: Number("b", -3),
            1: Number("q", 2**40),
            2: "text",
            3: np.array([1.5, 2.5], np.float32),
            5: Bytes(b"12345", 16),
            6: {0: Number("H", 7)},
            7: [{0: "a"}, {}, {0: "b", 1: Number("d", 0.5)}],
            8: np.array([2**40], np.int64),
        },
        b"TEST",
    )
    table = Table.root(content, b"TEST")
    assert (table.number(0, "b"), table.number(1, "q")) == (-3, 2**40)
    assert (table.text(2), table.bytes(5)) == ("text", b"12345")
    assert content.index(b"12345") % 16 == 0
    assert content.index(np.int64(2**40).tobytes(), 60) % 8 == 0
    assert table.numbers(3, "f") == (1.5, 2.5)
    assert table.numbers(8, "q") == (2**40,)
    assert table.number(4, "i", 9) == 9, "left out"
    inner = table.table(6)
    assert inner is not None
    assert inner.number(0, "H") == 7
    assert [entry.text(0) for entry in table.tables(7)] == ["a", "", "b"]
    assert table.tables(7)[2].number(1, "d") == 0.5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"class_names"', b'"class_names ', "lucid.json packed in the file is no JSON"),
        (b'"crop_fraction": 0.875', b'"crop_fraction": 9.875', "crop_fraction must be"),
    ],
)
def test_import_of_a_wrong_description(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    content = to_litert(settled(33))
    text = zipfile.ZipFile(io.BytesIO(content)).read("lucid.json")
    stream = io.BytesIO(content[: content.rindex(b"PK\3\4")])  # lucid.json stands last
    assert text.count(old) == 1
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("lucid.json", text.replace(old, new))
    path = tmp_path / "network.tflite"
    path.write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError, match=words):
        import_weights(path)
