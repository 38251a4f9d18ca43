"""``lucid quantize``: which pictures it takes, what it writes, what bad input gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import small_checkpoint
from click.testing import CliRunner, Result
from photo_helpers import write_classes, write_photo
from prediction_helpers import PREPROCESSING, write_colour_checkpoint
from training_helpers import coloured_squares

from lucid import reference
from lucid.checkpoint import read_checkpoint, write_checkpoint
from lucid.cli import main
from lucid.data.sources import open_data
from lucid.errors import CheckpointError, ConfigError, DataError
from lucid.images import load
from lucid.importers import import_weights
from lucid.lowering import lower
from lucid.network import read_network
from lucid.quantization.images import affordable, load_images, open_pictures, ranked

HELD_OUT = ["amber/0.png", "amber/5.png", "blue/3.png", "green/1.png"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["quantize", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("squares") / "data", images=6)


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    return write_colour_checkpoint(data.parent / "model.safetensors", data, validation=HELD_OUT)


# --- the pictures --------------------------------------------------------------------------------


def test_classes_take_turns(data: Path) -> None:
    dataset = open_data(data)
    order = list(ranked(dataset, dataset.samples))
    assert sorted(one.path for one in order) == sorted(one.path for one in dataset.samples)
    assert [one.label for one in order] == [0, 1, 2] * 6
    assert list(ranked(dataset, dataset.samples[::-1])) == order
    assert list(ranked(dataset, dataset.samples, seed=1)) != order
    # One file less moves no other of its class.
    fewer = [one for one in dataset.samples if one != order[4]]
    assert [a for a in ranked(dataset, fewer) if a.label == 1] == [
        a for a in order if a.label == 1 and a != order[4]
    ]


def test_pictures_that_can_not_be_read_are_replaced(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3})
    dataset = open_data(tmp_path)
    order = list(ranked(dataset, dataset.samples))
    order[0].path.write_bytes(b"no picture")
    found = load_images(dataset, order, PREPROCESSING, 3)
    assert found.samples == tuple(order[1:4])
    assert found.pixels.shape == (3, 32, 32, 3)
    assert len(found.unreadable) == 1
    assert str(order[0].path) in found.unreadable[0]
    with pytest.raises(ConfigError, match="images must be a whole number from 1"):
        load_images(dataset, order, PREPROCESSING, 0)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / f"{number}.png", number)
    dataset = open_pictures(tmp_path)
    assert len(dataset.samples) == 3
    write_classes(tmp_path, {"a": 1, "b": 1})  # now it has classes, and loose pictures beside them
    assert open_pictures(tmp_path).class_names == ("a", "b")


def test_memory_limits_the_images() -> None:
    network = lower(small_checkpoint())
    assert affordable(network, 256) == 256
    large = small_checkpoint(preprocessing=type(PREPROCESSING)(8192))
    assert 1 <= affordable(lower(large), 256) < 50


# --- the command ---------------------------------------------------------------------------------


def test_a_network_is_written_that_computes_nearly_the_same(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "small.safetensors", tmp_path / "page.html"
    result = run(checkpoint, "--calibrate", data, "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    assert "top-1" in result.output
    assert "same class as float" in result.output
    network, source = read_network(out), read_checkpoint(checkpoint)
    assert network.class_names == source.class_names
    used = network.provenance["calibration"]
    dataset = open_data(data)
    names = {dataset.name(one.path) for one in dataset.samples}
    assert sorted(used["images"]) == sorted(names - set(HELD_OUT))
    pixels = np.stack([load(data / name, source.preprocessing) for name in used["images"]])
    assert used["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert network.metrics["images"] == len(HELD_OUT)
    float_logits, int8_logits = (reference.run(one, pixels) for one in (lower(source), network))
    assert np.abs(int8_logits - float_logits).max() < 0.1 * np.abs(float_logits).max()
    html = page.read_text()
    assert html.count("<figure>") == len(HELD_OUT)
    assert "conv5.3.depthwise" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_the_same_command_gives_the_same_bytes(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        arguments = ("--calibrate", data, "--out", path, "--images", 6, "--seed", seed)
        assert run(checkpoint, *arguments).exit_code == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes() != paths[2].read_bytes()


def test_json_and_other_data(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = coloured_squares(tmp_path / "other", images=2)
    out = tmp_path / "x.safetensors"
    arguments = ("--calibrate", data, "--images", 6, "--json", "--evaluate", other, "--out", out)
    result = run(checkpoint, *arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["images"] == 6
    assert values["float_top1"] == 1
    assert len(values["layers"]) == 29
    assert "warning: so few images" in result.stderr


def test_pictures_that_calibrated_are_counted(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    some = data.parent / "some.csv"
    some.write_text("path,label\n" + "".join(f"{data.name}/blue/{n}.png,blue\n" for n in range(4)))
    arguments = ("--calibrate", data, "--evaluate", some, "--out", tmp_path / "x.safetensors")
    result = run(checkpoint, *arguments)
    assert result.exit_code == 0, result.output
    assert "4 images, all of the data, 3 of them those of calibration" in result.stderr


def test_pictures_of_other_classes_compare_without_labels(checkpoint: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"cat": 4, "dog": 4})
    out = tmp_path / "x.safetensors"
    result = run(checkpoint, "--calibrate", tmp_path / "data", "--images", 5, "--out", out)
    assert result.exit_code == 0, result.output
    assert "top-1" not in result.stdout
    assert read_network(out).metrics["images"] == 3
    result = run(checkpoint, "--calibrate", tmp_path / "data", "--out", out)
    assert "as there are no others" in result.output


# --- what bad input gets -------------------------------------------------------------------------


def test_bad_input_is_one_line_and_writes_nothing(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    network = tmp_path / "network.safetensors"
    assert run(checkpoint, "--calibrate", data, "--images", 3, "--out", network).exit_code == 0
    grey = tmp_path / "grey.safetensors"
    write_checkpoint(grey, small_checkpoint())
    backbone = tmp_path / "backbone.safetensors"
    write_checkpoint(backbone, small_checkpoint(provenance={"classifier": False}))
    held_out = data.parent / "held-out.csv"
    held_out.write_text(f"path,label,split\n{data.name}/amber/0.png,amber,test\n")
    unreadable = tmp_path / "unreadable"
    for name in ("a", "b"):
        (unreadable / name).mkdir(parents=True)
        (unreadable / name / "x.jpg").write_bytes(b"no picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out.safetensors"
    blocked = tmp_path / "file"
    blocked.write_text("")
    for arguments, words in (
        ((checkpoint, "--calibrate", unreadable), "no picture of it can be used"),
        ((checkpoint, "--calibrate", empty), "there are no pictures in it"),
        ((checkpoint, "--calibrate", tmp_path / "missing"), "there is no such file or folder"),
        ((network, "--calibrate", data), "lucid-network"),
        ((checkpoint, "--calibrate", data, "--images", 0), "images must be a whole number"),
        ((checkpoint, "--calibrate", data, "--evaluate", empty), "there are no pictures in it"),
        ((grey, "--calibrate", data, "--evaluate", data), "does not know the data's"),
        ((checkpoint, "--calibrate", data, "--out", blocked / "x.safetensors"), "can't write here"),
        ((backbone, "--calibrate", data), "has no classifier yet; fine-tune it first"),
        ((checkpoint, "--calibrate", held_out), "all its pictures are for validation or test"),
        ((checkpoint, "--calibrate", data, "--report", checkpoint), "would replace what it is"),
        ((tmp_path / "no" / "x", "--calibrate", data), "can't be opened"),
        ((checkpoint,), "--calibrate"),
    ):
        given = arguments if "--out" in arguments else (*arguments, "--out", out)
        result = run(*given)
        assert result.exit_code == 2, result.output
        *_, last = result.stderr.strip().splitlines()
        assert words in last
        assert last.startswith("lucid: error: ")
        assert not out.exists()
    others = write_classes(tmp_path / "others", {"amber": 2, "bleu": 2})
    for arguments, words in (
        (("--finetune", empty), "there are no pictures"),
        (("--finetune", others), "does not know the classes 'bleu'"),
        (("--finetune", data, "--epochs", 0), "epochs must be"),
        (("--finetune", data, "--seed", -1), "seed must be"),
    ):
        early = run(checkpoint, "--calibrate", data, *arguments)
        assert early.exit_code == 2
        assert words in early.stderr
        assert early.stderr.count("\n") == 1, "said before the work"
    read_checkpoint(checkpoint)
    run(tmp_path / "no" / "x", "--calibrate", data)
    assert not (tmp_path / "no").exists(), "a folder for a network of no checkpoint"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".lucid")]


def test_networks_are_no_weights_to_train_from(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.safetensors"
    assert run(checkpoint, "--calibrate", data, "--images", 3, "--out", out).exit_code == 0
    with pytest.raises(CheckpointError, match="'lucid-network', expected 'lucid-checkpoint'"):
        import_weights(out)


def test_nothing_is_readable(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match="no picture of it can be used"):
        load_images(open_data(tmp_path), [], PREPROCESSING, 4)
