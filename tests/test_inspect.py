"""``lucid inspect`` shows all that a checkpoint holds, at any width, and needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_helpers import small_checkpoint
from click.testing import CliRunner

from lucid.architecture import MODEL_NAMES, MobileNetArguments
from lucid.checkpoint import write_checkpoint
from lucid.cli import main
from lucid.images import Preprocessing
from lucid.models import MODELS
from lucid.network import layers, sized_layers, totals

Inspect = Callable[..., str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, small_checkpoint())
    return path


def inspect(*arguments: str | Path) -> str:
    """Standard output of a call that must end well."""
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*arguments: str | Path) -> str:
    """The one line on standard error of a call that must be refused."""
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("lucid: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_table_of_a_checkpoint(checkpoint):
    lines = [line.rstrip() for line in inspect(checkpoint).splitlines()]
    for part in (
        "width_multiplier=0.03125, num_classes=3, last_stride=2",
        "3: daisy, Löwenzahn, バラ",
        "resolution=32, crop_fraction=0.875",
        "loss=1, top1=0.5",
        "command=lucid train",
        'data={"images": [12, null, true]}',
    ):
        assert any(part in line for line in lines), part
    rows = {words[0]: words for line in lines if (words := line.split())}
    records = sized_layers(layers(MobileNetArguments(1 / 32, 3)), 32, 32)
    for layer in records:
        assert "x".join(map(str, layer.output_shape)) in rows[layer.name]
        assert f"{layer.parameters:,}" in rows[layer.name]
    sums = totals(records)
    assert [name for name, words in rows.items() if words[-1] == "peak"] == [sums.peak.name]
    assert rows["total,"][:3] == ["total,", "peak", f"{sums.parameters:,}"]


def test_json_of_a_checkpoint(checkpoint):
    found = json.loads(inspect(checkpoint, "--json"))
    stored = small_checkpoint()
    assert found["model"] == str(checkpoint)
    assert MobileNetArguments.from_dict(found["arguments"]) == stored.arguments
    assert tuple(found["class_names"]) == stored.class_names
    assert Preprocessing.from_dict(found["preprocessing"]) == stored.preprocessing
    assert found["metrics"] == stored.metrics
    assert found["provenance"] == stored.provenance
    assert found["resolution"] == 32
    records = sized_layers(layers(stored.arguments), 32, 32)
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in records]
    for layer, record in zip(found["layers"], records, strict=True):
        assert layer == {
            "name": record.name,
            "kind": record.kind,
            "input_shape": list(record.input_shape),
            "output_shape": list(record.output_shape),
            "kernel": list(record.window),
            "stride": record.stride,
            "parameters": record.parameters,
            "multiply_adds": record.multiply_adds,
            "activation_bytes": {"float32": 4 * record.activations, "uint8": record.activations},
        }
    sums = totals(records)
    assert found["totals"]["parameters"] == sums.parameters
    assert found["totals"]["multiply_adds"] == sums.multiply_adds
    peak = next(layer for layer in found["layers"] if layer["name"] == sums.peak.name)
    assert found["totals"]["peak"] == {key: peak[key] for key in ("name", "activation_bytes")}


def test_a_model_by_its_name():
    """The paper's numbers of the published variant, from the command line."""
    options = ("--width", "0.5", "--last-stride", "1", "--json")
    found = json.loads(inspect("mobilenet", *options))
    assert found["totals"]["parameters"] == 1_331_592
    assert found["resolution"] == 224
    assert found["class_names"] is None
    assert found["metrics"] is None
    found = json.loads(inspect("mobilenet", "--classes", "10", "--resolution", "96", "--json"))
    assert found["arguments"] == MobileNetArguments(1.0, 10).to_dict()
    assert found["layers"][0]["input_shape"] == [3, 96, 96]
    assert "533.83 M" in inspect("mobilenet").splitlines()[-1]


def test_names_are_those_of_the_models():
    assert tuple(MODELS) == MODEL_NAMES


def test_resolution_changes_costs_not_preprocessing(checkpoint):
    found = json.loads(inspect(checkpoint, "--resolution", "64", "--json"))
    assert found["resolution"] == 64
    assert found["preprocessing"]["resolution"] == 32
    assert found["layers"][0]["input_shape"] == [3, 64, 64]


def test_eighty_columns_hold_every_row(monkeypatch):
    """On a terminal each layer stays on one line, at the largest width and resolution published."""
    monkeypatch.setattr("lucid.cli.terminal._PIPE_WIDTH", 80)
    lines = inspect("mobilenet").splitlines()
    assert max(map(len, lines)) <= 80
    table = lines[lines.index("") :] if "" in lines else lines
    for layer in sized_layers(layers(MobileNetArguments(1.0)), 224, 224):
        row = next(line for line in table if line.startswith(layer.name))
        assert f"{layer.parameters:,}" in row
        assert "x".join(map(str, layer.output_shape)) in row


def test_many_classes_and_long_values_are_cut(tmp_path):
    path = tmp_path / "model.safetensors"
    names = tuple(f"class {number}" for number in range(1000))
    provenance = {"validation": [f"photo {number}.jpg" for number in range(1000)]}
    changes = {"class_names": names, "provenance": provenance}
    write_checkpoint(path, small_checkpoint(arguments=MobileNetArguments(1 / 32), **changes))
    text = inspect(path)
    assert "1,000: class 0, class 1," in text
    assert "class 9, and 990 more (all in --json)" in text
    assert "class 10" not in text
    assert "photo 0.jpg" in text
    assert "photo 99.jpg" not in text
    found = json.loads(inspect(path, "--json"))
    assert tuple(found["class_names"]) == names
    assert found["provenance"] == provenance


def test_names_do_not_steer_the_terminal(tmp_path):
    """Markup stays text, and an override of the writing direction is shown as what it is."""
    path = tmp_path / "model.safetensors"
    names = ("[red]x[/red]", ":smile:", "a\u202eb")
    write_checkpoint(path, small_checkpoint(class_names=names))
    assert r"3: [red]x[/red], :smile:, a\u202eb" in inspect(path)


def test_what_is_refused(checkpoint, tmp_path):
    assert "did you mean 'mobilenet'?" in refuse("mobilnet")
    missing = refuse(tmp_path / "nothing.safetensors")
    assert "no model and no file" in missing
    assert "models: mobilenet" in missing
    assert "leave out --width" in refuse(checkpoint, "--width", "0.5")
    assert "width_multiplier must be a number above 0" in refuse("mobilenet", "--width", "nan")
    assert "num_classes must be a whole number" in refuse("mobilenet", "--classes", "0")
    assert "--resolution" in refuse("mobilenet", "--resolution", "0")
    text = tmp_path / "notes.txt"
    text.write_text("no checkpoint")
    assert str(text) in refuse(text)


def test_a_file_may_have_the_name_of_a_model(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "mobilenet", small_checkpoint())
    monkeypatch.chdir(tmp_path)
    assert json.loads(inspect("mobilenet", "--json"))["class_names"] is None
    assert json.loads(inspect("./mobilenet", "--json"))["class_names"][0] == "daisy"


def test_needs_no_torch(checkpoint):
    code = (
        "import sys; sys.modules['torch'] = None; from lucid.cli import main; "
        "main(['inspect', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert "conv7.pointwise" in done.stdout
