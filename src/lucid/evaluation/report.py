"""An evaluation as one HTML page that can be sent to a colleague."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucid import __version__
from lucid.errors import DataError
from lucid.evaluation import plots
from lucid.evaluation.explanation import enlarge, overlay
from lucid.evaluation.measurement import Evaluation, Mistake
from lucid.evaluation.metrics import CALIBRATION_BINS, Metrics, Share
from lucid.files import open_file
from lucid.page import Html, element, page, picture, svg, table
from lucid.prediction import Predictor

__all__ = ["interval", "percent", "read_log", "report"]

_CONFUSED_PAIRS = 15
_MAX_LOG_BYTES = 16 * 1024**2


def report(
    evaluation: Evaluation,
    classifier: Predictor,
    *,
    title: str,
    description: str,
    log: Sequence[Mapping[str, float]] = (),
) -> str:
    """The page: summary, worst mistakes with class-activation maps, confusion, classes, curves.

    Args:
        evaluation: of the classifier; files of its mistakes are read again.
        title: such as ``"Evaluation of model.safetensors"``.
        description: what was measured, in a sentence.
        log: rows of the training log, if it is at hand; its curves are drawn.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    metrics = evaluation.metrics
    sections = [
        element("p", description, class_="quiet"),
        _summary(metrics),
        *_mistakes(evaluation, classifier),
        *_confusion(metrics),
        *_classes(metrics),
        *_calibration(metrics),
        *_curves(log),
        *_unreadable(evaluation),
        element("p", _made_by(classifier), class_="quiet"),
    ]
    return page(title, *sections)


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's log.csv, for its curves; none where there is no such file.

    Raises:
        DataError: the file is no training log.
    """
    if not path.exists():
        return []
    with open_file(path, max_bytes=_MAX_LOG_BYTES, error=DataError) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        try:
            return [{name: float(row[name]) for name in plots.CURVE_COLUMNS} for row in reader]
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: no training log ({error})") from error


def percent(share: float | None) -> str:
    """A share in words: ``"84.2%"``, or a dash where it is of nothing."""
    return "–" if share is None else f"{share:.1%}"


def interval(share: Share) -> str:
    """The 95% confidence interval in words."""
    return f"95% interval {share.low:.1%} to {share.high:.1%}"


def _summary(metrics: Metrics) -> Html:
    cards = [
        ("Top-1", percent(metrics.top1.value), interval(metrics.top1)),
        (f"Top-{metrics.top5_classes}", percent(metrics.top5.value), interval(metrics.top5)),
        ("Macro F1", percent(metrics.macro_f1), "mean over the classes in the data"),
        ("Calibration error", percent(metrics.calibration_error), "expected, see below"),
        ("Images", f"{metrics.images:,}", f"{metrics.images - metrics.top1.hits:,} mistaken"),
    ]
    return element("div", *(_card(*card) for card in cards), class_="cards")


def _card(name: str, value: str, note: str) -> Html:
    quiet = element("span", note, class_="quiet")
    return element("div", name, element("strong", value), quiet, class_="card")


def _mistakes(evaluation: Evaluation, classifier: Predictor) -> list[Html]:
    mistakes = evaluation.mistakes
    if not mistakes:
        return []
    seen = list(classifier.classify([one.path for one in mistakes]))
    # A file may have gone since it was measured.
    shown = [(one, s.pixels) for one, s in zip(mistakes, seen, strict=True) if s.error is None]
    if not shown:
        return []
    labels = np.array([classifier.class_names.index(one.predicted) for one, _ in shown])
    maps = classifier.class_activation_map(np.stack([pixels for _, pixels in shown]), labels)
    return [
        element("h2", "Worst mistakes"),
        element("p", _what_is_shown(classifier), class_="quiet"),
        element(
            "div",
            *(
                _mistake(one, pixels, activation)
                for (one, pixels), activation in zip(shown, maps, strict=True)
            ),
            class_="pictures",
        ),
    ]


def _what_is_shown(classifier: Predictor) -> str:
    side = classifier.map_side
    if side == 1:
        return (
            "What the model saw. Where in it the evidence is can't be shown: at resolution "
            f"{classifier.preprocessing.resolution} the class-activation map is a single cell."
        )
    return (
        "What the model saw, and where it found evidence for the class that it predicted: "
        f"bright is most, dark is least. The map has {side} x {side} cells."
    )


def _mistake(one: Mistake, pixels: NDArray[np.uint8], activation: NDArray[np.float32]) -> Html:
    image = picture(enlarge(pixels), f"an image of {one.true}")
    if activation.size > 1:
        evidence = picture(overlay(pixels, activation), f"evidence for {one.predicted}")
        image = element("div", image, evidence, class_="pair")
    return element(
        "figure",
        image,
        element(
            "figcaption",
            element("strong", one.predicted),
            f" {percent(one.predicted_probability)}, but it is ",
            element("strong", one.true),
            f" {percent(one.true_probability)}",
            element("div", str(one.path), class_="quiet"),
        ),
    )


def _confusion(metrics: Metrics) -> list[Html]:
    names = [one.name for one in metrics.classes]
    rows = [
        (
            names[true],
            names[predicted],
            f"{count:,}",
            percent(count / metrics.classes[true].support),
        )
        for true, predicted, count in metrics.confused_pairs()[:_CONFUSED_PAIRS]
    ]
    drawing = element("div", svg(plots.to_svg(plots.confusion(metrics.confusion, names))))
    header = ("true", "taken for", "images", "of the true class")
    pairs = [table(header, rows, numbers=2)] if rows else []
    return [
        element("h2", "Which class is taken for which"),
        element("div", drawing, *pairs, class_="beside"),
    ]


def _classes(metrics: Metrics) -> list[Html]:
    rows = [
        (one.name, percent(one.precision), percent(one.recall), percent(one.f1), f"{one.support:,}")
        for one in metrics.worst_classes()
    ]
    return [
        element("h2", "Classes, the worst first"),
        table(("class", "precision", "recall", "F1", "images"), rows, numbers=4),
    ]


def _calibration(metrics: Metrics) -> list[Html]:
    return [
        element("h2", "Calibration"),
        element(
            "p",
            "Of the images that the model is 80% sure of, 80% should be right. Where bars end "
            "below the dotted line, it is surer than it should be. The expected calibration error, "
            f"{percent(metrics.calibration_error)}, is the mean distance from that line, weighted "
            f"by the images in each of {CALIBRATION_BINS} bins of equal width.",
            class_="quiet",
        ),
        element("div", svg(plots.to_svg(plots.calibration(metrics.calibration)))),
    ]


def _curves(log: Sequence[Mapping[str, float]]) -> list[Html]:
    if not log:
        return []
    return [element("h2", "Training"), element("div", svg(plots.to_svg(plots.curves(log))))]


def _unreadable(evaluation: Evaluation) -> list[Html]:
    if not evaluation.unreadable:
        return []
    return [
        element("h2", "Not measured: images that could not be read"),
        element("ul", *(element("li", message) for message in evaluation.unreadable)),
    ]


def _made_by(classifier: Predictor) -> str:
    return (
        f"{classifier.title}, resolution {classifier.preprocessing.resolution}, "
        f"{len(classifier.class_names):,} classes; "
        f"lucid {__version__}"
    )
