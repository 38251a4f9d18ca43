"""``lucid export``: a checkpoint or network becomes a file that other runtimes run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from lucid.cli.export_c import export_c
from lucid.cli.terminal import console, printable, say, track
from lucid.exporters.formats import FORMATS, PRECISIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lucid.exporters.formats import Format, Precision
    from lucid.exporters.report import Row
    from lucid.exporters.verification import Examples
    from lucid.images import Pixels
    from lucid.network import FloatNetwork, Int8Network

_MAX_IMAGES = 2000


@dataclass(frozen=True)
class _Job:
    """One file to write."""

    source: Path
    network: FloatNetwork | Int8Network
    format: str
    precision: Precision
    out: Path


@click.command("export")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "formats",
    required=True,
    type=click.Choice([*FORMATS, "c", "all"]),
    help="Of the file; all writes those that are installed, in every precision; c is a folder of C"
    " sources for microcontrollers.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File to write, or the folder for several; by default beside CHECKPOINT.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of weights and arithmetic; float32 of a checkpoint and int8 of an int8 network if not"
    " given.",
)
@click.option(
    "--resolution",
    type=int,
    metavar="PIXELS",
    help="Side of the images that the file takes; that of the checkpoint if not given.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Photos to verify on: a folder, a manifest or an archive; generated pictures if not"
    " given.",
)
@click.option("--no-verify", is_flag=True, help="Write the file without running it.")
@click.option(
    "--prefix", metavar="NAME", help="With c: what all names begin with; model if not given."
)
@click.option(
    "--board",
    metavar="NAME",
    help="With c: check first that the network fits a board of lucid devices.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write one self-contained page with accuracy, size and latency.",
)
def command(
    checkpoints: tuple[Path, ...],
    formats: str,
    out: Path | None,
    precision: str | None,
    resolution: int | None,
    verify: Path | None,
    no_verify: bool,
    prefix: str | None,
    board: str | None,
    as_json: bool,
    report: Path | None,
) -> None:
    """Write CHECKPOINT as a file that another runtime runs, and prove that it answers the same.

    CHECKPOINT is a checkpoint or an int8 network of lucid quantize; several are exported one after
    another. Class names and preprocessing go along, normalisation is inside the file. The file is
    run in its own runtime and its answers are compared with the reference's. One that differs by
    more than is allowed is kept aside, with .rejected in its name, and the exit code is 1.
    """
    from lucid.errors import require
    from lucid.files import check_writable_folder, write_text

    if no_verify and verify is not None:
        raise click.UsageError("--verify and --no-verify exclude each other")
    if formats == "c":
        if len(checkpoints) > 1 or precision not in (None, "int8") or report is not None:
            raise click.UsageError("--format c takes one int8 network and makes no report")
        export_c(
            checkpoints[0],
            out=out,
            prefix="model" if prefix is None else prefix,
            board_name=board,
            resolution=resolution,
            pictures=None if no_verify else lambda network: _pictures(network, verify)[::2],
            must_verify=verify is not None,
            as_json=as_json,
        )
        return
    if prefix is not None or board is not None:
        raise click.UsageError("--prefix and --board are for --format c")
    if report is not None:
        require("matplotlib", extra="train")
        check_writable_folder(report.parent)
    asked = cast("Precision | None", precision)
    jobs = list(_jobs(checkpoints, formats, out, asked, resolution, not no_verify))
    rows: list[Row] = []
    what = "not verified"
    expected: Examples | None = None
    for index, job in enumerate(jobs):
        if not no_verify and (index == 0 or job.network is not jobs[index - 1].network):
            expected, what = _examples(job.network, verify)
        rows += _run(job, expected)
    for text in dict.fromkeys(row.remark for row in rows if row.remark):
        say(text)
    for row in rows:
        if row.failure:
            say(f"{row.path}: {row.failure}", "error")
    if report is not None:
        from lucid.exporters.report import report as page

        names = ", ".join(path.name for path in checkpoints)
        write_text(report, page(rows, title=f"Exports of {names}", description=what))
        say(f"the report is {report}")
    if as_json:
        click.echo(json.dumps({"images": what, "files": [row.to_json() for row in rows]}, indent=2))
    else:
        _print(rows)
    if any(row.failure for row in rows):
        click.get_current_context().exit(1)


def _jobs(
    checkpoints: Sequence[Path],
    formats: str,
    out: Path | None,
    precision: Precision | None,
    resolution: int | None,
    to_verify: bool,
) -> Iterator[_Job]:
    """What to write where; all that can be checked before the work is checked here."""
    from lucid.errors import ConfigError
    from lucid.exporters.exported import open_network
    from lucid.files import check_keeps, check_writable_folder

    every = formats == "all"
    is_folder = every or len(checkpoints) > 1
    installed = _installed(formats, to_verify)
    taken: set[Path] = set()
    for source in checkpoints:
        network = open_network(source, resolution)
        _say_nameless(source, network)
        choices = [
            (name, one)
            for name in installed
            for one in _precisions(FORMATS[name], network, precision, every)
        ]
        for name, one in choices:
            part = ".float16" if one == "float16" else ""
            file = f"{source.stem}{part}{FORMATS[name].suffix}"
            path = source.with_name(file) if out is None else out / file if is_folder else out
            FORMATS[name].stem(path)  # raises where the suffix is another format's
            check_keeps(path, source)
            if path in taken:
                raise ConfigError(f"{path}: would be written twice; give the checkpoints own names")
            taken.add(path)
            check_writable_folder(path.parent)
            yield _Job(source, network, name, one, path)


def _installed(formats: str, to_verify: bool) -> list[str]:
    """The format asked for, or all that can be written here; what can't is said."""
    if formats != "all":
        return [formats]
    found = []
    for name, format_ in FORMATS.items():
        missing = format_.missing(to_verify=to_verify)
        if missing:
            say(
                f"{name} is left out: it needs {', '.join(missing)}; "
                f"run: pip install 'lucid-mobilenet[{format_.extra}]'",
                "warning",
            )
        else:
            found.append(name)
    return found


