"""Int8 networks: their numbers can't overflow, and their file holds all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from checkpoint_helpers import join_file, small_checkpoint, split_file
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import images, int8_networks

from lucid import reference
from lucid.checkpoint import read_checkpoint, write_checkpoint
from lucid.errors import CheckpointError, ConfigError, NetworkError, ShapeError
from lucid.images import Preprocessing
from lucid.lowering import lower
from lucid.network import Int8Layer, Int8Network, Int8Pool, Layer, read_network, write_network
from lucid.quantization import quantise

INT32 = np.iinfo(np.int32)


def dense(weight: list[int], bias: int, /, **changes: Any) -> Int8Layer:
    """A classifier of one class."""
    fields: dict[str, Any] = {
        "name": "fc",
        "kind": "dense",
        "in_channels": len(weight),
        "out_channels": 1,
        "weight": np.int8([weight]),
        "bias": np.int32([bias]),
        "weight_scale": np.float32([2.0**-10]),
        "input_scale": 1.0,
        "output_scale": 1.0,
    }
    return Int8Layer(**(fields | changes))


def small_network() -> Int8Network:
    """The narrowest MobileNet."""
    network = lower(small_checkpoint())
    return quantise(network, {layer.name: 1.0 for layer in network.layers[:-1]})


# --- no overflow -----------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_the_accumulator_is_bounded_to_the_last_step(sign: int) -> None:
    """One input at 255 and one at 0; the weights of one sign count, with a bias of that sign."""
    limit = INT32.max if sign == 1 else -INT32.min
    room = limit - 255 * 127
    layer = dense([sign * 127, -sign * 5], sign * room)
    low, high = layer.accumulator_bounds()
    assert (high if sign == 1 else -low).tolist() == [limit]
    with pytest.raises(NetworkError, match=r"fc: the accumulator of channel 0 could be from .*"):
        dense([sign * 127, -sign * 5], sign * (room + 1))


def test_partial_sums_count_too() -> None:
    """The bias lifts the whole sum, but not that of the negative products alone."""
    weight = [-127] * (2**31 // (127 * 255) + 1)
    with pytest.raises(NetworkError, match="channel 0 could be from -21475"):
        dense(weight, 1_000_000)


@given(st.data())
@settings(max_examples=30)
def test_no_input_leaves_the_bounds(data: st.DataObject) -> None:
    network = data.draw(int8_networks())
    layer = network.layers[-1]
    assert isinstance(layer, Int8Layer)
    low, high = layer.accumulator_bounds()
    order = data.draw(st.permutations(range(layer.in_channels)))
    for values in (layer.weight > 0, layer.weight < 0):  # the inputs that reach the bounds
        sums = layer.bias.astype(np.int64)
        for channel in order:
            sums = sums + layer.weight[:, channel].astype(np.int64) * values[:, channel] * 255
            assert (low <= sums).all()
            assert (sums <= high).all()


@pytest.mark.parametrize("scale", [2.0**20, 2.0**120])
def test_results_fit_int32_before_they_are_clamped(scale: float) -> None:
    pointwise = {"kind": "pointwise", "activation": "relu", "weight": np.int8([[[[127]]]])}
    with pytest.raises(NetworkError, match=r"fc: the multipliers, .* reach 1.07374e\+09; the scal"):
        dense([127], 0, **pointwise, weight_scale=np.float32([scale]))
    accepted = dense([127], 0, **pointwise, weight_scale=np.float32([2.0**14]))
    assert accepted.multiplier == 2.0**14


def test_logits_only_have_to_be_finite() -> None:
    assert dense([127], 0, weight_scale=np.float32([2.0**112])).multiplier == 2.0**112
    with pytest.raises(NetworkError, match=r"fc: the multipliers, .* reach 1.70141e\+38; the scal"):
        dense([127], 0, weight_scale=np.float32([2.0**113]))


def test_multipliers_are_not_subnormal() -> None:
    layer = dense([127], 0, weight_scale=np.float32([2.0**-120]), input_scale=2.0**-6)
    assert layer.multiplier == np.finfo(np.float32).tiny
    with pytest.raises(NetworkError, match="results that are subnormal"):
        dense([127], 0, weight_scale=np.float32([2.0**-120]), input_scale=2.0**-7)


def test_an_infinite_multiplier_is_refused() -> None:
    """Even where the accumulator is always 0."""
    with pytest.raises(NetworkError, match="the multipliers, inf to inf"):
        dense([0], 0, weight_scale=np.float32([2.0**120]), input_scale=2.0**120)


@pytest.mark.parametrize("scales", [(0.1, 0.3, 0.7), (1.0, 1.0, 3.0), (0.5, 0.25, 0.125)])
def test_the_multiplier_is_rounded_from_float64(scales: tuple[float, float, float]) -> None:
    before, weight, after = (float(np.float32(scale)) for scale in scales)
    layer = Int8Layer(
        name="conv2.pointwise",
        kind="pointwise",
        activation="relu",
        in_channels=1,
        out_channels=1,
        weight=np.int8([[[[1]]]]),
        bias=np.int32([0]),
        weight_scale=np.float32([weight]),
        input_scale=before,
        output_scale=after,
    )
    exact = Fraction(before) * Fraction(weight) / Fraction(after)
    assert layer.multiplier.dtype == np.float32
    assert layer.multiplier.tolist() == [np.float32(float(exact))]


def test_the_pool_takes_as_many_pixels_as_int32_can_sum() -> None:
    pool = small_network().layers[-2]
    assert isinstance(pool, Int8Pool)
    assert INT32.max >= 255 * 2**23
    assert pool.multiplier(2**23) == np.float32(2.0**-23)
    for cells in (0, 2**23 + 1):
        with pytest.raises(ShapeError, match=f"the pool takes 1 to 8388608 pixels, got {cells}"):
            pool.multiplier(cells)


# --- contradictions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight": np.int8([[-128]])}, r"fc.weight: must be from -127 to 127, got -128"),
        ({"weight": np.int16([[1]])}, r"fc.weight: expected int8 \(1, 1\), got int16"),
        ({"weight": np.int8([1])}, r"fc.weight: expected int8 \(1, 1\), got int8 \(1,\)"),
        ({"bias": np.int64([1])}, r"fc.bias: expected int32 \(1,\), got int64"),
        ({"weight_scale": np.float32([0])}, "fc.weight_scale: must be above 0"),
        ({"weight_scale": np.float32([-1])}, "fc.weight_scale: must be above 0"),
        ({"weight_scale": np.float32([1e-45])}, "fc.weight_scale: .* not subnormal"),
        ({"weight_scale": np.float32([np.nan])}, "fc.weight_scale: holds values .* not finite"),
        ({"weight_scale": np.float64([1])}, "fc.weight_scale: expected float32"),
        ({"input_scale": 0.0}, "fc.input_scale: must be a finite float32 value above 0"),
        ({"input_scale": 0.1}, "fc.input_scale: must be a finite float32 value above 0"),
        ({"input_scale": float("inf")}, "fc.input_scale: must be a finite float32"),
        ({"input_scale": float("nan")}, "fc.input_scale: must be a finite float32"),
        ({"input_scale": 1e300}, "fc.input_scale: must be a finite float32"),
        ({"output_scale": 0.5}, "fc.output_scale: the classifier's is 1, got 0.5"),
    ],
)
def test_a_layer_that_is_out_of_range(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        dense([1], 0, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "name must be 1 to 100 letters"),
        ({"name": "a b"}, "name must be 1 to 100 letters, .* got 'a b'"),
        ({"kind": "convolution"}, "kind must be one of stem"),
        ({"in_channels": 0}, "in_channels must be a whole number from 1"),
        ({"stride": 3}, "stride must be a whole number from 1 to 2"),
        ({"padding": "valid"}, "padding must be one of symmetric, same"),
        ({"activation": "gelu"}, "activation must be one of relu, relu6"),
        ({"activation": None}, "activation must be one of relu, relu6"),
        ({"kind": "depthwise"}, "a: a depthwise layer has as many channels out as in, got 3 in"),
        ({"kind": "pointwise"}, "stride must be a whole number from 1 to 1"),
        ({"kind": "dense", "stride": 1}, "a: a dense layer has no activation"),
    ],
)
def test_a_structure_that_is_out_of_range(changes: dict[str, Any], reason: str) -> None:
    fields = {"name": "a", "kind": "stem", "in_channels": 3, "out_channels": 4}
    fields |= {"stride": 2, "activation": "relu"}
    assert Layer(**fields).weight_shape == (4, 3, 3, 3)
    with pytest.raises(ConfigError, match=reason):
        Layer(**(fields | changes))


def test_layers_that_do_not_fit_one_another() -> None:
    network = small_network()
    stem, *inner, pool, last = network.layers
    with pytest.raises(NetworkError, match=r"expected stem, pairs .* got none"):
        replace(network, layers=())
    for wrong in ((stem, pool), (stem, last), (*inner, pool, last), (stem, *inner[1:], pool, last)):
        with pytest.raises(NetworkError, match="expected stem, pairs of depthwise and pointwise"):
            replace(network, layers=wrong)
    with pytest.raises(NetworkError, match=r"the name conv1 stands there twice"):
        replace(network, layers=(stem, replace(inner[0], name="conv1"), *inner[1:], pool, last))
    with pytest.raises(NetworkError, match=r"conv4.0.depthwise: takes 4 channels, but conv1 befo"):
        replace(network, layers=(stem, *inner[6:], pool, last))
    with pytest.raises(NetworkError, match=r"conv1.input_scale: the first layer reads bytes"):
        replace(network, layers=(replace(stem, input_scale=0.5), *inner, pool, last))
    with pytest.raises(NetworkError, match=r"fc.input_scale: 0.5 is not the output scale of avgp"):
        replace(network, layers=(stem, *inner, pool, replace(last, input_scale=0.5)))
    with pytest.raises(CheckpointError, match="class_names: 2 names for a model of 3"):
        replace(network, class_names=("a", "b"))
    with pytest.raises(CheckpointError, match="preprocessing: L pictures have 1 channels"):
        replace(network, preprocessing=Preprocessing(8, color="L"))


@pytest.mark.parametrize(
    ("mean", "byte"), [(0.0, 0), (1.0, 255), (0.5, 128), (0.485, 124), (127 / 255, 127)]
)
def test_outside_is_the_byte_nearest_to_the_normalised_zero(mean: float, byte: int) -> None:
    network = replace(small_network(), preprocessing=Preprocessing(8, mean=(mean, 0, 1)))
    assert network.outside == (byte, 0, 255)


# --- the file --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file; tests damage it."""
    path = tmp_path / "model.int8.safetensors"
    write_network(path, small_network())
    return path


