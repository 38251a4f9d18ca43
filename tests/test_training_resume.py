"""A run that was killed, stopped or cut off while it wrote ends as one that never stopped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_helpers import QUICK, coloured_squares

from lucid import files
from lucid.checkpoint import read_checkpoint
from lucid.errors import OutputError, TrainingError
from lucid.training import EpochRow, Progress, StepState, loop, train
from lucid.training.state import read_settings

RECIPE = QUICK | {"dropout": 0.3, "policy": "trivial", "mixup": 0.3}
SMALL = {"width": 0.25, "resolution": 32}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")

# Runs in a process of its own, which ends itself where the test says.
CHILD = """
import os, pathlib, signal, sys
import lucid.training.loop as loop
from lucid.training import Progress, train

data, out, place = sys.argv[1:]
loop._SECONDS_BETWEEN_SAVES = 0.0

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class Killer(Progress):
    def step(self, state):
        if place == "epoch" and (state.epoch, state.step) == (2, 3):
            kill()

replace, replaced = pathlib.Path.replace, []

def replace_or_die(self, target):
    # The new bytes lie beside the old file, but have not taken its name.
    if str(target).endswith(place):
        replaced.append(target)
        if len(replaced) == 2:
            kill()
    return replace(self, target)

pathlib.Path.replace = replace_or_die
train(data, width=0.25, resolution=32, out=out, recipe=RECIPE, progress=Killer())
""".replace("RECIPE", repr(RECIPE))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("data") / "squares", images=10)


@pytest.fixture(scope="module")
def uninterrupted(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return train(squares, **SMALL, out=folder, recipe=RECIPE).folder


def same_result(first: Path, second: Path) -> bool:
    """Whether two runs left the same weights, averages, optimizer state and measurements."""
    states = [read_settings(folder / "state.safetensors")[1] for folder in (first, second)]
    timeless = [
        [(row.epoch, row.train_loss, row.train_top1, row.validation_loss) for row in state.rows]
        for state in states
    ]
    checkpoints = [(folder / "model.safetensors").read_bytes() for folder in (first, second)]
    tensors = [load_file(folder / "state.safetensors") for folder in (first, second)]
    assert tensors[0].keys() == tensors[1].keys()
    assert any(name.startswith("optimizer/") for name in tensors[0])
    different = [name for name, value in tensors[0].items() if not value.equal(tensors[1][name])]
    return timeless[0] == timeless[1] and checkpoints[0] == checkpoints[1] and not different


@pytest.mark.parametrize("place", ["epoch", "model.safetensors", "state.safetensors", "log.csv"])
def test_killed_and_resumed_is_bit_for_bit_the_same(
    place: str, squares: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    child = subprocess.run([sys.executable, "-c", CHILD, squares, out, place], check=False)
    assert child.returncode == -signal.SIGKILL
    _, position = read_settings(out / "state.safetensors")
    assert not position.finished
    if place == "epoch":
        assert (position.epoch, position.step) == (1, 2)
    train(squares, out=out, resume=True)
    assert same_result(out, uninterrupted)


class Stops(Progress):
    """Stops a run behind a step, before its state can be saved."""

    def __init__(self, epoch: int, step: int) -> None:
        self.place = (epoch, step)

    def step(self, state: StepState) -> None:
        if (state.epoch, state.step) == self.place:
            raise RuntimeError("stopped")


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer": "sgd", "cutmix": 1.0, "erasing": 0.5, "color_jitter": 0.3, "policy": "rand"},
        {"accumulate": 2, "average_decay": 0.0},
        {"early_stopping": 1, "epochs": 6},
        {"balance": "sampling", "policy": "trivial"},
        {"balance": "loss", "train_resolution": 0.75},
        {"frozen_epochs": 2, "optimizer": "sgd", "weights": True},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_every_option_resumes_bit_for_bit(
    keys: dict, squares: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_SAVES", 0.0)
    keys = dict(keys)
    settings = {"weights": uninterrupted / "model.safetensors"} if keys.pop("weights", 0) else SMALL
    settings = settings | {"recipe": QUICK | keys}
    whole = train(squares, **settings, out=tmp_path / "whole")
    for epoch, step in ((1, 1), (2, 2), (2, 3)):
        out = tmp_path / f"stopped-{epoch}-{step}"
        with pytest.raises(RuntimeError, match="stopped"):
            train(squares, **settings, out=out, progress=Stops(epoch, step))
        train(squares, out=out, resume=True)
        assert same_result(out, whole.folder), (epoch, step)


def test_a_full_disk_keeps_the_state(
    squares: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = files._flush

    class Fills(Progress):
        def epoch(self, row: EpochRow, epochs: int) -> None:
            del row, epochs

            def full(_: Path) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(files, "_flush", full)

    out = tmp_path / "run"
    with pytest.raises(OutputError, match=r"model\.safetensors: can't write .*make room"):
        train(squares, **SMALL, out=out, recipe=RECIPE, progress=Fills())
    monkeypatch.setattr(files, "_flush", flush)
    assert not list(out.glob(".lucid-*"))
    assert read_settings(out / "state.safetensors")[1].epoch == 1
    train(squares, out=out, resume=True)
    assert same_result(out, uninterrupted)


@pytest.mark.parametrize("phase", ["auditing", "decoding"])
def test_ctrl_c_before_training_leaves_nothing(
    phase: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_CACHE", str(tmp_path / "cache"))

    class Interrupts(Progress):
        def working(self, what: str, done: int, total: int) -> None:
            if what == phase and done == total // 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(squares, **SMALL, out=tmp_path / "out", recipe=RECIPE, progress=Interrupts())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_a_signal_that_was_ignored_stays_so() -> None:
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with loop._stop_signal() as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert stop.wait(1)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, kept)


def test_ctrl_c_keeps_the_state_and_resume_goes_on(
    squares: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "my run", tmp_path / "recipe.toml"
    config.write_text((uninterrupted / "recipe.toml").read_text())
    command = [sys.executable, "-m", "lucid", "train", squares, "--out", out]
    options = ["--width", "0.25", "--resolution", "32", "--config", config]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        while not (out / "state.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert f'go on with --resume --out "{out}"' in " ".join(errors.split())
    assert "Traceback" not in errors
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert same_result(out, uninterrupted)


def test_resume_needs_the_state_to_be_whole(squares: Path, uninterrupted: Path, tmp_path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    state = out / "state.safetensors"
    whole = (uninterrupted / "state.safetensors").read_bytes()
    foreign = (uninterrupted / "model.safetensors").read_bytes()
    for content in (b"", whole[:1000], whole[:-4], foreign, b"\x80\x04pickle"):
        state.write_bytes(content)
        with pytest.raises(TrainingError, match=r"state\.safetensors: (damaged|no training)"):
            train(squares, out=out, resume=True)
    assert read_checkpoint(uninterrupted / "model.safetensors").class_names
