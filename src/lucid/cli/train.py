"""``lucid train``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.terminal import console, printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lucid.training import EpochRow, Progress, StepState

_ROWS_PRINTED = 20  # of a run's epochs


@click.command("train")
@click.argument("data", metavar="DATA")
@click.option("--width", type=float, help="Width multiplier; 0.25, or that of --weights.")
@click.option("--resolution", type=int, help="Input side in pixels; 128, or that of --weights.")
@click.option(
    "--epochs",
    type=int,
    help="Passes over the photos; 100, with --weights 20; with --teacher 3 times as many.",
)
@click.option(
    "--weights", metavar="SOURCE", help="Start from this: a checkpoint, or what lucid import takes."
)
@click.option("--teacher", metavar="CHECKPOINT", help="Learn from this larger model's answers too.")
@click.option("--out", metavar="DIR", help="Folder of the run; runs/DATA-WIDTH-RESOLUTION.")
@click.option("--config", metavar="FILE", help="TOML file that sets keys of the recipe.")
@click.option("--seed", type=int, help="Of everything random but the split; 0.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", help="auto, cpu, cuda, ...")
def command(data: str, config: str | None, seed: int | None, **options: Any) -> None:
    """Train a MobileNet on DATA: a folder of class folders, a manifest or an archive.

    The run's folder gets model.safetensors, log.csv, tensorboard/, curves.png, recipe.toml,
    split.json and audit.json. Ctrl-C keeps the state; --resume goes on from it.
    """
    from lucid.training import read_recipe, train

    recipe = read_recipe(config) if config is not None else None
    if seed is not None:
        recipe = {**(recipe or {}), "seed": seed}
    with _display() as progress:
        result = train(data, recipe=recipe, progress=progress, **options)
    output = console()
    output.print(f"{result.checkpoint}: validation top-1 {result.top1:.1%}")
    words = ["lucid", "evaluate", str(result.checkpoint), data, "--report", "report.html"]
    output.print(f"next: {printable(shlex.join(words))}")


@contextmanager
def _display() -> Iterator[Progress]:
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
