"""Running a classifier over labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucid.checkpoint import Checkpoint
from lucid.data.samples import Dataset, Sample, SplitName, quote_names
from lucid.errors import DataError, require, suggest
from lucid.evaluation.metrics import Metrics, classification_metrics, worst_mistakes
from lucid.prediction import Classifier, softmax

__all__ = ["Evaluation", "Mistake", "Selection", "evaluate", "select"]

SplitChoice = SplitName | Literal["all"]

# What training did not see, the more honest first: the validation part chose the best epoch.
_UNSEEN: tuple[SplitName, ...] = ("test", "validation")


@dataclass(frozen=True)
class Selection:
    """Samples to measure, labelled with the classifier's class indices.

    ``description`` says in words which part of the data they are, ``unseen_classes`` which of the
    classifier's classes the data lacks.
    """

    samples: tuple[Sample, ...]
    description: str
    unseen_classes: tuple[str, ...]


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction; probabilities are those of the two classes."""

    path: Path
    true: str
    true_probability: float
    predicted: str
    predicted_probability: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the readable images, the worst mistakes first, and what could not be read."""

    metrics: Metrics
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return {
            "metrics": self.metrics.to_json(),
            "mistakes": [asdict(one) | {"path": str(one.path)} for one in self.mistakes],
            "unreadable": list(self.unreadable),
        }


def select(dataset: Dataset, classifier: Classifier, split: SplitChoice | None = None) -> Selection:
    """Choose what to measure, and give it the classifier's labels, matched by class name.

    Args:
        split: a part of the data. By default what training did not see: the data's own test or
            else validation part, or the validation part that the checkpoint remembers of these
            files; all of the data where there is none of them.
    Raises:
        DataError: the data lacks the part, or the part has a class that the classifier lacks.
    """
    samples, remembered = _with_remembered_split(dataset, classifier.checkpoint)
    parts = {sample.split for sample in samples if sample.split}
    chosen = split or next((part for part in _UNSEEN if part in parts), "all")
    if chosen != "all":
        samples = [sample for sample in samples if sample.split == chosen]
    if not samples:
        there = f"its parts are {', '.join(sorted(parts))}" if parts else "it is not split"
        raise DataError(f"{dataset.source}: the data has no {chosen} part; {there}; use all")
    description = "all of the data" if chosen == "all" else f"the {chosen} part of the data"
    if remembered and chosen != "all":
        description += ", as the checkpoint remembers it"
    labelled, unseen = _relabelled(samples, dataset, classifier.class_names)
    return Selection(labelled, description, unseen)


def evaluate(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    mistakes: int = 12,
    track: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> Evaluation:
    """Classify labelled images and compare.

    Args:
        samples: labelled with the classifier's class indices.
        mistakes: how many of the worst are kept.
        track: wraps the paths while they are worked through, for a progress bar.
    Raises:
        DataError: no image could be read.
        MissingDependencyError: scikit-learn is not installed.
    """
    require("sklearn.metrics", extra="train")  # before all the images are classified in vain
    names = classifier.class_names
    logits, read, unreadable = [], [], []
    answers = classifier.classify(track([sample.path for sample in samples]))
    for sample, one in zip(samples, answers, strict=True):
        if one.error is None:
            read.append(sample)
            logits.append(one.logits)
        else:
            unreadable.append(one.error)
    if not read:
        raise DataError(f"none of the {len(samples)} images could be read; {unreadable[0]}")
    probabilities = softmax(np.stack(logits))  # (N, K)
    labels = np.array([sample.label for sample in read])
    worst = worst_mistakes(probabilities, labels, mistakes)
    return Evaluation(
        classification_metrics(probabilities, labels, names),
        tuple(_mistake(read[index], probabilities[index], names) for index in worst),
        tuple(unreadable),
    )


def _with_remembered_split(
    dataset: Dataset, checkpoint: Checkpoint | None
) -> tuple[list[Sample], bool]:
    """The samples with the validation part of the training run, if it was cut from these files."""
    stored = checkpoint.provenance.get("validation") if checkpoint else None
    remembered = {str(name) for name in stored} if isinstance(stored, list) else set()
    names = remembered & {dataset.name(sample.path) for sample in dataset.samples}
    # Some files may have come and gone since; with most of them gone, it is other data.
    if 2 * len(names) <= len(remembered) or "validation" in dataset.splits:
        return list(dataset.samples), False

    def part(sample: Sample) -> SplitName:
        return "validation" if dataset.name(sample.path) in names else sample.split or "train"

    return [replace(sample, split=part(sample)) for sample in dataset.samples], True


def _relabelled(
    samples: Iterable[Sample], dataset: Dataset, class_names: Sequence[str]
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples with labels into ``class_names``, and the names that no sample has."""
    labels = {name: label for label, name in enumerate(class_names)}
    present = {dataset.class_names[sample.label] for sample in samples}
    if foreign := [name for name in dataset.class_names if name in present - labels.keys()]:
        raise DataError(
            f"{dataset.source}: the checkpoint does not know the data's {len(foreign)} classes "
            f"{quote_names(foreign)}{suggest(foreign[0], class_names)}; "
            f"it knows {quote_names(class_names)}"
        )
    relabelled = (
        replace(sample, label=labels[dataset.class_names[sample.label]]) for sample in samples
    )
    return tuple(relabelled), tuple(name for name in class_names if name not in present)


def _mistake(sample: Sample, probabilities: NDArray[np.float64], names: Sequence[str]) -> Mistake:
    predicted = int(probabilities.argmax())
    return Mistake(
        path=sample.path,
        true=names[sample.label],
        true_probability=float(probabilities[sample.label]),
        predicted=names[predicted],
        predicted_probability=float(probabilities[predicted]),
    )
