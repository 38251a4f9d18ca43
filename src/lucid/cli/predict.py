"""``lucid predict``: labels and probabilities of photos."""

from __future__ import annotations

import csv
import io
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.running import engine_options
from lucid.cli.terminal import console, printable, say, track
from lucid.errors import ConfigError

if TYPE_CHECKING:
    from lucid.prediction import Classified, Prediction, Predictor, Source

# More lines than this say nothing new; --json and --csv hold every error.
_ERRORS_SHOWN = 20
_MAX_STEM = 60  # characters, so that a name stays below 255 bytes in any script


@dataclass(frozen=True)
class _Answer:
    """A prediction and the picture that explains it, if one was asked for."""

    prediction: Prediction
    explanation: Path | None


@click.command("predict")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE|FOLDER|-...", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="K",
    help="Labels for each image.",
)
@click.option(
    "--json", "layout", flag_value="json", help="Print JSON, a list of one object an image."
)
@click.option("--csv", "layout", flag_value="csv", help="Print CSV, one row a label.")
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the class-activation map of each image's first label into DIR.",
)
@engine_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    checkpoint: Path,
    images: tuple[str, ...],
    top: int,
    layout: str | None,
    explain: Path | None,
    **running: Any,
) -> None:
    """Name what is in photos.

    A FOLDER is searched with all folders in it; - is one picture on standard input. A picture that
    can't be read is reported, the others are predicted, and the exit code is 2. JSON and CSV are
    printed while the work goes on, a table at its end.
    """
    from lucid.files import check_writable_folder
    from lucid.opening import load

    classifier: Predictor = load(checkpoint, **running)
    sources = list(_sources(images))
    if explain is not None:
        check_writable_folder(explain)
        if classifier.map_side == 1:
            side = classifier.preprocessing.resolution
            say(f"at resolution {side} a map is a single cell, which shows no place", "warning")
    names = _ExplanationNames(explain, sources) if explain else None
    errors: list[str] = []

    def answers() -> Iterator[_Answer]:
        # On a terminal, results that are printed meanwhile show well enough how far it has got.
        shown = layout is not None and sys.stdout.isatty()
        for one in classifier.classify(sources if shown else track(sources, "Predicting")):
            if one.error is not None:
                errors.append(one.error)
            explanation = _explain(classifier, one, names) if names and one.error is None else None
            yield _Answer(classifier.prediction(one, top), explanation)

    write = {"json": _write_json, "csv": _write_csv}.get(layout or "", _write_table)
    write(answers())
    for error in errors[:_ERRORS_SHOWN]:
        say(error, "error")
    if errors:
        say(f"{len(errors):,} of {len(sources):,} images could not be read", "error")
        ctx.exit(2)


def _sources(images: Iterable[str]) -> Iterator[Source]:
    """Paths of pictures, folders searched, and standard input as a stream."""
    from lucid.data.sources import find_pictures

    for image in images:
        if not image:  # such as a variable of the shell that is not set; a Path takes it for "."
            raise ConfigError("an IMAGE can't be an empty word; . is the current folder")
        if image == "-":
            yield _standard_input()
        elif Path(image).is_dir():
            yield from find_pictures(image)
        else:
            yield Path(image)


def _standard_input() -> Source:
    """What stands on standard input, read here: a thread that waits for it can't be stopped."""
    from lucid.images import MAX_FILE_BYTES

    stream = io.BytesIO(sys.stdin.buffer.read(MAX_FILE_BYTES + 1))
    stream.name = "<stdin>"
    return stream


class _ExplanationNames:
    """Gives each picture a file of its own in a folder, and never that of an input."""

    def __init__(self, folder: Path, sources: Iterable[Source]) -> None:
        self.folder = folder
        self.taken = {_key(source) for source in sources if isinstance(source, Path)}
        self.numbers: Counter[str] = Counter()

    def give(self, source: str) -> Path:
        stem = Path(source.strip("<>")).stem[:_MAX_STEM]
        path = self.folder / f"{stem}.png"
        while _key(path) in self.taken:
            self.numbers[stem] += 1
            path = self.folder / f"{stem}-{self.numbers[stem] + 1}.png"
        self.taken.add(_key(path))
        return path


def _key(path: Path) -> str:
    """The same for two names of one file; some file systems don't tell cases apart."""
    return str(path.resolve()).casefold()


def _explain(classifier: Predictor, one: Classified, names: _ExplanationNames) -> Path:
    import numpy as np

    from lucid.evaluation.explanation import overlay
    from lucid.files import atomic_path

    activation = classifier.class_activation_map(one.pixels, np.array([one.logits.argmax()]))[0]
    path = names.give(one.source)
    with atomic_path(path) as temporary:
        overlay(one.pixels, activation).save(temporary, "PNG")
    return path


def _write_table(found: Iterable[_Answer]) -> None:
    from rich.table import Table

    answers = list(found)  # a table's columns fit what is in them
    explained = any(answer.explanation for answer in answers)
    table = Table("image", "label", box=None, header_style="bold", pad_edge=False)
    table.add_column("probability", justify="right")
    if explained:
        table.add_column("explanation")
    for answer in answers:
        image, explanation = answer.prediction.source, str(answer.explanation or "")
        for label, probability in answer.prediction.labels:
            row = [printable(image), printable(label), f"{probability:.1%}", printable(explanation)]
            table.add_row(*row[: len(table.columns)])
            image = explanation = ""  # once for each image
    if table.rows:
        console().print(table)


def _write_json(answers: Iterable[_Answer]) -> None:
    """One list, each of its objects as soon as it is known."""
    before = "["
    for answer in answers:
        text = textwrap.indent(json.dumps(_to_json(answer), indent=2), "  ")
        click.echo(f"{before}\n{text}", nl=False)
        before = ","
    click.echo("\n]")


def _to_json(answer: _Answer) -> dict[str, Any]:
    prediction = answer.prediction
    return {
        "source": prediction.source,
        "labels": [{"label": label, "probability": value} for label, value in prediction.labels],
        "error": prediction.error,
        "explanation": answer.explanation and str(answer.explanation),
    }


def _write_csv(answers: Iterable[_Answer]) -> None:
    # A program gets the names as they are; a terminal must not be steered by them.
    shown = printable if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")

    def write(*cells: object) -> None:
        writer.writerow([shown(str(cell)) for cell in cells])

    write("source", "rank", "label", "probability", "error", "explanation")
    for answer in answers:
        prediction, explanation = answer.prediction, answer.explanation or ""
        if prediction.error is not None:
            write(prediction.source, "", "", "", prediction.error, explanation)
        for rank, (label, probability) in enumerate(prediction.labels, start=1):
            write(prediction.source, rank, label, probability, "", explanation)
        sys.stdout.flush()
