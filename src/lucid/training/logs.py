"""What a run leaves for people to look at: log.csv, TensorBoard's events, curves.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lucid.errors import require
from lucid.files import write_text
from lucid.training.progress import EpochRow

_TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_top1": "top1/train",
    "validation_top1": "top1/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


class RunLog:
    """Writes every epoch of a run to log.csv and to the folder ``tensorboard``.

    Args:
        folder: of the run.
        epochs_done: rows that a resumed run has already; events after them are replaced.
    Raises:
        MissingDependencyError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, *, epochs_done: int = 0) -> None:
        require("tensorboard", extra="train")
        tensorboard = require("torch.utils.tensorboard", extra="train")
        self._csv = folder / "log.csv"
        self._events = tensorboard.SummaryWriter(
            str(folder / "tensorboard"), purge_step=epochs_done + 1
        )

    def write(self, rows: Sequence[EpochRow]) -> None:
        """Write all rows of the run; the last one is new."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[-1].to_dict()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)
        write_text(self._csv, text.getvalue())
        for column, tag in _TAGS.items():
            self._events.add_scalar(tag, getattr(rows[-1], column), rows[-1].epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
