"""Networks are opened by their content and have the same face as checkpoints, without PyTorch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from prediction_helpers import write_colour_checkpoint
from test_imports import run_without_extras
from training_helpers import coloured_squares

import lucid
from lucid import reference
from lucid.checkpoint import read_checkpoint, write_checkpoint
from lucid.classifier import Classifier
from lucid.cli import main
from lucid.data.sources import open_data
from lucid.errors import CheckpointError, ShapeError
from lucid.evaluation.measurement import evaluate, select
from lucid.images import load as load_image
from lucid.lowering import lower
from lucid.network import read_network, write_network
from lucid.opening import NetworkClassifier
from lucid.quantization import quantise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("data") / "squares", images=4)


@pytest.fixture(scope="module")
def files(data: Path) -> dict[str, Path]:
    """One model as a checkpoint, a float network and an int8 network; names say nothing of it."""
    found = {kind: data.parent / f"{kind}.bin" for kind in ("checkpoint", "float32", "int8")}
    small = read_checkpoint(write_colour_checkpoint(data.parent / "small", data))
    # At 64 pixels class-activation maps have more than one cell.
    preprocessing = replace(small.preprocessing, resolution=64)
    write_checkpoint(found["checkpoint"], replace(small, preprocessing=preprocessing))
    network = lower(read_checkpoint(found["checkpoint"]))
    write_network(found["float32"], network)
    pixels = np.stack([load_image(path, network.preprocessing) for path in data.rglob("*.png")])
    outputs = list(reference.trace(network, pixels))[:-1]  # logits are not rounded
    ranges = {layer.name: float(output.max()) for layer, output in outputs}
    write_network(found["int8"], quantise(network, ranges))
    return found


@pytest.fixture(scope="module")
def pixels(data: Path, files: dict[str, Path]) -> np.ndarray:
    preprocessing = read_network(files["int8"]).preprocessing
    return np.stack([load_image(path, preprocessing) for path in sorted(data.rglob("*.png"))])


def test_what_a_file_is_opened_as(files: dict[str, Path]) -> None:
    assert isinstance(lucid.load(files["checkpoint"]), Classifier)
    for kind in ("float32", "int8"):
        opened = lucid.load(files[kind])
        assert isinstance(opened, NetworkClassifier)
        assert opened.title == f"{kind} network"
        assert opened.class_names == lucid.load(files["checkpoint"]).class_names
        assert opened.preprocessing == lucid.load(files["checkpoint"]).preprocessing


def test_logits(files: dict[str, Path], pixels: np.ndarray) -> None:
    expected = lucid.load(files["checkpoint"])(pixels)
    found = lucid.load(files["float32"])(pixels)
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)
    found = lucid.load(files["int8"])(pixels)
    assert np.array_equal(found, reference.run(read_network(files["int8"]), pixels))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9
    assert lucid.load(files["int8"])(pixels[0]).shape == (1, 3)
    assert lucid.load(files["int8"])(pixels[:0]).shape == (0, 3)
    with pytest.raises(ShapeError, match=r"expects uint8 images \(N, 64, 64, 3\)"):
        lucid.load(files["int8"])(pixels[:, 1:])


def test_class_activation_maps(files: dict[str, Path], pixels: np.ndarray) -> None:
    classes = np.arange(len(pixels)) % 3
    model = lucid.load(files["checkpoint"])
    expected = model.class_activation_map(pixels, classes)
    assert expected.shape == (12, 2, 2)
    network = lucid.load(files["float32"])
    assert network.map_side == model.map_side == 2
    found = network.class_activation_map(pixels, classes)
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_class_activation_maps_in_int8(files: dict[str, Path], pixels: np.ndarray) -> None:
    """The mean of a map and the bias are the logit, but for the pool's rounding."""
    classifier = lucid.load(files["int8"])
    logits = classifier(pixels)
    for k in range(3):
        maps = classifier.class_activation_map(pixels, np.full(len(pixels), k))
        dense = classifier.network.layers[-1]
        means = maps.mean((1, 2)) + dense.bias[k] * dense.multiplier[k]
        step = dense.input_scale / 2 * np.abs(dense.weight[k] * dense.weight_scale[k]).sum()
        assert np.abs(means - logits[:, k]).max() < step
        assert step < np.ptp(logits)


def test_predictions_and_evaluation(files: dict[str, Path], data: Path) -> None:
    dataset = open_data(data)
    for kind in ("float32", "int8"):
        classifier = lucid.load(files[kind])
        samples = select(dataset, classifier).samples
        predicted = classifier.predict([sample.path for sample in samples], top=1)
        hits = sum(
            one.labels[0][0] == classifier.class_names[sample.label]
            for one, sample in zip(predicted, samples, strict=True)
        )
        metrics = evaluate(classifier, samples).metrics
        assert (metrics.images, metrics.top1.hits) == (12, hits)


def test_commands(files: dict[str, Path], data: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    path = str(files["int8"])
    report = tmp_path / "report.html"
    result = run(main, ["evaluate", path, str(data), "--report", str(report), "--json"])
    assert result.exit_code == 0, result.output
    assert "int8 network, resolution 64, 3 classes" in report.read_text()
    result = run(main, ["predict", path, str(data / "blue"), "--explain", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert len(answers) == 4
    assert all(Path(one["explanation"]).exists() for one in answers)


def test_no_torch_is_needed(files: dict[str, Path], data: Path) -> None:
    picture = next(data.rglob("*.png"))
    code = f"""
import lucid
(one,) = lucid.load({str(files["int8"])!r}).predict([{str(picture)!r}])
print(*(name for name, _ in one.labels))
lucid.load({str(files["checkpoint"])!r})
"""
    result = run_without_extras(code)
    (expected,) = lucid.load(files["int8"]).predict([picture])
    assert result.stdout.split() == [name for name, _ in expected.labels], result.stderr
    assert "pip install 'lucid-mobilenet[train]'" in result.stderr


def test_foreign_files(files: dict[str, Path], tmp_path: Path) -> None:
    for content in (b"", b"\x80\x04 pickle", files["int8"].read_bytes()[:-1]):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(CheckpointError, match="x: "):
            lucid.load(tmp_path / "x")


def test_inspection(files: dict[str, Path]) -> None:
    run = CliRunner().invoke
    network = read_network(files["int8"])
    shown = json.loads(run(main, ["inspect", str(files["int8"]), "--json"]).stdout)
    assert (shown["precision"], shown["arguments"], shown["resolution"]) == ("int8", None, 64)
    assert shown["class_names"] == list(network.class_names)
    for layer, record in zip(network.layers, shown["layers"], strict=True):
        assert (record["name"], record["output_scale"]) == (layer.name, layer.output_scale)
        if layer.kind != "pool":
            steps = layer.weight_scale
            assert record["weight_scale"] == [float(steps.min()), float(steps.max())]
    table = run(main, ["inspect", str(files["int8"])]).stdout
    assert "int8, 29 layers" in table
    assert f"{files['int8'].stat().st_size:,} bytes" in table
    assert f"{network.layers[0].output_scale:.3g}" in table
    shown = json.loads(run(main, ["inspect", str(files["float32"]), "--json"]).stdout)
    assert shown["precision"] == "float32"
    assert "output_scale" not in shown["layers"][0]
    for words in (["inspect", "--width", "1"], ["chart"]):
        refused = run(main, [*words, str(files["int8"])])
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"lucid: error: {files['int8']}: a ")
