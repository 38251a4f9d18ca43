"""How training shows on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lucid.cli.terminal import console, printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lucid.training import EpochRow, Progress, StepState

_ROWS_PRINTED = 20  # of a run's epochs


@contextmanager
def training_display() -> Iterator[Progress]:
    """Progress bars on stderr; without a terminal, a line for every few epochs instead."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from lucid.training import Progress

    terminal = console(stderr=True)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    class Display(Progress):
        """Draws what training tells."""

        def message(self, text: str) -> None:
            terminal.print(f"lucid: {printable(text)}")

        def working(self, what: str, done: int, total: int) -> None:
            self._show(what, done, total, "")

        def step(self, state: StepState) -> None:
            done = (state.epoch - 1) * state.steps + state.step
            note = (
                f"epoch {state.epoch}, loss {state.loss:.3f}, top-1 {state.top1:.1%}, "
                f"{state.images_per_second:.0f} images/s"
            )
            self._show("training", done, state.epochs * state.steps, note)

        def epoch(self, row: EpochRow, epochs: int) -> None:
            if row.epoch % math.ceil(epochs / _ROWS_PRINTED) and row.epoch != epochs:
                return
            self.message(
                f"epoch {row.epoch}/{epochs}: loss {row.train_loss:.3f}, validation loss "
                f"{row.validation_loss:.3f}, top-1 {row.validation_top1:.1%}, "
                f"{row.images_per_second:.0f} images/s, {row.seconds:.0f} s"
            )

        def _show(self, what: str, done: int, total: int, note: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)
            if done >= total:
                bars.remove_task(tasks.pop(what))

    with bars:
        yield Display()
