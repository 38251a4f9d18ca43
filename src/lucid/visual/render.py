"""Charts as files: Mermaid text, Markdown, a web page, SVG and PNG."""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from PIL import Image

from lucid.errors import ConfigError, RenderError, suggest
from lucid.files import check_writable_folder, write_bytes
from lucid.visual.browser import dump_page, find_browser, screenshot

# The version of package.json, and the hash of its dist/mermaid.min.js; a test compares both.
MERMAID_VERSION = "11.17.2"
MERMAID_INTEGRITY = "sha384-EOXBFmc3gx5mb+vn0vPvvGqACToJD24hhacX5Yx+8NUUQrHIle/Qi5Bg9o3zKwW2"

_LOCAL_MERMAID = Path("node_modules", "mermaid", "dist", "mermaid.min.js")
_PIXELS_OF_CSS_PIXEL = 2.0  # sharp on the usual screens
_MAX_SIDE = 16_000  # pixels; Chromium leaves what is beyond 16,384 empty
_MAX_AREA = 100e6  # pixels: 400 MB while the browser draws it
# Replaces the page by its result, for the program that reads it.
_REPORT = """
  const svg = chart.querySelector("svg");
  document.body.textContent = JSON.stringify(svg ? {
    width: svg.width.baseVal.value,
    height: svg.height.baseVal.value,
    text: new XMLSerializer().serializeToString(svg),
  } : { error: chart.textContent });
"""


@dataclass(frozen=True)
class _Drawing:
    """An SVG document and its size in CSS pixels."""

    text: str
    width: float
    height: float


def write_chart(chart: str, path: str | Path, *, title: str = "chart") -> None:
    """Write a Mermaid chart in the format that the file's suffix names.

    ``.mmd`` (Mermaid text), ``.md`` (Markdown, as code forges draw it), ``.html`` (a page that
    draws it), ``.svg`` and ``.png`` (drawn by an installed browser: Chromium, Chrome, Edge, or
    LUCID_BROWSER). The text of an SVG is HTML inside, which browsers show and most other programs
    do not.

    Mermaid itself is taken from the file that LUCID_MERMAID_JS names, from ``node_modules`` in the
    working directory or above it, or else from the network.

    Args:
        chart: Mermaid text, as ``build_module_mermaid_chart`` returns it.
        path: of the file to write; its folder is made when missing.
        title: of the web page.
    Raises:
        ConfigError: the suffix is none of these, or an environment variable names no file.
        MissingDependencyError: SVG or PNG is asked for and no browser is installed.
        OutputError: the file can't be written.
        RenderError: the browser failed, or Mermaid does not accept the chart.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ConfigError(
            f"{path}: the suffix must be one of {known}, got {suffix!r}{suggest(suffix, _FORMATS)}"
        )
    check_writable_folder(path.parent)  # before the browser works in vain
    write_bytes(path, _FORMATS[suffix](chart, title))


def _mermaid_text(chart: str, _: str) -> bytes:
    return f"{chart}\n".encode()


def _markdown(chart: str, _: str) -> bytes:
    return f"```mermaid\n{chart}\n```\n".encode()


def _web_page(chart: str, title: str) -> bytes:
    return _page(chart, title, report="").encode()


def _svg(chart: str, _: str) -> bytes:
    return _draw(chart).text.encode()


def _png(chart: str, _: str) -> bytes:
    drawing = _draw(chart)
    width, height = math.ceil(drawing.width), math.ceil(drawing.height)
    scale = min(
        _PIXELS_OF_CSS_PIXEL, _MAX_SIDE / max(width, height), math.sqrt(_MAX_AREA / width / height)
    )
    with tempfile.TemporaryDirectory(prefix="lucid-chart-") as folder:
        page, picture = Path(folder, "chart.svg"), Path(folder, "chart.png")
        page.write_text(drawing.text, encoding="utf-8")
        # Headless browsers keep some of the window for themselves.
        screenshot(page, picture, width=width + 100, height=height + 200, scale=scale)
        with Image.open(picture) as image:
            content = io.BytesIO()
            image.crop((0, 0, math.ceil(width * scale), math.ceil(height * scale))).save(
                content, "PNG", optimize=True
            )
    return content.getvalue()


_FORMATS: dict[str, Callable[[str, str], bytes]] = {
    ".mmd": _mermaid_text,
    ".md": _markdown,
    ".html": _web_page,
    ".svg": _svg,
    ".png": _png,
}


def _draw(chart: str) -> _Drawing:
    """Let Mermaid draw the chart in a browser."""
    with tempfile.TemporaryDirectory(prefix="lucid-chart-") as folder:
        page = Path(folder, "chart.html")
        page.write_text(_page(chart, "chart", report=_REPORT), encoding="utf-8")
        document = dump_page(page)
    body = re.search(r"<body>(\{.*\})</body>", document, re.DOTALL)
    if body is None:
        raise RenderError(
            f"the browser {find_browser()} stopped before Mermaid had drawn the chart; one that is "
            "a snap can't read temporary files: let LUCID_BROWSER name another, or write .html"
        )
    result = json.loads(html.unescape(body[1]))
    if "error" in result:
        raise RenderError(" ".join(result["error"].split()))
    return _Drawing(**result)


def _page(chart: str, title: str, *, report: str) -> str:
    template = resources.files("lucid.visual").joinpath("page.html").read_text(encoding="utf-8")
    # Mermaid takes "#c53030;" for the code of a character and loses the colour, so the semicolon
    # must not follow it.
    text = re.sub(r"(color:#\w+);(font-weight:\w+)", r"\2;\1", chart)
    return Template(template).substitute(
        title=html.escape(title),
        script=_mermaid_script(),
        chart=json.dumps(text).replace("<", "\\u003c"),  # no end of the script inside it
        report=report,
    )


def _mermaid_script() -> str:
    local = _local_mermaid()
    if local is None:
        source = f"https://cdn.jsdelivr.net/npm/mermaid@{MERMAID_VERSION}/dist/mermaid.min.js"
        return (
            f'<script src="{source}" integrity="{MERMAID_INTEGRITY}" crossorigin="anonymous">'
            "</script>"
        )
    code = local.read_text(encoding="utf-8").replace("</script", "<\\/script")
    return f"<!-- Mermaid, MIT licence, https://mermaid.js.org -->\n<script>{code}</script>"


def _local_mermaid() -> Path | None:
    chosen = os.environ.get("LUCID_MERMAID_JS")
    if chosen:
        if not Path(chosen).is_file():
            raise ConfigError(f"LUCID_MERMAID_JS must name the file mermaid.min.js, got {chosen!r}")
        return Path(chosen)
    here = Path.cwd()
    candidates = (folder / _LOCAL_MERMAID for folder in (here, *here.parents))
    return next((path for path in candidates if path.is_file()), None)
