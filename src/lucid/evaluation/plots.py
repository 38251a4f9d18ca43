"""Drawings: training curves, confusion matrix, calibration."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lucid.drawing import BLUE, INK, ORANGE, new_figure, style
from lucid.errors import require
from lucid.evaluation.metrics import CalibrationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

__all__ = ["CURVE_COLUMNS", "calibration", "confusion", "curves", "to_svg"]

CURVE_COLUMNS = ("epoch", "train_loss", "train_top1", "validation_loss", "validation_top1")

# With more classes than this, names and counts would be too small to read.
_NAMED_CLASSES = 25
_NAME_LENGTH = 24
# A drawing has room for about as many cells in a row.
_CELLS = 200


def curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and top-1 over the epochs of a training log.

    The validation loss may begin above the axis: averaged weights that have hardly been trained
    can be many times as wrong as those of all later epochs, whose curves would be flat.

    Args:
        rows: one for each epoch, with ``CURVE_COLUMNS`` of the log; top-1 as shares, 0 to 1.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(8.4, 3.2)
    with style():
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in rows]
        for axes, name, title in ((left, "loss", "Loss"), (right, "top1", "Top-1")):
            for split, color in (("train", BLUE), ("validation", ORANGE)):
                values = [row[f"{split}_{name}"] for row in rows]
                # A line through one point would not show.
                axes.plot(
                    epochs, values, color=color, label=split, marker="o" if len(rows) == 1 else None
                )
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(_ticker().MaxNLocator(integer=True, min_n_ticks=1))
        settled = rows[len(rows) // 10 :]
        losses = [row["train_loss"] for row in rows] + [row["validation_loss"] for row in settled]
        if finite := [loss for loss in losses if math.isfinite(loss)]:
            left.set_ylim(0, 1.05 * max(finite) or 1)
        right.yaxis.set_major_formatter(_percent())
        left.legend()
    return figure


def confusion(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Which class (row) was taken for which (column), as shares of the row.

    With at most 25 classes names and counts are written in; with more, only colours show; with more
    than 200, each cell stands for a block of them and shows the block's largest share.

    Args:
        matrix: int (K, K), counts.
        class_names: K names; long ones are cut.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    colors = require("matplotlib.colors", extra="train")
    # From nothing to blue, so that empty cells have the colour of the page.
    ramp = colors.LinearSegmentedColormap.from_list("ramp", [(*colors.to_rgb(BLUE), 0), BLUE])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (K, K)
    count = len(class_names)
    side = min(2.2 + 0.42 * count, 7.5)
    figure = new_figure(side + 1.0, side)
    with style():
        axes = figure.subplots()
        image = axes.imshow(
            _block_maximum(shares),
            cmap=ramp,
            vmin=0,
            vmax=1,
            interpolation="none",
            extent=(-0.5, count - 0.5, count - 0.5, -0.5),
        )
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        bar = figure.colorbar(image, ax=axes, format=_percent(), shrink=0.7)
        bar.outline.set_visible(False)
        if count <= _NAMED_CLASSES:
            names = [_cut(name) for name in class_names]
            axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(count), names)
            _write_counts(axes, matrix)
    return figure


def calibration(bins: Sequence[CalibrationBin]) -> Figure:
    """How often the model is right against how sure it is, and how many images are how sure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(4.2, 4.4)
    with style():
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        lows = [one.low for one in bins]
        width = bins[0].high - bins[0].low
        upper.plot([0, 1], [0, 1], color=INK, linestyle=":", label="perfectly calibrated")
        upper.bar(
            lows, [one.accuracy or 0 for one in bins], width, align="edge", color=BLUE, alpha=0.85
        )
        upper.set_ylabel("share that is right")
        upper.set_ylim(0, 1)
        upper.legend(loc="upper left")
        lower.bar(lows, [one.count for one in bins], width, align="edge", color=ORANGE, alpha=0.85)
        lower.set_ylabel("images")
        lower.set_xlabel("probability of the predicted class")
        lower.set_xlim(0, 1)
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(_percent())
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as SVG whose ink is the text colour of the page that it stands in."""
    buffer = io.StringIO()
    with style(), warnings.catch_warnings():
        # Measured with a font that may lack a script; the browser draws it with one that has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().replace(INK, "currentColor")


def _ticker() -> ModuleType:
    return require("matplotlib.ticker", extra="train")


def _percent() -> Formatter:
    formatter: Formatter = _ticker().PercentFormatter(1, decimals=0)
    return formatter


def _block_maximum(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest share of each block of cells, in as many blocks as can be told apart."""
    count = len(shares)
    starts = np.arange(0, count, -(-count // _CELLS))
    return np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def _write_counts(axes: Axes, matrix: NDArray[np.int64]) -> None:
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            axes.text(column, row, f"{number}", ha="center", va="center")
