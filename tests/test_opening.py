"""Checkpoints and networks are opened by their content, and predict alike whatever runs them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
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
from lucid.engine import PRECISIONS, Engine
from lucid.errors import CheckpointError, ConfigError, LucidError, ShapeError
from lucid.evaluation.measurement import evaluate, select
from lucid.images import load as load_image
from lucid.lowering import lower
from lucid.network import read_network, write_network
from lucid.opening import RUNTIMES
from lucid.prediction import Classified, Prediction
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
    expected = lucid.load(files["checkpoint"], "torch")
    assert isinstance(expected, Classifier)
    titles = {
        "checkpoint": "MobileNet, width multiplier 0.25, in float32",
        "float32": "float32 network",
        "int8": "int8 network",
    }
    for kind, title in titles.items():
        opened = lucid.load(files[kind])
        assert isinstance(opened, Engine)
        assert opened.title == title
        assert opened.class_names == expected.class_names
        assert opened.preprocessing == expected.preprocessing
        assert opened.threads == Engine(files[kind], threads=None).threads


def test_logits(files: dict[str, Path], pixels: np.ndarray) -> None:
    expected = lucid.load(files["checkpoint"], "torch")(pixels)
    for kind in ("checkpoint", "float32"):
        found = lucid.load(files[kind])(pixels)
        assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)
    found = lucid.load(files["int8"])(pixels)
    assert np.array_equal(found, reference.run(read_network(files["int8"]), pixels))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9
    for opened in (lucid.load(files["int8"]), lucid.load(files["checkpoint"], "torch")):
        assert opened(pixels[0]).shape == (3,)
        assert opened(pixels[:0]).shape == (0, 3)
        with pytest.raises(ShapeError, match=r"expects uint8 images \(N, "):
            opened(pixels[..., 0])


def test_precision_and_threads(files: dict[str, Path], pixels: np.ndarray) -> None:
    exact = lucid.load(files["checkpoint"])(pixels)
    opened = lucid.load(files["checkpoint"], precision="bfloat16", threads=2)
    assert (opened.precision, opened.threads) == ("bfloat16", 2)
    found = opened(pixels)
    assert not np.array_equal(found, exact)
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98
    with pytest.raises(ConfigError, match="run: lucid quantize"):
        lucid.load(files["checkpoint"], precision="int8")


def test_the_model_of_a_checkpoint(files: dict[str, Path], pixels: np.ndarray) -> None:
    opened = lucid.load(files["checkpoint"])
    assert opened.model is opened.model
    expected = Classifier(opened.model, opened.class_names, opened.preprocessing)(pixels)
    assert np.abs(opened(pixels) - expected).max() < 1e-5 * np.ptp(expected)
    with pytest.raises(ConfigError, match="open the checkpoint it was made of"):
        _ = lucid.load(files["int8"]).model


def test_what_torch_can_not_run(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"int8\.bin: a network, which only the native engine"):
        lucid.load(files["int8"], "torch")
    with pytest.raises(ConfigError, match=r"for the native engine; .*torch\.set_num_threads"):
        lucid.load(files["checkpoint"], "torch", threads=2)
    with pytest.raises(ConfigError, match="engine must be one of"):
        lucid.load(files["checkpoint"], "tensorflow")


def test_an_installation_without_the_engine_says_so(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never runs something else instead; what PyTorch was asked for still works."""
    monkeypatch.setitem(sys.modules, "lucid._native", None)
    for path in files.values():
        result = CliRunner().invoke(main, ["predict", str(path), "x.jpg"])
        assert result.exit_code == 2
        assert result.stderr.startswith("lucid: error: this installation of lucid has no native")
        assert result.stderr.count("\n") == 1
    assert lucid.load(files["checkpoint"], "torch").class_names


