"""Quantisation-aware training: an int8 network learns to answer as its float model does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucid.checkpoint import Checkpoint
from lucid.data.samples import quote_names
from lucid.data.sources import open_data
from lucid.description import JSON
from lucid.errors import DataError, suggest
from lucid.network import Int8Network
from lucid.training.distillation import Teacher
from lucid.training.loop import Trainer
from lucid.training.plan import Plan
from lucid.training.preparation import TrainingData, prepare
from lucid.training.progress import Interrupted, Progress
from lucid.training.quantised import QuantisedNetwork
from lucid.training.recipe import Recipe

# The float model's answers are the goal, labels do not count. Photos are shown much as in use, at
# the full resolution: the ranges of the activations are learnt from them.
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "optimizer": "adamw",
    "learning_rate": 0.005,
    "weight_decay": 0.0,
    "warmup_epochs": 0.5,
    "average_decay": 0.99,
    "precision": "float32",
    "train_resolution": 1.0,
    "distillation_weight": 1.0,
    # Nearly the squared difference of the logits: also of those that change no probability.
    "distillation_temperature": 4.0,
    "label_smoothing": 0.0,
    "color_jitter": 0.1,
    "crop_area": 0.6,
}


def check_finetuning(
    checkpoint: Checkpoint, data: str | Path, *, epochs: int | None = None, seed: int = 0
) -> None:
    """Raise at once what ``finetune`` would raise of these arguments, before minutes of other work.

    Raises:
        ConfigError: epochs or seed are out of range.
        DataError: the data can't be opened, or has a class that the checkpoint lacks.
    """
    _plan(checkpoint, epochs, seed)
    _check_known(data, open_data(data).class_names, checkpoint.class_names)


def finetune(
    network: Int8Network,
    checkpoint: Checkpoint,
    data: str | Path,
    *,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Int8Network:
    """Train an int8 network in its own arithmetic to give the answers of its float model.

    The moving average of the weights at the end is the result: the validation images choose
    nothing. Its provenance says how it was trained.

    Args:
        network: where training starts, of ``checkpoint``.
        checkpoint: the float model.
        data: photos in class folders, a manifest or an archive; the labels only serve to tell how
            it goes. Split as the checkpoint's own training was.
        epochs: passes over the photos; 2 by default.
        seed: of the order and the augmentation.
        progress: is told what happens.
    Raises:
        ConfigError: epochs or seed are out of range.
        DataError: the data can't be used, or has a class that the checkpoint lacks.
        DivergenceError: the loss is no longer finite.
        NetworkError: training led to numbers that could overflow.
        Interrupted: after Ctrl-C; a KeyboardInterrupt.
    """
    progress = progress or Progress()
    plan = _plan(checkpoint, epochs, seed)
    prepared = prepare(data, plan, progress)
    _check_known(data, prepared.class_names, checkpoint.class_names)
    prepared = _relabelled(prepared, checkpoint.class_names)
    trainer = _trainer(network, checkpoint, prepared, plan, progress)
    try:
        trainer.run()
    except Interrupted as stopped:
        raise Interrupted("finetuning stopped, nothing was written") from stopped
    trained = trainer.averaged.to_network()
    how: dict[str, JSON] = {"recipe": plan.recipe.to_dict(), "data": prepared.fingerprint}
    return replace(trained, provenance={**trained.provenance, "finetuning": how})


def _plan(checkpoint: Checkpoint, epochs: int | None, seed: int) -> Plan:
    recipe = Recipe.from_dict(RECIPE | _split_of(checkpoint) | {"seed": seed})
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    return Plan(recipe, checkpoint.preprocessing, checkpoint.arguments.to_dict())


def _trainer(
    network: Int8Network,
    checkpoint: Checkpoint,
    data: TrainingData,
    plan: Plan,
    progress: Progress,
) -> Trainer[QuantisedNetwork]:
    device, recipe = torch.device("cpu"), plan.recipe
    teacher = Teacher(
        checkpoint,
        checkpoint.class_names,
        resolution=plan.train_resolution,
        device=device,
        precision=recipe.precision,
    )
    return Trainer(
        model=QuantisedNetwork(network),
        recipe=recipe,
        batches=data.batches(recipe, device),
        validation=data.validation_images,
        validation_labels=data.validation_labels,
        inputs=_bytes,
        resolution=plan.train_resolution,
        save=lambda: None,  # minutes at most: a run that is stopped starts again
        finish_epoch=lambda _row, _model: None,
        teacher=teacher,
        progress=progress,
    )


def _bytes(images: Tensor) -> Tensor:
    """float32 images of 0 to 1 -> whole numbers of 0 to 255."""
    return images.mul(255).round_().contiguous(memory_format=torch.channels_last)


def _split_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The keys that chose the validation images of the checkpoint's training."""
    recipe = checkpoint.provenance.get("recipe")
    known = recipe if isinstance(recipe, dict) else {}
    return {key: known[key] for key in ("split_seed", "validation_share") if key in known}


def _relabelled(data: TrainingData, class_names: tuple[str, ...]) -> TrainingData:
    """The data with labels into ``class_names``, which hold all of its own."""
    labels = np.array([class_names.index(name) for name in data.class_names], np.int64)
    return replace(
        data,
        class_names=class_names,
        train_labels=labels[data.train_labels],
        validation_labels=labels[data.validation_labels],
    )


def _check_known(data: str | Path, found: tuple[str, ...], known: tuple[str, ...]) -> None:
    if foreign := [name for name in found if name not in known]:
        raise DataError(
            f"{data}: the checkpoint does not know the classes {quote_names(foreign)}"
            f"{suggest(foreign[0], known)}; it knows {quote_names(known)}"
        )
