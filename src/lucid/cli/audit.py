"""``lucid audit``: what is wrong with a data set."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli.terminal import console, printable

if TYPE_CHECKING:
    from lucid.data.audit import AuditReport, Finding

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_NAMES_SHOWN = 2
# Pictures in a row of the contact sheet, and their largest side, so that it fits memory.
_AUGMENTED = 8
_AUGMENTED_SIDE = 512


@click.command("audit")
@click.argument("data", metavar="DATA")
@click.option(
    "--resolution",
    type=click.IntRange(1, 8192),
    default=128,
    show_default=True,
    metavar="N",
    help="Input side in pixels that pictures are measured against.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with thumbnails of everything found.",
)
@click.option(
    "--augmented",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw what each kind of augmentation does to a few pictures.",
)
def command(
    data: str, resolution: int, as_json: bool, html: Path | None, augmented: Path | None
) -> None:
    """Find what is wrong with a folder of photos.

    DATA is a folder of class folders, with or without train and val folders around them, a .csv or
    .jsonl manifest with the columns path and label, or a .zip or .tar of either. Findings are
    results: the exit code is 0.
    """
    from lucid.data.audit_report import html_report
    from lucid.errors import ConfigError, require
    from lucid.files import check_writable_folder, write_text
    from lucid.images import IMAGE_SUFFIXES

    for file in filter(None, (html, augmented)):
        check_writable_folder(file.parent)
    if augmented:
        if augmented.suffix.casefold() not in IMAGE_SUFFIXES:
            raise ConfigError(f"{augmented}: a picture's name ends with a format, such as .png")
        require("torch", extra="train")
    report = _audit(data, resolution)
    if as_json:
        click.echo(report.to_json())
    else:
        _print_table(report)
    if html:
        write_text(html, html_report(report))
    if augmented:
        _draw_augmented(report, augmented)


def _audit(data: str, resolution: int) -> AuditReport:
    """Audit with a progress bar on stderr, if that is a terminal."""
    from rich.progress import Progress

    from lucid.data.audit import audit
    from lucid.data.sources import open_data

    terminal = console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bars:
        dataset = open_data(data)
        task = bars.add_task("Auditing", total=len(dataset.samples))

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return audit(dataset, resolution, progress=advance)


def _print_table(report: AuditReport) -> None:
    from rich.table import Table
    from rich.text import Text

    from lucid.data.audit import KINDS

    output = console()
    output.print(printable(report.summary()))
    if not report.findings:
        output.print("nothing was found")
        return
    table = Table("", "finding", box=None, header_style="bold", pad_edge=False)
    table.add_column("files", justify="right")
    table.add_column("what is done")
    table.add_column("such as")
    for kind, group in groupby(report.findings, key=lambda finding: finding.kind):
        findings = list(group)
        severity, title, consequence = KINDS[kind]
        files = len({path for finding in findings for path in finding.paths})
        table.add_row(
            Text(severity, _COLORS[severity]),
            title,
            f"{files:,}" if files else "",
            consequence,
            printable(_example(report, findings)),
        )
    output.print(table)


def _example(report: AuditReport, findings: list[Finding]) -> str:
    """The first finding in words, with a file or two unless the words name them."""
    from lucid.data.audit import GROUPS

    first = findings[0]
    names = [report.dataset.name(path) for path in first.paths[:_NAMES_SHOWN]]
    if first.kind in GROUPS and names:
        return ", ".join(names)
    if first.severity == "note":
        return names[0]
    more = f" (and {len(findings) - 1:,} more)" if len(findings) > 1 else ""
    return first.message + more


def _draw_augmented(report: AuditReport, path: Path) -> None:
    import numpy as np

    from lucid.data.contact_sheet import contact_sheet
    from lucid.errors import DataError
    from lucid.images import load_squashed

    samples = [report.dataset.samples[index] for index in report.usable]
    if not samples:
        raise DataError(f"{report.dataset.source}: there is no usable picture to augment")
    # A spread over the classes, which follow one another.
    count = min(_AUGMENTED, len(samples))
    chosen = [samples[len(samples) * number // count] for number in range(count)]
    side = min(report.resolution, _AUGMENTED_SIDE)
    squashed = [load_squashed(sample.path, side) for sample in chosen]
    pixels = np.stack([image for image, _ in squashed])  # (N, S, S, 3)
    sizes = np.array([size for _, size in squashed], np.int32)  # (N, 2)
    contact_sheet(pixels, sizes, side, path)
