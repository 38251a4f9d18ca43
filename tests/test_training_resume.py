"""A run that was killed, stopped or cut off while it wrote ends as one that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_helpers import QUICK, coloured_squares

from lucid.checkpoint import read_checkpoint
from lucid.errors import TrainingError
from lucid.training import train
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
    return timeless[0] == timeless[1] and checkpoints[0] == checkpoints[1]


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


def test_ctrl_c_keeps_the_state_and_resume_goes_on(
    squares: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "run", tmp_path / "recipe.toml"
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
    assert f"go on with --resume --out {out}" in " ".join(errors.split())
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
