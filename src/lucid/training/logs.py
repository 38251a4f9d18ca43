"""What a run leaves for people to look at: log.csv, TensorBoard's events, curves.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lucid.errors import OutputError, require
from lucid.evaluation import plots
from lucid.files import atomic_path, write_text
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
    """Writes every epoch of a run to log.csv and the folder ``tensorboard``, at its end the curves.

    Args:
        folder: of the run.
        rows: that a resumed run has already; events after them are replaced.
    Raises:
        MissingDependencyError: tensorboard or matplotlib is not installed.
    """

    def __init__(self, folder: Path, rows: Sequence[EpochRow] = ()) -> None:
        for module in ("matplotlib", "tensorboard"):
            require(module, extra="train")
        tensorboard = require("torch.utils.tensorboard", extra="train")
        self._folder = folder
        self._rows = rows
        with self._event_errors():
            self._events = tensorboard.SummaryWriter(
                str(folder / "tensorboard"), purge_step=len(rows) + 1
            )

    def write(self, rows: Sequence[EpochRow]) -> None:
        """Write all rows of the run; the last one is new. Raises OutputError."""
        self._rows = rows
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[-1].to_dict()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)
        write_text(self._folder / "log.csv", text.getvalue())
        with self._event_errors():
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
        # What stopped the run matters more than what can't be written after it.
        with suppress(OutputError) if error else nullcontext():
            self._draw()
        with suppress(OutputError) if error else nullcontext(), self._event_errors():
            self._events.close()

    def _draw(self) -> None:
        if self._rows:
            figure = plots.curves([row.to_dict() for row in self._rows])
            with atomic_path(self._folder / "curves.png") as path:
                figure.savefig(path, dpi=150)

    @contextmanager
    def _event_errors(self) -> Iterator[None]:
        """TensorBoard's own thread writes, and hands on what the system said."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{self._folder / 'tensorboard'}: can't write ({reason})") from error
