"""Training as a whole: what a run leaves, that it learns, and what stops it early."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_helpers import COLOURS, QUICK, coloured_squares

from lucid.checkpoint import read_checkpoint
from lucid.data import open_data
from lucid.errors import ConfigError, DataError, DivergenceError, OutputError, TrainingError
from lucid.evaluation.measurement import select
from lucid.opening import load
from lucid.training import EpochRow, Progress, train

SMALL = {"width": 0.25, "resolution": 32}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def learned(squares: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("runs") / "learned"
    return train(squares, **SMALL, out=out, recipe=QUICK | {"epochs": 25})


def test_it_learns_and_the_checkpoint_predicts_alike(learned, squares: Path) -> None:
    assert learned.top1 == 1.0
    classifier = load(learned.checkpoint)
    names = json.loads((learned.folder / "split.json").read_text())["validation"]
    assert len(names) >= 6
    for name, one in zip(names, classifier.predict([squares / n for n in names]), strict=True):
        assert one.labels[0][0] == name.split("/")[0]
        assert one.labels[0][1] > 0.5


def test_a_run_leaves_what_the_documentation_says(learned) -> None:
    found = {path.name for path in learned.folder.iterdir()}
    assert found == {
        "model.safetensors",
        "state.safetensors",
        "log.csv",
        "tensorboard",
        "curves.png",
        "recipe.toml",
        "split.json",
        "audit.json",
    }
    rows = list(csv.DictReader((learned.folder / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 26))
    assert [float(row["validation_top1"]) for row in rows] == [
        row.validation_top1 for row in learned.rows
    ]
    assert list((learned.folder / "tensorboard").glob("events*"))
    checkpoint = read_checkpoint(learned.checkpoint)
    assert checkpoint.class_names == tuple(COLOURS)
    assert checkpoint.metrics["validation_top1"] == learned.top1
    assert checkpoint.provenance["recipe"]["epochs"] == 25


def test_the_same_command_gives_the_same_bytes(squares: Path, tmp_path: Path) -> None:
    recipe = QUICK | {"dropout": 0.2, "mixup": 0.2, "cutmix": 1.0, "erasing": 0.5}
    results = [train(squares, **SMALL, out=tmp_path / n, recipe=recipe) for n in ("one", "two")]
    first, second = (result.checkpoint.read_bytes() for result in results)
    assert first == second
    other = train(squares, **SMALL, out=tmp_path / "three", recipe=recipe | {"seed": 1})
    assert other.checkpoint.read_bytes() != first


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    squares: Path, tmp_path: Path
) -> None:
    recipe = QUICK | {"optimizer": "sgd", "clip_norm": 0.0, "learning_rate": 1e30}
    recipe |= {"warmup_epochs": 0, "average_decay": 0.0}
    with pytest.raises(DivergenceError, match=r"step \d.*learning rate.*learning_rate = 1e\+29"):
        train(squares, **SMALL, out=tmp_path / "run", recipe=recipe)
    # Nothing was learnt, so the folder is free for another try.
    train(squares, **SMALL, out=tmp_path / "run", recipe=QUICK | {"epochs": 1})

    class Breaks(Progress):
        """Spoils the weights after the first epoch."""

        def epoch(self, row: EpochRow, epochs: int) -> None:
            del row, epochs
            raise DivergenceError("epoch 2")

    with pytest.raises(DivergenceError, match=r"last good checkpoint is .*model\.safetensors"):
        train(squares, **SMALL, out=tmp_path / "late", recipe=QUICK, progress=Breaks())
    assert load(tmp_path / "late" / "model.safetensors").class_names == tuple(COLOURS)


def test_pretrained_backbone_is_frozen_at_first(learned, squares: Path, tmp_path: Path) -> None:
    recipe = QUICK | {"epochs": 1, "frozen_epochs": 1, "average_decay": 0.0}
    result = train(squares, weights=learned.checkpoint, out=tmp_path / "run", recipe=recipe)
    before, after = (
        read_checkpoint(path).tensors for path in (learned.checkpoint, result.checkpoint)
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    # The class names agree, so the classifier was kept: one epoch leaves it near.
    assert np.abs(before["fc.weight"] - after["fc.weight"]).max() < 0.2
    assert result.top1 == 1.0


def test_other_classes_get_a_new_classifier(learned, tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "data", images=5)
    (data / "green").rename(data / "grass")
    result = train(
        data, weights=learned.checkpoint, out=tmp_path / "run", recipe=QUICK | {"epochs": 1}
    )
    checkpoint = read_checkpoint(result.checkpoint)
    assert checkpoint.class_names == ("amber", "blue", "grass")
    assert checkpoint.preprocessing == read_checkpoint(learned.checkpoint).preprocessing


def test_the_decoder_asked_for_is_stored(squares: Path, tmp_path: Path) -> None:
    recipe = QUICK | {"epochs": 1, "decoder": "full"}
    result = train(squares, **SMALL, out=tmp_path / "run", recipe=recipe)
    assert read_checkpoint(result.checkpoint).preprocessing.decoder == "full"


def test_early_stopping_keeps_the_best_epoch(squares: Path, tmp_path: Path) -> None:
    recipe = QUICK | {"epochs": 60, "early_stopping": 2}
    result = train(squares, **SMALL, out=tmp_path / "run", recipe=recipe)
    best = max(row.validation_top1 for row in result.rows)
    assert len(result.rows) < 60
    assert result.top1 == best
    assert read_checkpoint(result.checkpoint).metrics["validation_top1"] == best
    assert read_checkpoint(result.checkpoint).provenance["epoch"] == len(result.rows) - 2


@pytest.mark.parametrize("key", ["loss", "sampling"])
def test_balance_runs_on_imbalanced_classes(key: str, tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "data", images=10)
    for number in range(3, 10):
        (data / "blue" / f"{number}.png").unlink()
    result = train(data, **SMALL, out=tmp_path / "run", recipe=QUICK | {"balance": key})
    assert len(result.rows) == QUICK["epochs"]


@pytest.mark.parametrize(("accumulate", "changes"), [(1, 8), (3, 4), (100, 2)])
def test_weights_change_once_the_gradients_are_added_up(
    accumulate: int, changes: int, squares: Path, tmp_path: Path
) -> None:
    recipe = QUICK | {"epochs": 2, "accumulate": accumulate}
    result = train(squares, **SMALL, out=tmp_path / "run", recipe=recipe)
    with safe_open(result.folder / "state.safetensors", "np") as state:
        assert state.get_tensor("optimizer/0/step") == changes  # of 4 steps an epoch, 2 epochs


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "data", images=6)
    (data / "blue" / "text.jpg").write_text("not a picture")
    lines: list[str] = []

    class Listens(Progress):
        def message(self, text: str) -> None:
            lines.append(text)

    train(data, **SMALL, out=tmp_path / "run", recipe=QUICK | {"epochs": 1}, progress=Listens())
    assert any("1" in line and "left out" in line for line in lines)
    assert "text.jpg" in (tmp_path / "run" / "audit.json").read_text()


def test_file_names_need_not_be_text(tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "dätä 数", images=4)
    for number, path in enumerate(sorted((data / "blue").iterdir())):
        path.rename(data / "blue" / os.fsdecode(b"\xff\x1b%d.png" % number))
    result = train(data, **SMALL, out=tmp_path / "läuf 1", recipe=QUICK | {"epochs": 1})
    names = read_checkpoint(result.checkpoint).provenance["validation"]
    assert any(name.startswith(r"blue/\udcff\x1b") for name in names)
    chosen = select(open_data(data), load(result.checkpoint))
    assert len(chosen.samples) == len(names)
    assert "as the checkpoint remembers" in chosen.description


def test_a_class_without_a_usable_picture_is_named(tmp_path: Path) -> None:
    data = coloured_squares(tmp_path / "data", images=4)
    for path in (data / "blue").iterdir():
        path.write_text("not a picture")
    lines: list[str] = []

    class Listens(Progress):
        def message(self, text: str) -> None:
            lines.append(text)

    result = train(
        data, **SMALL, out=tmp_path / "run", recipe=QUICK | {"epochs": 1}, progress=Listens()
    )
    assert "no usable picture to train on is left of the class 'blue'" in lines
    assert read_checkpoint(result.checkpoint).class_names == tuple(COLOURS)  # no label shifts


def test_bad_places_are_found_before_training(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        train(squares, **SMALL, out=tmp_path / "file" / "run", recipe=QUICK)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="free"):
        train(squares, **SMALL, out=tmp_path / "full", recipe=QUICK)


def test_bad_data_is_found_before_training(tmp_path: Path) -> None:
    one = coloured_squares(tmp_path / "one")
    for name in ("blue", "green"):
        for path in (one / name).iterdir():
            path.unlink()
        (one / name).rmdir()
    for data in (one, tmp_path / "missing"):
        with pytest.raises(DataError, match=data.name):
            train(data, **SMALL, out=tmp_path / "run", recipe=QUICK)
    assert not (tmp_path / "run").exists()


def test_bad_requests_are_refused(learned, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--resume or choose another --out"):
        train(squares, **SMALL, out=learned.folder, recipe=QUICK)
    with pytest.raises(TrainingError, match="no run to resume"):
        train(squares, out=tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match="resume needs out"):
        train(squares, resume=True)
    with pytest.raises(ConfigError, match="epochs is 99, but the run to resume has 25"):
        train(squares, out=learned.folder, epochs=99, resume=True)
    with pytest.raises(ConfigError, match="seed is 7, but the run to resume has 0"):
        train(squares, out=learned.folder, recipe={"seed": 7}, resume=True)
    with pytest.raises(TrainingError, match="not those that the run"):
        train(coloured_squares(tmp_path / "other", images=4), out=learned.folder, resume=True)
    with pytest.raises(ConfigError, match=r"width is 0\.5"):
        train(squares, width=0.5, weights=learned.checkpoint, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="width_multiplier"):
        train(squares, width=-1, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="resolution"):
        train(squares, resolution=0, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(squares, recipe={"precision": "bfloat16"}, device="cpu", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="device 'tpu9'"):
        train(squares, device="tpu9", out=tmp_path / "run")


def test_resuming_a_finished_run_changes_nothing(learned, squares: Path) -> None:
    before = learned.checkpoint.read_bytes()
    said_again = {"batch_size": QUICK["batch_size"]}
    again = train(squares, out=learned.folder, recipe=said_again, resume=True)
    assert again.rows == learned.rows
    assert learned.checkpoint.read_bytes() == before


def test_training_leaves_the_threads_and_gradients_of_torch_alone(learned) -> None:
    del learned
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
