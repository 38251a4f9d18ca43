"""Training: the recipe, the loop, and what a run leaves behind."""

from __future__ import annotations

from lucid.errors import require

require("torch", extra="train")

# After the check, so that a missing torch has a clear message.
from lucid.training.progress import EpochRow, Interrupted, Progress, StepState  # noqa: E402
from lucid.training.recipe import Recipe, read_recipe  # noqa: E402
from lucid.training.run import TrainingResult, train  # noqa: E402

__all__ = [
    "EpochRow",
    "Interrupted",
    "Progress",
    "Recipe",
    "StepState",
    "TrainingResult",
    "read_recipe",
    "train",
]
