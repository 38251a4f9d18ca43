"""``lucid evaluate``: how good a checkpoint is on labelled photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lucid.cli.running import engine_options
from lucid.cli.terminal import console, printable, say, track
from lucid.data.samples import quote_names
from lucid.errors import DataError, require

if TYPE_CHECKING:
    from lucid.evaluation.measurement import Evaluation
    from lucid.evaluation.selection import SplitChoice
    from lucid.prediction import Predictor

_CLASSES_SHOWN = 20
_MISTAKES_SHOWN = 5
_PAIRS_SHOWN = 5


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="Part of DATA to measure; by default what training did not see.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write one self-contained page with pictures.",
)
@engine_options
def command(
    checkpoint: Path,
    data: Path,
    split: str | None,
    as_json: bool,
    report: Path | None,
    **running: Any,
) -> None:
    """Measure a checkpoint on labelled photos.

    DATA is a folder of class folders, a .csv or .jsonl manifest, or a .zip or .tar of either; its
    classes are matched with the checkpoint's by name. Without --split, the test or else the
    validation part is measured, of DATA itself or as the checkpoint remembers it; all of DATA where
    it has neither. Pictures that can't be read are reported and left out.
    """
    from lucid.data.sources import open_data
    from lucid.evaluation.measurement import evaluate, select
    from lucid.files import check_writable_folder
    from lucid.opening import load

    if report is not None:
        require("matplotlib", extra="train")
        check_writable_folder(report.parent)
    classifier: Predictor = load(checkpoint, **running)
    dataset = open_data(data)
    for warning in dataset.warnings:
        say(warning, "warning")
    selection = select(dataset, classifier, cast("SplitChoice | None", split))
    if selection.unseen_classes:
        say(f"the data has no picture of {quote_names(selection.unseen_classes)}", "warning")
    what = f"{len(selection.samples):,} images, {selection.description}"
    say(f"measuring {what}")
    evaluation = evaluate(
        classifier, selection.samples, track=lambda paths: track(paths, "Evaluating")
    )
    for message in evaluation.unreadable:
        say(f"left out: {message}", "warning")
    if report is not None:
        _write_report(report, evaluation, classifier, checkpoint, f"{data}: {what}.")
    if as_json:
        origin = {
            "checkpoint": str(checkpoint),
            "data": str(data),
            "part": selection.description,
            "unseen_classes": selection.unseen_classes,
        }
        click.echo(json.dumps(origin | evaluation.to_json(), indent=2))
    else:
        _print(evaluation)


def _write_report(
    path: Path, evaluation: Evaluation, classifier: Predictor, checkpoint: Path, what: str
) -> None:
    from lucid.evaluation.report import read_log, report
    from lucid.files import write_text

    try:
        log = read_log(checkpoint.parent / "log.csv")
    except DataError as error:
        say(f"{error}; the report has no training curves", "warning")
        log = []
    title = f"Evaluation of {checkpoint.name}"
    write_text(path, report(evaluation, classifier, title=title, description=what, log=log))
    say(f"the report is {path}")


def _print(evaluation: Evaluation) -> None:
    from lucid.evaluation.metrics import CALIBRATION_BINS
    from lucid.evaluation.report import interval, percent

    metrics = evaluation.metrics
    summary = [
        ("top-1", percent(metrics.top1.value), interval(metrics.top1)),
        (f"top-{metrics.top5_classes}", percent(metrics.top5.value), interval(metrics.top5)),
        ("macro F1", percent(metrics.macro_f1), "mean over the classes in the data"),
        (
            "calibration error",
            percent(metrics.calibration_error),
            f"expected, {CALIBRATION_BINS} bins",
        ),
    ]
    classes = [
        (one.name, percent(one.precision), percent(one.recall), percent(one.f1), f"{one.support:,}")
        for one in metrics.worst_classes()
    ]
    confusions = [
        (metrics.classes[true].name, metrics.classes[predicted].name, f"{count:,}")
        for true, predicted, count in metrics.confused_pairs()
    ]
    mistakes = [
        (
            f"{one.true} {percent(one.true_probability)}",
            f"{one.predicted} {percent(one.predicted_probability)}",
            str(one.path),
        )
        for one in evaluation.mistakes
    ]
    _print_table("lrl", ("", "", ""), summary)
    header = ("class", "precision", "recall", "F1", "images")
    _print_table("lrrrr", header, classes, _CLASSES_SHOWN)
    _print_table("llr", ("true", "taken for", "images"), confusions, _PAIRS_SHOWN)
    _print_table("lll", ("true", "predicted", "worst mistakes"), mistakes, _MISTAKES_SHOWN)


def _print_table(
    sides: str, header: Sequence[str], rows: Sequence[Sequence[str]], shown: int | None = None
) -> None:
    """Print the first rows and how many more there are; ``sides`` has l or r for each column."""
    from rich.table import Table

    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(header))
    for name, side in zip(header, sides, strict=True):
        table.add_column(name, justify="right" if side == "r" else "left")
    for row in rows[:shown]:
        table.add_row(*(printable(cell) for cell in row))
    console().print(table)
    hidden = len(rows) - len(rows[:shown])
    click.echo(f"and {hidden:,} more; --json has all\n" if hidden else "")
