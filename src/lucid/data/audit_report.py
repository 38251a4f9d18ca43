"""An audit as one HTML page with thumbnails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from lucid.data.audit import GROUPS, KINDS, AuditReport, Finding, class_counts
from lucid.errors import ImageError
from lucid.images import read_image
from lucid.page import Html, element, page, picture, table

_THUMBNAIL = 128
# What a page can show of one kind before it grows too heavy to send; the JSON holds everything.
_PICTURES_A_KIND = 60
_PICTURES_A_GROUP = 6
_LINES_A_KIND = 200


def html_report(report: AuditReport) -> str:
    """The page: summary, classes, and each kind of finding with its pictures, gravest first."""
    sections = [
        element("p", report.summary() + ".", class_="quiet"),
        _cards(report),
        element("h2", "Classes"),
        _classes(report),
    ]
    for kind, findings in groupby(report.findings, key=lambda finding: finding.kind):
        sections += _section(report, kind, list(findings))
    if not report.findings:
        sections.append(element("p", "Nothing was found."))
    return page(f"Audit of {report.dataset.source.name or report.dataset.source}", *sections)


def _cards(report: AuditReport) -> Html:
    values = {
        "pictures": len(report.dataset.samples),
        "usable": len(report.usable),
        "classes": len(report.dataset.class_names),
        "groups of duplicates": len(report.duplicate_groups),
    }
    return element(
        "div",
        *(
            element("div", element("strong", f"{value:,}"), name, class_="card")
            for name, value in values.items()
        ),
        class_="cards",
    )


def _classes(report: AuditReport) -> Html:
    found = class_counts(report.dataset, range(len(report.dataset.samples)))
    usable = class_counts(report.dataset, report.usable)
    rows = [(name, f"{found[name]:,}", f"{usable[name]:,}") for name in found]
    return table(("class", "pictures", "usable"), rows, numbers=2)


def _section(report: AuditReport, kind: str, findings: list[Finding]) -> Iterator[Html]:
    severity, title, consequence = KINDS[kind]
    yield element("h2", title)
    yield element("p", f"{severity.capitalize()}; {consequence}.", class_="quiet")
    if kind in GROUPS:
        yield from _groups(report, findings)
        return
    if severity != "note":  # a note says no more than its title and pictures
        yield from _lines(finding.message for finding in findings)
    paths = [path for finding in findings for path in finding.paths]
    if kind == "stray":
        yield from _lines(report.dataset.name(path) for path in paths)
    elif kind != "unreadable" and paths:
        figures = [_figure(report, [path], "") for path in paths[:_PICTURES_A_KIND]]
        yield element("div", *figures, class_="pictures")
        yield from _more(len(paths) - _PICTURES_A_KIND, "pictures")


def _groups(report: AuditReport, findings: list[Finding]) -> Iterator[Html]:
    figures = []
    shown = 0
    for finding in findings:
        if shown >= _PICTURES_A_KIND:
            break
        figures.append(_figure(report, finding.paths[:_PICTURES_A_GROUP], finding.message))
        shown += min(len(finding.paths), _PICTURES_A_GROUP)
    yield element("div", *figures, class_="pictures")
    yield from _more(len(findings) - len(figures), "groups")


def _lines(texts: Iterable[str]) -> Iterator[Html]:
    lines = list(texts)
    yield element("ul", *(element("li", line) for line in lines[:_LINES_A_KIND]))
    yield from _more(len(lines) - _LINES_A_KIND, "lines")


def _more(count: int, what: str) -> Iterator[Html]:
    if count > 0:
        yield element("p", f"and {count:,} more {what}; --json lists all", class_="quiet")


def _figure(report: AuditReport, paths: Iterable[Path], message: str) -> Html:
    """Thumbnails side by side, with the files' names below."""
    paths = list(paths)
    names = [report.dataset.name(path) for path in paths]
    pictures = [
        part
        for path, name in zip(paths, names, strict=True)
        for part in (_thumbnail(path, name), " ")  # the space parts two thumbnails
    ]
    captions = [element("div", line) for line in (message, *names) if line]
    return element("figure", *pictures, element("figcaption", *captions))


def _thumbnail(path: Path, name: str) -> Html:
    try:
        image = read_image(path, name=name, needed_side=_THUMBNAIL)
    except ImageError as error:  # the file has changed since it was audited
        return element("p", str(error))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return picture(image, name)
