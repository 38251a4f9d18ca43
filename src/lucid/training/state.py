"""The state of an unfinished run in one file: enough to go on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lucid.errors import TrainingError
from lucid.files import write_bytes
from lucid.training.progress import EpochRow

_FORMAT = "lucid-training-state"
_VERSION = "1"


@dataclass
class Position:
    """Where a run is, and what it has measured.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch under way.
        loss_sum, correct, seen: of the epoch under way, for its row in the log.
        seconds: of training so far.
        rows: the log.
        kept_epoch: the epoch whose weights are in the checkpoint; 0 before there is one.
        finished: whether training ended, by its number of epochs or early.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)
    kept_epoch: int = 0
    finished: bool = False


def save_state(
    path: Path,
    settings: Mapping[str, Any],
    position: Position,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state whole or not at all.

    Args:
        settings: JSON values that a resumed run must share.
        modules: by a name without a slash.
    Raises:
        OutputError: the folder can't be written.
    """
    tensors = {
        f"{name}/{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    for number, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{key}"] = value
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "state": json.dumps({"settings": settings, "position": asdict(position)}),
    }
    # safetensors refuses strided tensors such as channels-last weights.
    write_bytes(path, save({key: value.contiguous() for key, value in tensors.items()}, metadata))


def read_settings(path: Path) -> tuple[dict[str, Any], Position]:
    """Read what a run is and where it stands; raises TrainingError for a foreign or broken file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
            raise TrainingError(f"{path}: no training state of this version of lucid")
        state = json.loads(metadata["state"])
        rows = [EpochRow(**row) for row in state["position"].pop("rows")]
        return state["settings"], Position(**state["position"], rows=rows)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: there is no run to resume; leave --resume away to start one"
        ) from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: damaged training state ({error}); start again with another --out"
        ) from error


def restore_state(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Load what ``save_state`` wrote into ``modules`` and ``optimizer``; raises TrainingError."""
    try:
        with safe_open(path, "pt") as file:
            # Copies, since the tensors lie in the file itself: Windows would not let it be replaced
            # while the optimizer holds them.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            owner, _, name = key.partition("/")
            found.setdefault(owner, {})[name] = tensor
        slots: dict[int, dict[str, Tensor]] = {}
        for key, tensor in found.pop("optimizer", {}).items():
            number, _, name = key.partition("/")
            slots.setdefault(int(number), {})[name] = tensor
        for owner, module in modules.items():
            module.load_state_dict(found[owner])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise TrainingError(
            f"{path}: damaged training state ({error}); start again with another --out"
        ) from error
