"""From DATA to decoded images on both sides of a split, with one line for all that was done."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lucid.checkpoint import check_class_names
from lucid.data.audit import audit
from lucid.data.cache import DecodedImages, Squashed, open_cache
from lucid.data.loader import Batches
from lucid.data.samples import Dataset
from lucid.data.sources import open_data
from lucid.data.split import Split, split
from lucid.images import Preprocessing
from lucid.training.plan import Plan
from lucid.training.progress import Progress
from lucid.training.recipe import Recipe

# Whole images are kept a little larger than the training crops, so that a crop of most of an image
# still has a pixel for each of its own.
_STORED_SHARE = 1.25
# Names of validation images in a checkpoint; more would make its header heavier than its weights.
_MAX_NAMES_BYTES = 1_000_000


@dataclass(frozen=True)
class TrainingData:
    """Both sides of the split, decoded.

    Attributes:
        class_names: a label is an index into it.
        train_images, validation_images: whole and squashed; preprocessed.
        train_labels, validation_labels: int64 (N,).
        train_resolution: side of the training crops in pixels; with a teacher, of the larger of the
            student's and its own.
        split: names of the pictures on each side.
        audit_json: the audit's report.
        fingerprint: digest of names, sizes, labels and sides; a resumed run must have the same.
    """

    class_names: tuple[str, ...]
    train_images: DecodedImages
    train_labels: NDArray[np.int64]
    validation_images: DecodedImages
    validation_labels: NDArray[np.int64]
    train_resolution: int
    split: dict[str, list[str]]
    audit_json: str
    fingerprint: str

    @property
    def validation_names(self) -> list[str]:
        """Names for the checkpoint, so that it is evaluated on these again; empty if too many."""
        names = self.split["validation"]
        return names if len(json.dumps(names)) <= _MAX_NAMES_BYTES else []

    @property
    def class_weights(self) -> NDArray[np.float64]:
        """How much rarer than average each class is, (classes,): N / (classes x its images)."""
        counts = np.bincount(self.train_labels, minlength=len(self.class_names))
        return len(self.train_labels) / (len(counts) * np.maximum(counts, 1))

    def batches(self, recipe: Recipe, device: torch.device) -> Batches:
        """The training batches of a recipe."""
        is_sampled = recipe.balance == "sampling"
        return Batches(
            images=self.train_images,
            labels=self.train_labels,
            num_classes=len(self.class_names),
            batch_size=min(recipe.batch_size, len(self.train_labels)),
            resolution=self.train_resolution,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            weights=self.class_weights[self.train_labels] if is_sampled else None,
            device=device,
        )


def prepare(data: str | Path, plan: Plan, progress: Progress) -> TrainingData:
    """Open, audit, split and decode the data.

    Raises:
        DataError: there is nothing to train or to validate on, or a file changed meanwhile.
    """
    recipe, preprocessing = plan.recipe, plan.preprocessing
    dataset = open_data(data)
    check_class_names(dataset.class_names)
    report = audit(
        dataset, resolution=preprocessing.resolution, progress=partial(progress.working, "auditing")
    )
    sides = split(
        dataset,
        report.duplicate_groups,
        usable=report.usable,
        seed=recipe.split_seed,
        validation_fraction=recipe.validation_share,
    )
    for line in (*dataset.warnings, report.summary(), *sides.warnings):
        progress.message(line)

    train_resolution = max(plan.train_resolution, plan.teacher_resolution)
    squashed = Squashed(
        math.ceil(train_resolution * _STORED_SHARE),
        interpolation=preprocessing.interpolation,
        decoder=preprocessing.decoder,
        color=preprocessing.color,
    )
    train_images = _decoded(dataset, sides.train, squashed, progress)
    validation_images = _decoded(dataset, sides.validation, preprocessing, progress)
    names = sides.to_dict(dataset)
    progress.message(
        f"{len(sides.train)} images to train on, {len(sides.validation)} to validate on, "
        f"{len(dataset.class_names)} classes"
    )
    return TrainingData(
        class_names=dataset.class_names,
        train_images=train_images,
        train_labels=_labels(dataset, sides.train),
        validation_images=validation_images,
        validation_labels=_labels(dataset, sides.validation),
        train_resolution=train_resolution,
        split=names,
        audit_json=report.to_json(),
        fingerprint=_fingerprint(dataset, sides),
    )


def _decoded(
    dataset: Dataset,
    indices: Sequence[int],
    decoding: Squashed | Preprocessing,
    progress: Progress,
) -> DecodedImages:
    paths = [dataset.samples[index].path for index in indices]
    images = open_cache(paths, decoding, progress=partial(progress.working, "decoding"))
    if images.uncached:
        progress.message(images.uncached)
    images.check()  # the audit could read all of them a moment ago
    return images


def _labels(dataset: Dataset, indices: Sequence[int]) -> NDArray[np.int64]:
    return np.array([dataset.samples[index].label for index in indices], np.int64)


def _fingerprint(dataset: Dataset, sides: Split) -> str:
    content = [
        [
            (dataset.name(sample.path), sample.label, sample.path.stat().st_size)
            for sample in (dataset.samples[index] for index in indices)
        ]
        for indices in (sides.train, sides.validation)
    ]
    text = json.dumps([dataset.class_names, content])
    return hashlib.sha256(text.encode()).hexdigest()
