"""What decides a run's result, but for the data: put together from what the user gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lucid.architecture import MobileNetArguments
from lucid.checkpoint import Checkpoint, read_checkpoint
from lucid.errors import ConfigError
from lucid.images import Preprocessing
from lucid.training.recipe import FINE_TUNING, Recipe, read_recipe

RecipeSource = Recipe | Mapping[str, Any] | str | Path

_DEFAULT_WIDTH = 0.25
_DEFAULT_RESOLUTION = 128


@dataclass(frozen=True)
class Plan:
    """A run's recipe, preprocessing and model, and the digest of the weights it starts from.

    ``model`` holds MobileNet's arguments by name, but for those that come from the data
    (num_classes) and from the recipe (dropout).
    """

    recipe: Recipe
    preprocessing: Preprocessing
    model: Mapping[str, Any]
    weights: str | None = None

    def arguments(self, num_classes: int) -> MobileNetArguments:
        """The arguments of the model for this many classes."""
        return MobileNetArguments(
            **self.model, num_classes=num_classes, dropout=self.recipe.dropout
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "recipe": self.recipe.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "model": dict(self.model),
            "weights": self.weights,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from ``to_dict``."""
        return cls(
            Recipe.from_dict(values["recipe"]),
            Preprocessing.from_dict(values["preprocessing"]),
            values["model"],
            values["weights"],
        )


@dataclass(frozen=True)
class Request:
    """What the user asked for; None where nothing was said."""

    width: float | None = None
    resolution: int | None = None
    epochs: int | None = None
    weights: str | Path | None = None
    recipe: RecipeSource | None = None

    def plan(self) -> tuple[Plan, Checkpoint | None]:
        """The plan of a new run, and the checkpoint that it starts from.

        Raises:
            ConfigError: a value is out of range or disagrees with the weights.
            CheckpointError: the weights can't be read.
        """
        recipe = self._recipe()
        if self.weights is not None:
            return self._plan_from_weights(recipe)
        model = MobileNetArguments(
            _DEFAULT_WIDTH if self.width is None else self.width, last_stride=recipe.last_stride
        )
        preprocessing = Preprocessing(
            _DEFAULT_RESOLUTION if self.resolution is None else self.resolution,
            crop_fraction=recipe.crop_fraction,
            interpolation=recipe.interpolation,
            decoder=recipe.decoder,
        )
        return Plan(recipe, preprocessing, _without_data(model)), None

    def check_agrees(self, plan: Plan) -> None:
        """Raise ConfigError where the request differs from the run that it resumes."""
        pairs: list[tuple[str, Any, Any]] = [
            ("width", self.width, plan.model["width_multiplier"]),
            ("resolution", self.resolution, plan.preprocessing.resolution),
            ("epochs", self.epochs, plan.recipe.epochs),
        ]
        if self.weights is not None:
            pairs.append(("weights", _digest(self.weights), plan.weights))
        said = self._said()
        Recipe.from_dict(said)
        pairs += [(key, value, getattr(plan.recipe, key)) for key, value in said.items()]
        for name, asked, kept in pairs:
            if asked is not None and asked != kept:
                raise ConfigError(
                    f"{name} is {asked}, but the run to resume has {kept}; "
                    "leave it out, or start another run with another --out"
                )

    def _recipe(self) -> Recipe:
        defaults = FINE_TUNING if self.weights is not None else {}
        recipe = Recipe.from_dict({**defaults, **self._said()})
        return recipe if self.epochs is None else replace(recipe, epochs=self.epochs)

    def _said(self) -> dict[str, Any]:
        """The keys of the recipe that the user set, with their values."""
        if isinstance(self.recipe, Recipe):
            return self.recipe.to_dict()
        if isinstance(self.recipe, str | Path):
            return read_recipe(self.recipe)
        return dict(self.recipe or {})

    def _plan_from_weights(self, recipe: Recipe) -> tuple[Plan, Checkpoint]:
        assert self.weights is not None
        start = read_checkpoint(self.weights)
        width = start.arguments.width_multiplier
        if self.width is not None and self.width != width:
            raise ConfigError(
                f"width is {self.width}, but {self.weights} has width {width}; leave it out"
            )
        preprocessing = start.preprocessing
        if self.resolution is not None:
            preprocessing = replace(preprocessing, resolution=self.resolution)
        digest = _digest(self.weights)
        return Plan(recipe, preprocessing, _without_data(start.arguments), digest), start


def _without_data(arguments: MobileNetArguments) -> dict[str, Any]:
    values = arguments.to_dict()
    del values["num_classes"], values["dropout"]
    return values


def _digest(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: can't read the weights ({error.strerror or error})") from error