def test_class_activation_maps(files: dict[str, Path], pixels: np.ndarray) -> None:
    classes = np.arange(len(pixels)) % 3
    model = lucid.load(files["checkpoint"], "torch")
    expected = model.class_activation_map(pixels, classes)
    assert expected.shape == (12, 2, 2)
    for kind in ("checkpoint", "float32"):
        opened = lucid.load(files[kind])
        assert opened.map_side == model.map_side == 2
        found = opened.class_activation_map(pixels, classes)
        assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_class_activation_maps_in_int8(files: dict[str, Path], pixels: np.ndarray) -> None:
    """The mean of a map and the bias are the logit, but for the pool's rounding."""
    classifier = lucid.load(files["int8"])
    logits = classifier(pixels)
    for k in range(3):
        maps = classifier.class_activation_map(pixels, np.full(len(pixels), k))
        dense = read_network(files["int8"]).layers[-1]
        means = maps.mean((1, 2)) + dense.bias[k] * dense.multiplier[k]
        step = dense.input_scale / 2 * np.abs(dense.weight[k] * dense.weight_scale[k]).sum()
        assert np.abs(means - logits[:, k]).max() < step
        assert step < np.ptp(logits)


def test_predictions_and_evaluation(files: dict[str, Path], data: Path) -> None:
    dataset = open_data(data)
    for classifier in map(lucid.load, files.values()):
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


@pytest.mark.parametrize("kind", ["checkpoint", "float32", "int8"])
def test_predicting_needs_no_torch(kind: str, files: dict[str, Path], data: Path) -> None:
    arguments = ["predict", str(files[kind]), str(data), "--json"]
    result = run_without_extras(f"from lucid.cli import main\nmain({arguments!r})")
    assert result.returncode == 0, result.stderr
    assert result.stdout == CliRunner().invoke(main, arguments).stdout
    assert len(json.loads(result.stdout)) == 12


_REFUSE_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize("kind", ["checkpoint", "int8"])
def test_measuring_needs_no_torch(kind: str, files: dict[str, Path], data: Path) -> None:
    arguments = ["evaluate", str(files[kind]), str(data), "--json"]
    # Of the extra, scikit-learn is needed; it asks SciPy for numbers, which looks for PyTorch too.
    program = f"{_REFUSE_TORCH}from lucid.cli import main\nmain({arguments!r})"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == CliRunner().invoke(main, arguments).stdout
    assert json.loads(result.stdout)["metrics"]["images"] == 12


def test_torch_is_named_when_it_is_asked_for(files: dict[str, Path]) -> None:
    path = str(files["checkpoint"])
    result = run_without_extras(f"import lucid\nlucid.load({path!r}, 'torch')")
    assert "pip install 'lucid-mobilenet[train]'" in result.stderr


def test_options_of_the_commands(files: dict[str, Path], data: Path) -> None:
    def labels(*options: str) -> list[str]:
        words = ["predict", str(files["checkpoint"]), str(data), "--csv", "--top", "1"]
        result = CliRunner().invoke(main, [*words, *options])
        assert result.exit_code == 0, result.output
        return [row["label"] for row in csv.DictReader(io.StringIO(result.stdout))]

    expected = labels("--engine", "torch")
    assert len(set(expected)) > 1
    assert labels() == labels("--threads", "2") == labels("--precision", "bfloat16") == expected
    for options in (["--engine", "torch", "--threads", "2"], ["--precision", "int8"]):
        for name in ("predict", "evaluate"):
            words = [name, str(files["checkpoint"]), str(data), *options]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 2
            assert result.stderr.startswith("lucid: error: ")
            assert result.stderr.count("\n") == 1
    for option, known in (("engine", RUNTIMES), ("precision", PRECISIONS)):
        command = main.get_command(click.Context(main), "predict")
        (found,) = (one for one in command.params if one.name == option)
        assert set(found.type.choices) == set(known)


def test_results_come_while_the_work_goes_on(
    files: dict[str, Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle leaves what was answered before it."""
    pictures = sorted(map(str, data.rglob("*.png")))
    prediction = Engine.prediction

    def fail_at_the_last(engine: Engine, one: Classified, top: int) -> Prediction:
        if one.source == pictures[-1]:
            raise LucidError("enough")
        return prediction(engine, one, top)

    monkeypatch.setattr(Engine, "prediction", fail_at_the_last)
    for layout in ("--csv", "--json"):
        words = ["predict", str(files["int8"]), str(data), "--top", "1", layout]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert [path in result.stdout for path in pictures] == [True] * 11 + [False]


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
