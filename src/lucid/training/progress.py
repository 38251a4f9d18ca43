"""How training tells what it does, without printing anything itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class EpochRow:
    """One row of log.csv.

    Losses are cross entropies in nats, but for the train loss with a teacher, which is the mixed
    one; top-1 a share from 0 to 1, seconds are those since training began.
    """

    epoch: int
    train_loss: float
    train_top1: float
    validation_loss: float
    validation_top1: float
    learning_rate: float
    images_per_second: float
    seconds: float

    def to_dict(self) -> dict[str, float]:
        """The columns by name."""
        return asdict(self)


@dataclass(frozen=True)
class StepState:
    """Where training is: the step just done, running means of the epoch, images per second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    images_per_second: float


class Progress:
    """Receives what training does; this one ignores it, the command line draws it."""

    def message(self, text: str) -> None:
        """One line about what was done, such as what the audit left out."""

    def working(self, what: str, done: int, total: int) -> None:
        """Images audited or decoded so far, of ``total``; ``what`` says which."""

    def step(self, state: StepState) -> None:
        """A step was done."""

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """An epoch of ``epochs`` was done and validated."""


class Interrupted(KeyboardInterrupt):
    """Training stopped after Ctrl-C or a termination signal, with its state saved."""
