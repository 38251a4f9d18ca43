"""``lucid export``: what it writes, what it keeps aside, what bad input gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_helpers import small_checkpoint
from click.testing import CliRunner, Result
from prediction_helpers import write_colour_checkpoint
from test_imports import run_without_extras
from training_helpers import coloured_squares

from lucid.checkpoint import read_checkpoint, write_checkpoint
from lucid.cli import main
from lucid.exporters import FORMATS
from lucid.exporters.exported import open_network
from lucid.images import load
from lucid.network import FloatLayer, write_network
from lucid.quantization import measure_ranges, quantise

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

HELD_OUT = ["amber/0.png", "amber/5.png", "blue/3.png", "green/1.png"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("squares") / "data", images=6)


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    return write_colour_checkpoint(data.parent / "model.safetensors", data, validation=HELD_OUT)


@pytest.fixture(scope="module")
def int8(data: Path, checkpoint: Path) -> Path:
    network: Any = open_network(checkpoint)
    pixels = np.stack([load(path, network.preprocessing) for path in sorted(data.rglob("*.png"))])
    path = data.parent / "model.int8.safetensors"
    write_network(path, quantise(network, measure_ranges(network, [pixels])))
    return path


@pytest.fixture
def only_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all other formats' packages were missing."""
    for name, format in FORMATS.items():
        if name != "onnx":
            absent = replace(format, packages=("lucid_absent",))
            monkeypatch.setattr("lucid.cli.export.FORMATS", changed(name, absent))


def changed(name: str, format: Any) -> dict[str, Any]:
    from lucid.cli import export

    return {**export.FORMATS, name: format}


@pytest.fixture
def wrong_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX files get the classifier's weights with the sign turned."""
    from lucid.exporters import onnx

    right = onnx.to_onnx

    def wrong(network: Any, **options: Any) -> bytes:
        dense = network.layers[-1]
        assert isinstance(dense, FloatLayer)
        turned = replace(dense, weight=-dense.weight)
        return right(replace(network, layers=(*network.layers[:-1], turned)), **options)

    monkeypatch.setattr(onnx, "to_onnx", wrong)


