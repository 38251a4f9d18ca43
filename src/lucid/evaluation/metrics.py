"""How good a classifier is on labelled images, and how sure one can be of that."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.errors import DataError, ShapeError, require

__all__ = [
    "CALIBRATION_BINS",
    "CalibrationBin",
    "ClassMetrics",
    "Metrics",
    "Share",
    "classification_metrics",
    "worst_mistakes",
]

CALIBRATION_BINS = 15  # Guo et al. 2017, arXiv:1706.04599, section 5

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Share:
    """``hits`` of ``total``, with the 95% confidence interval [low, high] of the share (Wilson)."""

    hits: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself, 0 to 1."""
        return self.hits / self.total

    @classmethod
    def of(cls, hits: int, total: int) -> Share:
        """The share with its interval; ``total`` is at least 1."""
        interval = require("scipy.stats", extra="train").binomtest(hits, total)
        low, high = interval.proportion_ci(confidence_level=0.95, method="wilson")
        return cls(hits, total, float(low), float(high))


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class.

    ``support`` images are of the class, ``predicted`` were taken for it. A share of no images is
    None: precision where nothing was predicted, recall where nothing stands in the data.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose top probability lies in (low, high]: how many, how sure, how often right.

    ``confidence`` and ``accuracy`` are means over the bin's images, None where it has none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Metrics:
    """What ``classification_metrics`` found.

    Attributes:
        top1: images whose most probable class is the right one.
        top5: images whose right class is among the ``top5_classes`` most probable.
        top5_classes: 5, or the number of classes where there are fewer.
        macro_f1: mean F1 of the classes that stand in the data.
        calibration_error: expected calibration error over ``calibration``: the mean distance of
            confidence from accuracy, weighted by images (arXiv:1706.04599, equation 5).
        calibration: ``CALIBRATION_BINS`` bins of equal width from 0 to 1.
        classes: in the order of the class names.
        confusion: int64 (K, K), images of class [row] taken for class [column].
    """

    top1: Share
    top5: Share
    top5_classes: int
    macro_f1: float
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]
    classes: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]

    @property
    def images(self) -> int:
        """How many images were measured."""
        return self.top1.total

    def worst_classes(self) -> list[ClassMetrics]:
        """The classes that stand in the data or were predicted, the lowest F1 first."""
        counted = [one for one in self.classes if one.f1 is not None]
        return sorted(counted, key=lambda one: one.f1 or 0)

    def confused_pairs(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, images) of all confusions, the most frequent first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        pairs = np.column_stack(np.unravel_index(order, wrong.shape))
        return [(int(row), int(column), int(wrong[row, column])) for row, column in pairs]

    def to_json(self) -> dict[str, Any]:
        """The metrics as JSON values; ``confusion`` is a list of rows."""
        values = asdict(self) | {"images": self.images, "confusion": self.confusion.tolist()}
        for name in ("top1", "top5"):
            values[name]["value"] = getattr(self, name).value
        return values


def classification_metrics(
    probabilities: Probabilities, labels: Labels, class_names: Sequence[str]
) -> Metrics:
    """Compare probabilities with the right classes.

    Of equally probable classes the first counts as the more probable, as it does in predictions.

    Args:
        probabilities: float (N, K), rows sum to 1.
        labels: int (N,), 0 to K - 1.
        class_names: K names.
    Raises:
        DataError: there are no images, or a label is out of range.
        ShapeError: the shapes don't fit together, or rows are no probabilities.
        MissingDependencyError: scikit-learn is not installed.
    """
    _check(probabilities, labels, len(class_names))
    count, classes = probabilities.shape
    predictions = probabilities.argmax(axis=1)  # the first of equals
    top5_classes = min(5, classes)
    bins, error = _calibration(probabilities.max(axis=1), predictions == labels)
    per_class = _per_class(labels, predictions, class_names)
    return Metrics(
        top1=Share.of(int((predictions == labels).sum()), count),
        top5=Share.of(int((_ranks(probabilities, labels) < top5_classes).sum()), count),
        top5_classes=top5_classes,
        macro_f1=float(np.mean([one.f1 for one in per_class if one.support])),
        calibration_error=error,
        calibration=bins,
        classes=per_class,
        confusion=_confusion(labels, predictions, classes),
    )


def worst_mistakes(
    probabilities: Probabilities, labels: Labels, count: int
) -> NDArray[np.integer[Any]]:
    """Indices of at most ``count`` wrong predictions, the least probable right class first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return wrong[order[:count]]


def _ranks(probabilities: Probabilities, labels: Labels) -> Labels:
    """How many classes come before the right one, for each image: int (N,)."""
    right = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)  # (N, 1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]  # (N, K)
    before = (probabilities > right) | ((probabilities == right) & earlier)
    ranks: Labels = before.sum(axis=1)
    return ranks


def _per_class(
    labels: Labels, predictions: Labels, class_names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    scores = require("sklearn.metrics", extra="train").precision_recall_fscore_support(
        labels, predictions, labels=np.arange(len(class_names)), zero_division=math.nan
    )
    predicted = np.bincount(predictions, minlength=len(class_names))
    return tuple(
        ClassMetrics(name, _share(precision), _share(recall), _share(f1), int(support), int(taken))
        for name, precision, recall, f1, support, taken in zip(
            class_names, *scores, predicted, strict=True
        )
    )


def _confusion(labels: Labels, predictions: Labels, classes: int) -> NDArray[np.int64]:
    sklearn_metrics = require("sklearn.metrics", extra="train")
    with warnings.catch_warnings():
        # With one class in all, scikit-learn asks for the labels that it has been given.
        warnings.filterwarnings("ignore", "A single label was found")
        matrix = sklearn_metrics.confusion_matrix(labels, predictions, labels=np.arange(classes))
    counts: NDArray[np.int64] = matrix.astype(np.int64)
    return counts


def _share(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _calibration(
    confidence: Probabilities, right: NDArray[np.bool_]
) -> tuple[tuple[CalibrationBin, ...], float]:
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    # Bins are open below and closed above; rounding may lift a probability a little above 1.
    which = np.searchsorted(edges, np.minimum(confidence, 1), side="left") - 1
    bins = []
    error = 0.0
    for index in range(CALIBRATION_BINS):
        inside = which == index
        count = int(inside.sum())
        mean_confidence = float(confidence[inside].mean()) if count else None
        accuracy = float(right[inside].mean()) if count else None
        if mean_confidence is not None and accuracy is not None:
            error += count / len(right) * abs(accuracy - mean_confidence)
        low, high = float(edges[index]), float(edges[index + 1])
        bins.append(CalibrationBin(low, high, count, mean_confidence, accuracy))
    return tuple(bins), error


def _check(probabilities: Probabilities, labels: Labels, classes: int) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] != classes:
        raise ShapeError(
            f"metrics expect probabilities (N, {classes}), one column a class name, "
            f"got {probabilities.shape}"
        )
    if labels.shape != probabilities.shape[:1]:
        raise ShapeError(
            f"metrics expect one label for each of {len(probabilities)} images, got {labels.shape}"
        )
    if not len(labels):
        raise DataError("there are no images to measure")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must be whole numbers from 0 to {classes - 1}")
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3) or probabilities.min() < 0:
        raise ShapeError("metrics expect probabilities: rows of numbers from 0 that sum to 1")
