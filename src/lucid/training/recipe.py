"""The recipe: every number that decides how a model is trained, checked, and read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from lucid.checks import check_choice, check_integer, check_number
from lucid.data.augmentation import POLICIES, Augmentation
from lucid.decoding import DECODERS, Decoder
from lucid.errors import ConfigError, suggest
from lucid.files import open_file
from lucid.images import INTERPOLATIONS, Interpolation

Optimizer = Literal["adamw", "sgd"]
Balance = Literal["none", "loss", "sampling"]
Precision = Literal["auto", "float32", "bfloat16"]

OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "sgd")
BALANCES: tuple[Balance, ...] = ("none", "loss", "sampling")
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")

MAX_RECIPE_BYTES = 1_000_000

# What differs where training starts from weights: they are near a good place already.
FINE_TUNING: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02}
# And with a teacher: it has an answer to every blend of two photos too, and a student gains from
# patience (Beyer et al. 2021, arXiv:2106.05237, sections 3 and 4).
DISTILLATION: dict[str, Any] = {"mixup": 1.0, "mix_share": 0.5}
PATIENCE = 3  # times the epochs


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the best found for a few thousand photos.

    Where nothing else is said, with ``--weights`` epochs are 20 and the learning rate is 0.02; with
    ``--teacher`` epochs are three times as many, mixup is 1 and mix_share 0.5.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: ``"adamw"`` or ``"sgd"`` (Nesterov momentum 0.9).
        learning_rate: at its highest, for the ``batch_size`` given.
        weight_decay: of convolution and classifier weights only, never of batch norms and biases.
        warmup_epochs: the learning rate rises linearly for these, then falls as a half cosine.
        label_smoothing: share of each target spread over all classes, 0 to below 1.
        average_decay: of the exponential moving average of the weights, which is what is
            evaluated and stored; 0 turns it off.
        dropout: share of the pooled features dropped, 0 to below 1.
        clip_norm: gradients are scaled down to this norm; 0 turns it off.
        accumulate: steps whose gradients are added up before the weights change.
        early_stopping: epochs without a better validation top-1 after which training ends with
            the best weights; 0 trains to the end and keeps the last ones.
        balance: for imbalanced classes: ``"loss"`` (class weights), ``"sampling"`` (each class
            equally often) or ``"none"``.
        precision: ``"bfloat16"`` autocast (a GPU's), ``"float32"``, or ``"auto"``: bfloat16 where
            there is a GPU.
        frozen_epochs: with ``--weights``, only the classifier learns for these first.
        train_resolution: side of the training crops as a share of the resolution, 0.25 to 1. A
            random crop shows objects larger than the validation crop does; smaller training crops
            undo that and cost less (Touvron et al. 2019, arXiv:1906.06423).
        validation_share: of each class, when DATA brings no validation images; 0.05 to 0.5.
        split_seed: of the choice of validation images, so that runs with other seeds compare.
        seed: of everything else random.
        distillation_weight: with ``--teacher``, its share of the loss, 0 to 1; the labels have the
            rest.
        distillation_temperature: above 0; teacher's and student's logits are divided by it, so that
            the teacher's second thoughts count for more.
        feature_weight: with ``--teacher``, how much the loss counts the distance of the pooled
            features from the teacher's; 0 turns it off.
        crop_fraction: side of the centred square kept for validation and prediction; with
            ``--weights``, theirs is taken.
        interpolation: of every resize; with ``--weights``, theirs is taken.
        decoder: ``"scaled"`` decodes a large JPEG at a smaller scale, ``"full"`` every pixel; with
            ``--weights``, theirs is taken.
        last_stride: stride of the last depthwise layer, 1 or 2, of a model trained from scratch.
        crop_area: smallest share of an image's area that a random resized crop keeps.
        flip: mirror half of the images left to right.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 to 1.
        policy: ``"trivial"`` (TrivialAugment), ``"rand"`` (RandAugment) or ``"none"``.
        erasing: probability of random erasing.
        mixup: parameter of the Beta distribution of mixup; 0 turns it off.
        cutmix: the same for cutmix; with both, each batch draws one of the two.
        mix_share: share of the batches that mixup or cutmix blends.
    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """

    epochs: int = 100
    batch_size: int = 32
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1
    average_decay: float = 0.998
    dropout: float = 0.0
    clip_norm: float = 5.0
    accumulate: int = 1
    early_stopping: int = 0
    balance: Balance = "none"
    precision: Precision = "auto"
    frozen_epochs: int = 1
    train_resolution: float = 0.875
    validation_share: float = 0.2
    split_seed: int = 0
    seed: int = 0
    distillation_weight: float = 0.9
    distillation_temperature: float = 2.0
    feature_weight: float = 2.0
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bilinear"
    decoder: Decoder = "scaled"
    last_stride: int = 1
    crop_area: float = 0.25
    flip: bool = True
    color_jitter: float = 0.3
    policy: str = "none"
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 1.0

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, 1, 100_000)
        check_integer("batch_size", self.batch_size, 2, 65_536)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        # PyTorch's optimizers take what float32 can hold.
        check_number(
            "learning_rate", self.learning_rate, "above 0, at most 1e30", lambda v: 0 < v <= 1e30
        )
        check_number("weight_decay", self.weight_decay, "0 to 1e30", lambda v: 0 <= v <= 1e30)
        check_number("warmup_epochs", self.warmup_epochs, "0 or more", _is_not_negative)
        check_number("clip_norm", self.clip_norm, "0 or more", _is_not_negative)
        check_number("feature_weight", self.feature_weight, "0 or more", _is_not_negative)
        check_integer("accumulate", self.accumulate, 1, 4096)
        check_integer("early_stopping", self.early_stopping, 0, 100_000)
        check_choice("balance", self.balance, BALANCES)
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("frozen_epochs", self.frozen_epochs, 0, 100_000)
        check_integer("split_seed", self.split_seed, 0, 2**63 - 1)
        check_integer("seed", self.seed, 0, 2**63 - 1)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("decoder", self.decoder, DECODERS)
        check_choice("policy", self.policy, POLICIES)
        check_integer("last_stride", self.last_stride, 1, 2)
        if not isinstance(self.flip, bool):
            raise ConfigError(f"flip must be true or false, got {self.flip!r}")
        for name in ("label_smoothing", "average_decay", "dropout"):
            check_number(name, getattr(self, name), "from 0 to below 1", lambda v: 0 <= v < 1)
        check_number(
            "distillation_temperature",
            self.distillation_temperature,
            "from 0.01 to 100",
            lambda v: 0.01 <= v <= 100,
        )
        for name in ("color_jitter", "distillation_weight", "erasing", "mix_share"):
            check_number(name, getattr(self, name), "from 0 to 1", lambda value: 0 <= value <= 1)
        for name in ("crop_fraction", "crop_area"):
            check_number(name, getattr(self, name), "from 0.01 to 1", lambda v: 0.01 <= v <= 1)
        for name in ("mixup", "cutmix"):
            check_number(name, getattr(self, name), "0 or more", _is_not_negative)
        check_number(
            "train_resolution", self.train_resolution, "from 0.25 to 1", lambda v: 0.25 <= v <= 1
        )
        check_number(
            "validation_share",
            self.validation_share,
            "from 0.05 to 0.5",
            lambda v: 0.05 <= v <= 0.5,
        )

    @property
    def augmentation(self) -> Augmentation:
        """The part of the recipe that happens to training images."""
        return Augmentation(**{f.name: getattr(self, f.name) for f in fields(Augmentation)})

    def to_dict(self) -> dict[str, Any]:
        """The values by key, as JSON values."""
        return asdict(self)

    def to_toml(self) -> str:
        """The recipe as a TOML file that ``read_recipe`` reads back."""
        lines = [f"{key} = {_toml_value(value)}" for key, value in self.to_dict().items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from its keys; raises ConfigError for unknown ones and wrong values."""
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"a recipe has no key {key!r}{suggest(key, known)}")
        return cls(**values)


def default_recipe(*, has_weights: bool, has_teacher: bool) -> Recipe:
    """The recipe where the user says nothing."""
    recipe = Recipe(**FINE_TUNING) if has_weights else Recipe()
    return (
        replace(recipe, epochs=PATIENCE * recipe.epochs, **DISTILLATION) if has_teacher else recipe
    )


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read the keys that a TOML file sets.

    Raises:
        ConfigError: the file is missing, no TOML, or sets an unknown key or a wrong value.
    """
    with open_file(path, max_bytes=MAX_RECIPE_BYTES, error=ConfigError) as file:
        content = file.read()
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))  # some editors put a mark in front
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML ({error})") from error
    try:
        Recipe.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return values


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _is_not_negative(value: float) -> bool:
    return value >= 0