def test_a_file_beside_the_checkpoint(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    result = run(copy, "--format", "onnx", "--verify", data, "--json")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]
    found = json.loads(result.stdout)
    assert "4 images" in found["images"]
    assert "the validation part of the data" in found["images"]
    (file,) = found["files"]
    assert file["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert file["verification"]["top1"] == file["verification"]["reference_top1"] == 1.0
    assert 0 < file["verification"]["difference"] < 1e-4


def test_the_file_names_the_classes(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """As someone uses it who has nothing but the file."""
    out = tmp_path / "net.onnx"
    assert run(checkpoint, "--format", "onnx", "--out", out, "--no-verify").exit_code == 0
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    names = json.loads(metadata["class_names"])
    (taken,) = session.get_inputs()
    assert taken.type == "tensor(uint8)"
    side = json.loads(metadata["preprocessing"])["resolution"]
    assert taken.shape == ["batch", side, side, 3]
    preprocessing = read_checkpoint(checkpoint).preprocessing
    for path in (data / name for name in HELD_OUT):
        logits = session.run(None, {taken.name: load(path, preprocessing)[None]})[0]
        assert names[logits.argmax()] == path.parent.name


def test_float16_is_half_as_large(checkpoint: Path, tmp_path: Path) -> None:
    for precision in ("float32", "float16"):
        out = tmp_path / f"{precision}.onnx"
        result = run(checkpoint, "--format", "onnx", "--precision", precision, "--out", out)
        assert result.exit_code == 0, result.output
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float16", "float32")]
    assert sizes[0] < 0.6 * sizes[1]


def test_another_resolution(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    result = run(checkpoint, "--format", "onnx", "--resolution", 45, "--out", out)
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [45, 45, 3]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["preprocessing"])["resolution"] == 45


@pytest.mark.usefixtures("only_onnx")
def test_all_with_a_report(checkpoint: Path, int8: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    result = run(
        *(checkpoint, int8, "--format", "all", "--out", tmp_path / "new"),
        *("--verify", data, "--report", page),
    )
    assert result.exit_code == 0, result.output
    assert "coreml is left out: it needs lucid_absent; run: pip install" in result.stderr
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["model.float16.onnx", "model.int8.onnx", "model.onnx"]
    text = page.read_text()
    assert 'src="http' not in text
    assert 'href="http' not in text
    for word in ("ONNX Runtime", "float16", "the same bits", "top-1, %", "latency"):
        assert word in text, word


@pytest.mark.usefixtures("wrong_writer")
def test_a_wrong_file_is_kept_aside(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    out.write_bytes(b"older")
    result = run(checkpoint, "--format", "onnx", "--out", out)
    assert result.exit_code == 1
    assert "a logit differs by" in result.stderr
    assert out.read_bytes() == b"older"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["net.onnx", "net.rejected.onnx"]


def test_an_interruption_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "net.onnx"
    for place in ("lucid.exporters.verification.verify", "lucid.exporters.exported._write"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            result = run(checkpoint, "--format", "onnx", "--out", out)
        assert result.exit_code == 130, result.output
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "onx"], "'onx' is not one of"),
        (["--format", "onnx", "--precision", "int8"], "lucid quantize CHECKPOINT"),
        (["--format", "onnx", "--out", "net.tflite"], "net.tflite: the name of ONNX files ends in"),
        (["--format", "onnx", "--resolution", "9000"], "resolution must be"),
        (["--format", "onnx", "--no-verify", "--verify", "x"], "exclude each other"),
        (["--format", "onnx", "--verify", "absent"], "absent"),
        (["--format", "onnx", "--out", "/proc/absent/net.onnx"], "can't write here"),
    ],
)
def test_bad_input(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(checkpoint, *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) <= 2  # what it verifies on, and the error
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_suffix_is_said_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    """The reference's answers for thousands of photos take minutes."""
    result = run(checkpoint, "--format", "onnx", "--out", tmp_path / "net.tflite")
    assert result.exit_code == 2, result.output
    assert "verifying on" not in result.stderr
    assert "the name of ONNX files ends in .onnx" in result.stderr


def test_sources_that_can_not_be_exported(checkpoint: Path, int8: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        result = run(*arguments, "--format", "onnx")
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "can't be opened" in error(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no network")
    assert "text.safetensors" in error(tmp_path / "text.safetensors")
    assert "precision float16 is for float networks" in error(int8, "--precision", "float16")
    backbone = tmp_path / "backbone.safetensors"
    write_checkpoint(backbone, small_checkpoint(provenance={"classifier": False}))
    assert f"lucid train DATA --weights {backbone}" in error(backbone)
    twice = tmp_path / "more" / checkpoint.name
    twice.parent.mkdir()
    twice.write_bytes(checkpoint.read_bytes())
    assert "would be written twice" in error(checkpoint, twice, "--out", tmp_path / "new")
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(checkpoint.read_bytes())
    assert "would replace what it is made from" in error(onnx)
    assert onnx.read_bytes() == checkpoint.read_bytes()


def test_without_class_names(tmp_path: Path, checkpoint: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = ("class 0", "class 1", "class 2")
    write_checkpoint(path, replace(read_checkpoint(checkpoint), class_names=names))
    result = run(path, "--format", "onnx", "--no-verify")
    assert result.exit_code == 0, result.output
    assert "has no class names, so the files number them" in result.stderr


def test_a_missing_extra_is_named(checkpoint: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "net.onnx")
    call = ["export", str(checkpoint), "--format", "onnx", "--out", out]
    result = run_without_extras(f"from lucid.cli import main\nmain({call!r})")
    assert result.returncode == 2
    assert (
        result.stderr.strip().splitlines()[-1].endswith("run: pip install 'lucid-mobilenet[onnx]'")
    )
    assert list(tmp_path.iterdir()) == []
