"""What decides a run's result, but for the data: put together from what the user gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from lucid.architecture import MobileNetArguments
from lucid.checkpoint import Checkpoint, read_checkpoint, read_header
from lucid.errors import ConfigError
from lucid.images import Preprocessing
from lucid.importers import find_source, import_weights
from lucid.training.recipe import Recipe, default_recipe, read_recipe

RecipeSource = Recipe | Mapping[str, Any] | str | Path

_DEFAULT_WIDTH = 0.25
_DEFAULT_RESOLUTION = 128


@dataclass(frozen=True)
class TeacherFile:
    """A teacher's checkpoint: where it was, its digest, and its resolution in pixels."""

    path: str
    digest: str
    resolution: int


@dataclass(frozen=True)
class Plan:
    """A run's recipe, preprocessing and model, the digest of its first weights, and its teacher.

    ``model`` holds MobileNet's arguments by name, but for those that come from the data
    (num_classes) and from the recipe (dropout).
    """

    recipe: Recipe
    preprocessing: Preprocessing
    model: Mapping[str, Any]
    weights: str | None = None
    teacher: TeacherFile | None = None

    @property
    def train_resolution(self) -> int:
        """Side of the training crops in pixels."""
        return self._crop_side(self.preprocessing.resolution)

    @property
    def teacher_resolution(self) -> int:
        """Side of the crops that the teacher sees in pixels; 0 without one."""
        return 0 if self.teacher is None else self._crop_side(self.teacher.resolution)

    def _crop_side(self, resolution: int) -> int:
        return max(1, round(resolution * self.recipe.train_resolution))

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
            "teacher": asdict(self.teacher) if self.teacher else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from ``to_dict``."""
        return cls(
            Recipe.from_dict(values["recipe"]),
            Preprocessing.from_dict(values["preprocessing"]),
            values["model"],
            values["weights"],
            TeacherFile(**values["teacher"]) if values.get("teacher") else None,
        )


@dataclass(frozen=True)
class Request:
    """What the user asked for; None where nothing was said."""

    width: float | None = None
    resolution: int | None = None
    epochs: int | None = None
    weights: str | Path | None = None
    recipe: RecipeSource | None = None
    teacher: str | Path | None = None

    def plan(self) -> tuple[Plan, Checkpoint | None]:
        """The plan of a new run, and the checkpoint that it starts from.

        Raises:
            ConfigError: a value is out of range or disagrees with the weights or the teacher.
            CheckpointError: the weights or the teacher can't be read.
        """
        plan, start = self._plan_without_teacher()
        if self.teacher is None:
            return plan, start
        header = read_header(self.teacher)
        student, teacher = plan.preprocessing, header.preprocessing
        if teacher.color != student.color:
            raise ConfigError(
                f"the teacher {self.teacher} reads {teacher.color} pictures, the student "
                f"{student.color}; both must see the same"
            )
        path = str(Path(self.teacher).absolute())
        file = TeacherFile(path, _digest(self.teacher), teacher.resolution)
        return replace(plan, teacher=file), start

    def _plan_without_teacher(self) -> tuple[Plan, Checkpoint | None]:
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
            digest = _digest(find_source(self.weights).weights)
            pairs.append(("weights", digest, plan.weights))
        if self.teacher is not None:
            kept = plan.teacher.digest if plan.teacher else None
            pairs.append(("teacher", _digest(self.teacher), kept))
        said = self._said()
        Recipe.from_dict(said)
        pairs += [(key, value, getattr(plan.recipe, key)) for key, value in said.items()]
        for name, asked, planned in pairs:
            if asked is not None and asked != planned:
                raise ConfigError(
                    f"{name} is {asked}, but the run to resume has {planned}; "
                    "leave it out, or start another run with another --out"
                )

    def _recipe(self) -> Recipe:
        defaults = default_recipe(
            has_weights=self.weights is not None, has_teacher=self.teacher is not None
        )
        recipe = Recipe.from_dict({**defaults.to_dict(), **self._said()})
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
        start = import_weights(self.weights, resolution=self.resolution)
        width = start.arguments.width_multiplier
        if self.width is not None and self.width != width:
            raise ConfigError(
                f"width is {self.width}, but {self.weights} has width {width}; leave it out"
            )
        digest = _digest(find_source(self.weights).weights)
        return Plan(recipe, start.preprocessing, _without_data(start.arguments), digest), start


def _without_data(arguments: MobileNetArguments) -> dict[str, Any]:
    values = arguments.to_dict()
    del values["num_classes"], values["dropout"]
    return values


def read_teacher(file: TeacherFile, moved_to: str | Path | None = None) -> Checkpoint:
    """The teacher of a run; raises ConfigError or CheckpointError unless it is still the same."""
    path = file.path if moved_to is None else moved_to
    if _digest(path) != file.digest:
        raise ConfigError(f"{path}: no longer the teacher that the run began with; bring it back")
    return read_checkpoint(path)


def _digest(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path}: can't read the checkpoint ({error.strerror or error})"
        ) from error
