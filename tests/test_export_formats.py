"""Every format in every precision answers as the reference does, whatever the network is."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.errors import ConfigError, MissingDependencyError, OutputError
from lucid.exporters import FORMATS, Examples, Exported, examples, export, verify
from lucid.exporters.verification import sample_pixels
from lucid.images import load
from lucid.network import FloatLayer, FloatNetwork, Int8Network
from lucid.quantization import measure_ranges, quantise

# OpenVINO looks for a host to tell otherwise.
os.environ.setdefault("CI", "true")

# Width, classes, resolution, the rest; both strides and paddings, one class and many, an odd side.
VARIANTS: dict[str, tuple[float, int, int, dict[str, Any]]] = {
    "symmetric": (1.0, 10, 32, {"padding": "symmetric", "last_stride": 2, "activation": "relu6"}),
    "same": (1.0, 10, 32, {"padding": "same", "last_stride": 1}),
    "one-class": (0.25, 1, 45, {"padding": "same", "last_stride": 2}),
    "many-classes": (0.25, 1000, 75, {"last_stride": 1}),
}
NETWORKS = (*VARIANTS, "imagenet", "flowers")
CASES = [
    pytest.param(name, network, precision, id=f"{name}-{network}-{precision}")
    for network in NETWORKS
    for name, format in FORMATS.items()
    for precision in format.precisions
]


@dataclass(frozen=True)
class Case:
    """A network, float and int8, and what the reference answers."""

    float32: FloatNetwork
    int8: Int8Network
    expected: dict[str, Examples]

    def network(self, precision: str) -> FloatNetwork | Int8Network:
        return self.int8 if precision == "int8" else self.float32


def case(network: FloatNetwork, pixels: np.ndarray[Any, Any], labels: Any = None) -> Case:
    int8 = quantise(network, measure_ranges(network, [pixels]))
    expected = examples(network, pixels, labels)
    assert expected.logits.std(axis=0).min() > 0.01, "else any network would pass"
    return Case(network, int8, {"float": expected, "int8": examples(int8, pixels, labels)})


def imported(shared: Path) -> FloatNetwork:
    from lucid.importers import import_weights
    from lucid.lowering import lower

    pytest.importorskip("torch")
    pytest.importorskip("ai_edge_litert")
    return lower(import_weights(shared / "models" / "mobilenet_v1_0.25_128_quant.tflite"))


def classified(network: FloatNetwork, flowers: Path) -> tuple[FloatNetwork, Any, Any]:
    """The network with a classifier of flowers, fitted to a few photos; other photos, labels."""
    linear = pytest.importorskip("sklearn.linear_model")
    folders = sorted(path for path in flowers.iterdir() if path.is_dir())
    photos, labels = [], []
    for label, folder in enumerate(folders):
        for path in sorted(folder.glob("*.jpg"))[::40][:16]:
            photos.append(load(path, network.preprocessing))
            labels.append(label)
    pixels, found = np.stack(photos), np.array(labels)
    *_, (_, features), _ = reference.trace(network, pixels)
    is_fitted = np.arange(len(found)) % 4 > 0
    fit = linear.LogisticRegression(max_iter=300).fit(features[is_fitted], found[is_fitted])
    dense = replace(
        network.layers[-1],
        out_channels=len(folders),
        weight=fit.coef_.astype(np.float32),
        bias=fit.intercept_.astype(np.float32),
    )
    assert isinstance(dense, FloatLayer)
    flowers_network = replace(
        network,
        layers=(*network.layers[:-1], dense),
        class_names=tuple(folder.name for folder in folders),
    )
    return flowers_network, pixels[~is_fitted], found[~is_fitted]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """Those that were made already."""
    return {}


def find(cases: dict[str, Case], name: str, request: pytest.FixtureRequest) -> Case:
    if name in cases:
        return cases[name]
    if name in VARIANTS:
        width, classes, side, variant = VARIANTS[name]
        network = settled_network(MobileNetArguments(width, classes, **variant), side)
        cases[name] = case(network, photo_like(4, side, side, seed=2))
    else:
        network = imported(request.getfixturevalue("shared"))
        if name == "imagenet":
            cases[name] = case(network, sample_pixels(network.preprocessing.resolution, 3)[:6])
        else:
            cases[name] = case(*classified(network, request.getfixturevalue("flowers")))
    return cases[name]


def skip_unless_installed(name: str) -> None:
    missing = FORMATS[name].missing(to_verify=True)
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}: pip install '.[{FORMATS[name].extra}]'")


@pytest.mark.parametrize(("name", "network", "precision"), CASES)
def test_a_file_answers_as_the_reference(
    name: str,
    network: str,
    precision: Any,
    cases: dict[str, Case],
    request: pytest.FixtureRequest,
) -> None:
    skip_unless_installed(name)
    found = find(cases, network, request)
    exported = export(found.network(precision), name, precision=precision)
    expected = found.expected["int8" if precision == "int8" else "float"]
    verifications = verify(exported, expected)
    assert verifications
    for one in verifications:
        assert one.passed, one
        assert one.agreement >= 0.75, one
        if network == "flowers":
            assert one.top1 is not None, one
            assert one.reference_top1 is not None, one
            assert one.reference_top1 > 0.5, one
            assert abs(one.top1 - one.reference_top1) <= 1 / one.images + 1e-9, one


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, one) for name in FORMATS for one in FORMATS[name].precisions if one != "float16"],
)
def test_a_wrong_file_is_found_out(name: str, precision: str) -> None:
    """The filters of an early depthwise layer are turned round."""
    skip_unless_installed(name)
    network: Any = settled_network(MobileNetArguments(0.25, 5), 32)
    if precision == "int8":
        network = quantise(network, measure_ranges(network, [photo_like(4, 32, 32)]))
    layer = network.layers[1]
    turned = replace(layer, weight=layer.weight[:, :, ::-1].copy())
    wrong = replace(network, layers=(network.layers[0], turned, *network.layers[2:]))
    expected = examples(network, photo_like(4, 32, 32))
    for one in verify(export(wrong, name), expected):
        assert not one.passed
        assert "differs by" in one.failure or "class" in one.failure, one


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_network_gives_the_same_bytes(name: str) -> None:
    skip_unless_installed(name)
    network = settled_network(MobileNetArguments(0.25, 5), 32)
    first, second = export(network, name).files, export(network, name).files
    assert first.keys() == second.keys()
    assert not [ending for ending, content in first.items() if second[ending] != content]


def test_no_two_formats_share_a_file() -> None:
    """All of one network lie side by side after --format all."""
    network = settled_network(MobileNetArguments(0.25, 2), 16)
    owners: dict[str, str] = {}
    for name, format in FORMATS.items():
        if format.missing():
            continue
        for top in {ending.partition("/")[0] for ending in export(network, name).files}:
            assert owners.setdefault(top, name) == name, f"{top}: {owners[top]} and {name}"
    assert owners


@pytest.fixture(scope="module")
def exported() -> Exported:
    """A stand-in, of which only the files matter."""
    network = settled_network(MobileNetArguments(0.25, 2), 16)
    return Exported(FORMATS["openvino"], "float32", network, {".xml": b"one", ".bin": b"two"})


def test_files_are_written_side_by_side(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for _ in range(2):
        paths = exported.write(folder / "a.b.xml")
        found = {path.name: path.read_bytes() for path in paths}
        assert found == {"a.b.xml": b"one", "a.b.bin": b"two"}
        assert sorted(path.name for path in folder.iterdir()) == ["a.b.bin", "a.b.xml"]


def test_a_package_is_replaced_whole(exported: Exported, tmp_path: Path) -> None:
    package = replace(exported, format=FORMATS["coreml"], files={".mlpackage/x/y": b"one"})
    out = tmp_path / "a.mlpackage"
    for content in (b"one", b"two"):
        replace(package, files={".mlpackage/x/y": content}).write(out)
        assert (out / "x" / "y").read_bytes() == content
    (out / "diary").write_text("mine")
    with pytest.raises(OutputError, match="holds diary, which is of no export"):
        package.write(out)
    assert (out / "x" / "y").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mlpackage"]


def test_what_is_in_the_way_stays(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OutputError, match=r"a\.bin: is a folder"):
        exported.write(tmp_path / "a.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_wrong_suffix(exported: Exported, tmp_path: Path) -> None:
    for name in ("a.onnx", ".xml", "a"):
        with pytest.raises(ConfigError, match=r"the name of OpenVINO files ends in \.xml"):
            exported.write(tmp_path / name)


def test_wrong_arguments() -> None:
    network = settled_network(MobileNetArguments(0.25, 2), 16)
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        export(network, "onx")
    with pytest.raises(ConfigError, match="lucid quantize"):
        export(network, "onnx", precision="int8")
    int8 = quantise(network, measure_ranges(network, [photo_like(2, 16, 16)]))
    with pytest.raises(ConfigError, match="precision float16 is for float networks"):
        export(int8, "onnx", precision="float16")
    with pytest.raises(ConfigError, match="resolution must be"):
        export(network, "onnx", resolution=0)


def test_float16_has_an_end() -> None:
    pytest.importorskip("onnx")
    network = settled_network(MobileNetArguments(0.25, 2), 16)
    dense = network.layers[-1]
    assert isinstance(dense, FloatLayer)
    large = replace(dense, bias=np.array([0, 70_000], np.float32))
    network = replace(network, layers=(*network.layers[:-1], large))
    with pytest.raises(ConfigError, match=r"fc\.bias: float16 ends at 65,504"):
        export(network, "onnx", precision="float16")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(FORMATS["onnx"], packages=("lucid_absent",))
    monkeypatch.setattr("lucid.exporters.exported.FORMATS", {"onnx": absent})
    with pytest.raises(MissingDependencyError, match=r"lucid_absent.*lucid-mobilenet\[onnx\]"):
        export(settled_network(MobileNetArguments(0.25, 2), 16), "onnx")