def _precisions(
    format_: Format, network: FloatNetwork | Int8Network, asked: Precision | None, every: bool
) -> list[Precision]:
    """Those of a format to write; with ``every`` all that the network can have and that it has."""
    from lucid.network import Int8Network

    if not every:
        return [format_.choose_precision(network, asked)]
    own = ("int8",) if isinstance(network, Int8Network) else ("float32", "float16")
    return [one for one in format_.precisions if one in own and asked in (None, one)]


def _run(job: _Job, expected: Examples | None) -> list[Row]:
    """Make, verify and write one file; a row for each runtime that ran it."""
    from lucid.exporters.exported import export
    from lucid.exporters.report import Row
    from lucid.exporters.verification import verify

    exported = export(job.network, job.format, precision=job.precision)
    title = f"Verifying {exported.format.title}"
    found = (
        ()
        if expected is None
        else verify(exported, expected, track=lambda images: track(images, title))
    )
    path = job.out
    if any(not one.passed for one in found):
        path = exported.format.stem(path)
        path = path.with_name(f"{path.name}.rejected{exported.format.suffix}")
    exported.write(path)
    return [Row(job.source, exported, path, one) for one in found or (None,)]


def _examples(network: FloatNetwork | Int8Network, data: Path | None) -> tuple[Examples, str]:
    """Images with the reference's answers, and what they are."""
    from lucid.exporters.verification import examples

    pixels, labels, what = _pictures(network, data)
    say(f"verifying on {what}")
    return examples(network, pixels, labels, track=lambda parts: track(parts, "Reference")), what


def _pictures(
    network: FloatNetwork | Int8Network, data: Path | None
) -> tuple[Pixels, NDArray[np.int64] | None, str]:
    import numpy as np

    from lucid.evaluation.selection import select_samples
    from lucid.exporters.verification import sample_pixels
    from lucid.quantization.images import load_images, open_pictures, ranked

    preprocessing = network.preprocessing
    if data is None:
        pixels = sample_pixels(preprocessing.resolution, preprocessing.channels)
        return pixels, None, f"{len(pixels)} generated pictures"
    dataset = open_pictures(data)
    samples, what = dataset.samples, "without labels that the network knows"
    is_labelled = set(dataset.class_names) <= set(network.class_names)
    if is_labelled:
        selection = select_samples(dataset, network.class_names, network.provenance)
        samples, what = selection.samples, selection.description
    images = load_images(dataset, ranked(dataset, samples), preprocessing, _MAX_IMAGES)
    for message in images.unreadable:
        say(f"left out: {message}", "warning")
    labels = np.array([one.label for one in images.samples]) if is_labelled else None
    return images.pixels, labels, f"{len(images.samples):,} images of {data}, {what}"


def _say_nameless(source: Path, network: FloatNetwork | Int8Network) -> None:
    names = network.class_names
    if len(names) > 1 and names[1:] == tuple(f"class {k}" for k in range(1, len(names))):
        say(f"{source}: has no class names, so the files number them", "warning")


def _print(rows: Sequence[Row]) -> None:
    from rich.table import Table

    from lucid.exporters.report import HEADER, NUMBERS, cells

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate((*HEADER, "file")):
        is_number = len(HEADER) - NUMBERS <= index < len(HEADER)
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(printable, (*cells(row), str(row.path))))
    console().print(table)
