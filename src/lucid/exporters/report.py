"""Exports beside one another: accuracy, size and latency over formats and precisions, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucid import __version__
from lucid.drawing import BLUE, ORANGE, new_figure, style
from lucid.evaluation.plots import to_svg
from lucid.exporters.exported import Exported
from lucid.exporters.verification import Verification
from lucid.page import element, page, svg, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HEADER", "NUMBERS", "Row", "cells", "drawing", "report"]

HEADER = (
    "format",
    "precision",
    "run by",
    "answers",
    "MB",
    "ms",
    "difference",
    "same class",
    "top-1",
)
# The last columns, which hold numbers.
NUMBERS = 5

_COLOURS = {"float32": BLUE, "float16": "#2f9e77", "int8": ORANGE}


@dataclass(frozen=True)
class Row:
    """A file, and what one runtime made of it.

    Args:
        source: what was exported.
        exported: its content.
        path: where it was written.
        verification: None if it was not run.
    """

    source: Path
    exported: Exported
    path: Path
    verification: Verification | None

    @property
    def failure(self) -> str:
        """What is wrong with the answers, after the runtime's name; empty if nothing is."""
        one = self.verification
        return "" if one is None or one.passed else f"{one.runtime}: {one.failure}"

    @property
    def remark(self) -> str:
        """What a user of this format in this precision must know; may be empty."""
        text = self.exported.format.remarks.get(self.exported.precision)
        return f"{self.exported.format.title}: {text}" if text else ""

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "source": str(self.source),
            "path": str(self.path),
            "format": self.exported.format.title,
            "precision": self.exported.precision,
            "bytes": self.exported.size,
            "verification": None if self.verification is None else self.verification.to_json(),
        }


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, as ``HEADER`` names them."""
    start = (row.exported.format.title, row.exported.precision)
    size, one = f"{row.exported.size / 1e6:.2f}", row.verification
    if one is None:
        return (*start, "", "not verified", size, "", "", "", "")
    answers = "the same bits" if one.difference == 0 else "close enough"
    return (
        *start,
        f"{one.runtime} {one.version}".rstrip(),
        answers if one.passed else "rejected",
        size,
        "" if one.seconds is None else f"{1e3 * one.seconds:.2f}",
        f"{one.difference:.2g}",
        f"{one.agreement:.2%}",
        "" if one.top1 is None else f"{one.top1:.2%}",
    )


def report(rows: Sequence[Row], *, title: str, description: str) -> str:
    """The page: a table of all rows, and a drawing.

    Args:
        title: such as ``"Exports of model.safetensors"``.
        description: what they were verified on, in words.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    remarks = dict.fromkeys(row.remark for row in rows if row.remark)
    failures = [f"{row.path}: {row.failure}" for row in rows if row.failure]
    return page(
        title,
        element("p", f"Compared with the reference on {description}.", class_="quiet"),
        *(element("p", element("strong", failure)) for failure in failures),
        element("div", svg(to_svg(drawing(rows))), class_="scroll"),
        element("h2", "Every file"),
        table(HEADER, [_unbroken(cells(row)) for row in rows], numbers=NUMBERS),
        element(
            "p",
            "A time is the median of one image on one thread of this machine, without decoding; "
            "the difference is that of a logit.",
            class_="quiet",
        ),
        *(element("p", remark, class_="quiet") for remark in remarks),
        element("p", f"lucid {__version__}", class_="quiet"),
    )


def _unbroken(texts: Sequence[str]) -> list[str]:
    """Cells that are wrapped nowhere but the longest, the runtime's."""
    runtime = HEADER.index("run by")
    return [
        text if place == runtime else element("span", text, style="white-space: nowrap")
        for place, text in enumerate(texts)
    ]


def drawing(rows: Sequence[Row]) -> Figure:
    """Bars of accuracy, size and latency, a line for each row; colours are precisions.

    Accuracy is top-1 where labels are known, else the share of images with the reference's class.
    """
    is_labelled = any(one.verification and one.verification.top1 is not None for one in rows)
    panels = [
        ("top-1, %" if is_labelled else "same class as the reference, %", _accuracy, "{:.1f}"),
        ("size, MB", lambda row: row.exported.size / 1e6, "{:.2f}"),
        ("latency, ms an image", _milliseconds, "{:.2f}"),
    ]
    figure = new_figure(9.6, 1.1 + 0.26 * len(rows))
    with style():
        for number, (axes, (title, value, form)) in enumerate(
            zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True)
        ):
            for place, row in enumerate(rows):
                length = value(row)
                if length is None:
                    continue
                axes.barh(place, length, color=_COLOURS[row.exported.precision], height=0.7)
                axes.annotate(
                    form.format(length),
                    (length, place),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                )
            axes.set_title(title, loc="left")
            axes.margins(x=0.2)
            if value is _accuracy:
                axes.set(xlim=(0, 120), xticks=range(0, 101, 25))
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            if number == 0:
                axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
                axes.set_ylim(len(rows) - 0.4, -0.6)
        _legend(figure, rows)
    return figure


def _accuracy(row: Row) -> float | None:
    one = row.verification
    return None if one is None else 100 * (one.agreement if one.top1 is None else one.top1)


def _milliseconds(row: Row) -> float | None:
    one = row.verification
    return None if one is None or one.seconds is None else 1e3 * one.seconds


def _name(row: Row) -> str:
    """The format, and its runtime where it has several."""
    format_, one = row.exported.format, row.verification
    return format_.title if one is None or len(format_.runtimes) == 1 else one.runtime


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    from matplotlib.patches import Patch

    shown = {row.exported.precision for row in rows}
    handles = [Patch(color=color, label=name) for name, color in _COLOURS.items() if name in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