def assert_same(found: Int8Network, expected: Int8Network) -> None:
    assert found.description_fields() == expected.description_fields()
    assert len(found.layers) == len(expected.layers)
    for layer, other in zip(found.layers, expected.layers, strict=True):
        assert type(layer) is type(other)
        for name in type(layer).__dataclass_fields__:
            value, wanted = getattr(layer, name), getattr(other, name)
            assert getattr(value, "dtype", type(value)) == getattr(wanted, "dtype", type(wanted))
            np.testing.assert_array_equal(value, wanted)


@given(st.data())
@settings(max_examples=25)
def test_a_network_comes_back(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    network = data.draw(int8_networks())
    path = tmp_path_factory.mktemp("network") / "a.safetensors"
    write_network(path, network)
    found = read_network(path)
    assert_same(found, network)
    pixels = data.draw(images(network.layers[0].in_channels))
    np.testing.assert_array_equal(reference.run(found, pixels), reference.run(network, pixels))
    again = path.with_name("again.safetensors")
    write_network(again, found)
    assert again.read_bytes() == path.read_bytes()


def test_the_safetensors_library_reads_it_too(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, names = file.metadata(), set(file.keys())
        assert file.get_tensor("conv1.weight").dtype == np.int8
    assert (metadata["format"], metadata["version"]) == ("lucid-network", "1")
    assert len(names) == 27 * 4 + 1 + 3
    assert {"conv2.pointwise.output_scale", "avgpool.output_scale", "fc.weight_scale"} < names
    assert "fc.output_scale" not in names


def test_a_checkpoint_is_no_network(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is 'lucid-network', expected 'lucid-checkpoint'"):
        read_checkpoint(path)
    write_checkpoint(tmp_path / "a.safetensors", small_checkpoint())
    with pytest.raises(CheckpointError, match="expected 'lucid-network', which lucid"):
        read_network(tmp_path / "a.safetensors")


def change_fields(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        header, data = split_file(content)
        values = json.loads(header["__metadata__"]["lucid"])
        change(values)
        header["__metadata__"]["lucid"] = json.dumps(values)
        return join_file(header, data)

    return changed


def layer(index: int, **values: Any) -> Callable[[bytes], bytes]:
    return change_fields(lambda fields: fields["layers"][index].update(values))


def field(name: str, value: Any) -> Callable[[bytes], bytes]:
    return change_fields(lambda fields: fields.update({name: value}))


def tensor(name: str, content: bytes) -> Callable[[bytes], bytes]:
    """Other bytes for a tensor."""

    def changed(whole: bytes) -> bytes:
        header, data = split_file(whole)
        begin, end = header[name]["data_offsets"]
        assert len(content) == end - begin
        return join_file(header, data[:begin] + content + data[end:])

    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (field("layers", {}), "layers: expected a list of at most 1000 layers"),
        (field("layers", [{}] * 1001), "layers: expected a list of at most 1000 layers"),
        (field("layers", []), "layers: expected stem, pairs .* got none"),
        (field("layers", [1]), r"layers\[0\]: expected an object, got 1"),
        (field("arguments", {}), "a network has no argument 'arguments'"),
        (field("class_names", ["a"]), "class_names: 1 names for a model of 3"),
        (field("preprocessing", None), "preprocessing: expected an object"),
        (change_fields(lambda fields: fields.pop("metrics")), "needs the argument 'metrics'"),
        (layer(1, kernel=3), r"layers\[1\]: a layer has no argument 'kernel'"),
        (layer(1, kind=[]), r"layers\[1\]: kind must be one of"),
        (layer(1, name="\x1b"), r"layers\[1\]: name must be"),
        (layer(1, name="conv1"), "the name conv1 stands there twice"),
        (layer(1, in_channels=10**9), r"layers\[1\]: in_channels must be"),
        (layer(-1, in_channels=5), "fc: takes 5 channels, but avgpool before it gives 32"),
        (layer(-1, activation="relu"), "fc: a dense layer has no activation"),
        (layer(0, stride=True), r"layers\[0\]: stride must be"),
        (layer(0, name="other"), "tensor other.weight is missing"),
        (tensor("conv1.weight", b"\x80" * 27), "conv1.weight: must be from -127 to 127, got -128"),
        (tensor("conv1.output_scale", b"\0\0\xc0\x7f"), "conv1.output_scale: .* got nan"),
        (tensor("conv1.output_scale", b"\0\0\0\0"), "conv1.output_scale: .* got 0.0"),
        (tensor("conv1.weight_scale", b"\0\0\x80\xbf"), "conv1.weight_scale: must be above 0"),
        (tensor("conv1.bias", b"\xff\xff\xff\x7f"), "conv1: the accumulator of channel 0 could"),
        (lambda content: content[:-1], "truncated"),
        (lambda content: content + b"\0", "something was appended"),
    ],
)
def test_the_field_that_is_wrong_is_named(
    path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError) as error:
        read_network(path)
    assert str(error.value).startswith(f"{path}: ")
    assert re.search(reason, str(error.value))
