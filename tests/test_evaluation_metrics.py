"""Metrics against values worked out by hand and against naive implementations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lucid.errors import DataError, ShapeError
from lucid.evaluation.metrics import (
    CALIBRATION_BINS,
    Metrics,
    classification_metrics,
    worst_mistakes,
)

# Six images of three classes; images 2 and 5 are mistaken.
PROBABILITIES = np.array(
    [
        [0.70, 0.20, 0.10],
        [0.50, 0.30, 0.20],
        [0.10, 0.85, 0.05],
        [0.05, 0.90, 0.05],
        [0.15, 0.25, 0.60],
        [0.40, 0.35, 0.25],
    ]
)
LABELS = np.array([0, 0, 0, 1, 2, 2])


def test_values_worked_out_by_hand():
    metrics = classification_metrics(PROBABILITIES, LABELS, ["a", "b", "c"])

    assert metrics.images == 6
    assert metrics.top1.hits == 4
    assert metrics.top5.hits == 6
    assert metrics.top5_classes == 3
    assert metrics.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    a, b, c = metrics.classes
    assert (a.precision, a.recall, a.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b.precision, b.recall, b.f1) == pytest.approx((1 / 2, 1, 2 / 3))
    assert (c.precision, c.recall, c.f1) == pytest.approx((1, 1 / 2, 2 / 3))
    assert [(one.support, one.predicted) for one in metrics.classes] == [(3, 3), (1, 2), (2, 1)]
    assert metrics.macro_f1 == pytest.approx(2 / 3)
    # Every image has a bin of its own: |right - confidence|, averaged.
    assert metrics.calibration_error == pytest.approx((0.3 + 0.5 + 0.85 + 0.1 + 0.4 + 0.4) / 6)


def test_intervals_are_wilsons():
    """Wilson 1927: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964."""
    metrics = classification_metrics(PROBABILITIES, LABELS, ["a", "b", "c"])
    z, n, p = 1.959964, 6, 4 / 6
    middle, reach = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = ((middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n))
    assert (metrics.top1.low, metrics.top1.high) == pytest.approx(expected, abs=1e-6)
    assert metrics.top5.high == 1
    assert metrics.top5.low < 0.7


def test_top5_looks_no_further_than_five():
    probabilities = np.tile(np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]), (2, 1))
    metrics = classification_metrics(probabilities, np.array([4, 5]), list("abcdefg"))
    assert metrics.top5_classes == 5
    assert metrics.top5.hits == 1


def test_classes_missing_from_the_data():
    """Nothing to divide by is None, and the macro mean is over what stands in the data."""
    probabilities = np.array([[0.9, 0.1, 0.0, 0.0], [0.2, 0.7, 0.1, 0.0]])
    metrics = classification_metrics(probabilities, np.array([0, 0]), list("abcd"))
    a, b, c, d = metrics.classes
    assert (a.precision, a.recall) == (1, 0.5)
    assert (b.precision, b.recall, b.f1, b.predicted) == (0, None, 0, 1)
    assert (c.precision, c.recall, c.f1) == (d.precision, d.recall, d.f1) == (None, None, None)
    assert metrics.macro_f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_one_image(classes):
    probabilities = np.full((1, classes), 1 / classes)
    metrics = classification_metrics(probabilities, np.array([0]), list("abcdefg"[:classes]))
    assert metrics.top1.hits == 1  # of equal classes the first is predicted
    assert metrics.top5_classes == min(5, classes)
    assert metrics.calibration_error == pytest.approx(1 - 1 / classes)


def test_worst_mistakes_come_first():
    assert worst_mistakes(PROBABILITIES, LABELS, 10).tolist() == [2, 5]
    assert worst_mistakes(PROBABILITIES, LABELS, 1).tolist() == [2]
    assert worst_mistakes(PROBABILITIES[:2], LABELS[:2], 10).tolist() == []


def test_json_holds_everything_and_only_json():
    values = classification_metrics(PROBABILITIES, LABELS, ["a", "b", "c"]).to_json()
    text = json.dumps(values, allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(values))
    assert values["top1"]["value"] == pytest.approx(4 / 6)
    assert values["confusion"] == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("probabilities", "labels", "error", "words"),
    [
        (PROBABILITIES[:, :2], LABELS, ShapeError, r"\(N, 3\)"),
        (PROBABILITIES[0], LABELS, ShapeError, r"\(N, 3\)"),
        (PROBABILITIES, LABELS[:4], ShapeError, "6 images"),
        (PROBABILITIES * 2, LABELS, ShapeError, "sum to 1"),
        (np.full((6, 3), np.nan), LABELS, ShapeError, "sum to 1"),
        (PROBABILITIES, LABELS + 1, DataError, "0 to 2"),
        (PROBABILITIES, LABELS.astype(float), DataError, "whole numbers"),
        (PROBABILITIES[:0], LABELS[:0], DataError, "no images"),
    ],
)
def test_what_does_not_fit_is_refused(probabilities, labels, error, words):
    with pytest.raises(error, match=words):
        classification_metrics(probabilities, labels, ["a", "b", "c"])


@st.composite
def measured(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of 1 to 40 images and 1 to 12 classes, ties included."""
    classes = draw(st.integers(1, 12))
    count = draw(st.integers(1, 40))
    scores = draw(arrays.arrays(np.float64, (count, classes), elements=st.integers(0, 9)))
    labels = draw(arrays.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    return (scores + 0.01) / (scores + 0.01).sum(axis=1, keepdims=True), labels


@settings(deadline=None, max_examples=60)
@given(measured())
def test_equal_to_naive_loops(data: tuple[np.ndarray, np.ndarray]):
    probabilities, labels = data
    names = [f"class {index}" for index in range(probabilities.shape[1])]
    metrics = classification_metrics(probabilities, labels, names)

    confusion = np.zeros((len(names), len(names)), int)
    hits5 = 0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        ranking = sorted(range(len(names)), key=lambda k: (-row[k], k))
        confusion[label, ranking[0]] += 1
        hits5 += label in ranking[:5]
    assert np.array_equal(metrics.confusion, confusion)
    assert metrics.top1.hits == np.trace(confusion)
    assert metrics.top5.hits == hits5
    for index, one in enumerate(metrics.classes):
        true, taken, right = (
            confusion[index].sum(),
            confusion[:, index].sum(),
            confusion[index, index],
        )
        assert (one.support, one.predicted) == (true, taken)
        assert one.recall == (pytest.approx(right / true) if true else None)
        assert one.precision == (pytest.approx(right / taken) if taken else None)
        assert one.f1 == (pytest.approx(2 * right / (true + taken)) if true + taken else None)
    assert metrics.calibration_error == pytest.approx(
        naive_calibration_error(probabilities, labels)
    )
    check_invariants(metrics)


def naive_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for index in range(CALIBRATION_BINS):
        low, high = np.linspace(0, 1, CALIBRATION_BINS + 1)[[index, index + 1]]
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if low < row.max() <= high
        ]
        total += abs(sum(right - confidence for confidence, right in inside)) / len(labels)
    return total


def check_invariants(metrics: Metrics) -> None:
    assert metrics.confusion.sum() == metrics.images
    assert sum(one.count for one in metrics.calibration) == metrics.images
    for share in (metrics.top1, metrics.top5):
        assert 0 <= share.low <= share.value <= share.high <= 1
    assert metrics.top1.hits <= metrics.top5.hits
    assert 0 <= metrics.calibration_error <= 1
