"""Self-contained HTML pages: style and pictures inside, nothing fetched, every name escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_VOID = frozenset({"br", "img", "meta"})

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --quiet: #59636e;
  --line: #d1d9e0; --panel: #f6f8fa; --accent: #0969da; }
@media (prefers-color-scheme: dark) { :root { --ink: #f0f6fc; --paper: #0d1117; --quiet: #9198a1;
  --line: #3d444d; --panel: #151b23; --accent: #4493f8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.quiet { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 600; overflow-wrap: normal; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.card { padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--panel); }
.card strong { display: block; font-size: 1.5rem; line-height: 1.3; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.beside > * { max-width: 100%; }
.pair { display: grid; gap: .25rem; grid-template-columns: 1fr 1fr; margin-bottom: .35rem; }
figure { margin: 0; }
figcaption { font-size: .875rem; }
img, svg { max-width: 100%; height: auto; }
img { border-radius: .25rem; }
"""


class Html(str):
    """Text that is HTML already, so that it is not escaped again; only this module makes it."""


def element(tag: str, *children: str, **attributes: object) -> Html:
    """One HTML element; children that are not ``Html`` are escaped, as are attribute values.

    A trailing underscore is dropped from attribute names (``class_``); None leaves one out.
    """
    names = "".join(
        f' {name.rstrip("_")}="{html.escape(_printable(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{names}>")
    inside = "".join(c if isinstance(c, Html) else html.escape(_printable(c)) for c in children)
    return Html(f"<{tag}{names}>{inside}</{tag}>")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> Html:
    """A table whose last ``numbers`` columns hold numbers, set to the right."""
    first_number = len(header) - numbers

    def row(tag: str, cells: Sequence[str]) -> Html:
        return element(
            "tr",
            *(
                element(tag, cell, class_="number" if index >= first_number else None)
                for index, cell in enumerate(cells)
            ),
        )

    body = element("tbody", *(row("td", cells) for cells in rows))
    return element(
        "div", element("table", element("thead", row("th", header)), body), class_="scroll"
    )


def picture(image: Image, description: str) -> Html:
    """An RGB or greyscale image as a JPEG inside the page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return element(
        "img", src=source, alt=description, width=image.width, height=image.height, loading="lazy"
    )


def svg(markup: str) -> Html:
    """An SVG drawing made by this project, without its XML prologue, for use inside a page."""
    return Html(markup[markup.index("<svg") :])


def page(title: str, *body: Html) -> str:
    """A whole page, for light and dark screens."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    content = element("body", element("h1", title), *body)
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def _printable(text: str) -> str:
    """Text that UTF-8 can hold: file names may contain bytes that are no characters."""
    return text.encode("utf-8", "backslashreplace").decode()
