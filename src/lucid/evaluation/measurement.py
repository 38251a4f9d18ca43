"""Running a classifier over labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.data.samples import Dataset, Sample
from lucid.errors import DataError, require
from lucid.evaluation.metrics import Metrics, classification_metrics, worst_mistakes
from lucid.evaluation.selection import Selection, SplitChoice, select_samples
from lucid.prediction import Predictor, softmax

__all__ = ["Evaluation", "Mistake", "Selection", "evaluate", "select"]


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


def select(dataset: Dataset, classifier: Predictor, split: SplitChoice | None = None) -> Selection:
    """Choose what to measure of a classifier; see ``lucid.evaluation.selection``."""
    return select_samples(dataset, classifier.class_names, classifier.provenance, split)


def evaluate(
    classifier: Predictor,
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


def _mistake(sample: Sample, probabilities: NDArray[np.float64], names: Sequence[str]) -> Mistake:
    predicted = int(probabilities.argmax())
    return Mistake(
        path=sample.path,
        true=names[sample.label],
        true_probability=float(probabilities[sample.label]),
        predicted=names[predicted],
        predicted_probability=float(probabilities[predicted]),
    )
