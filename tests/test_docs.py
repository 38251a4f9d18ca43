"""The documentation: builds without a warning, draws its charts, and says what is so."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import click
import pytest
from checkpoint_helpers import small_checkpoint
from photo_helpers import photo, write_classes

import lucid
from lucid.checkpoint import write_checkpoint
from lucid.cli import COMMANDS, main
from lucid.training import read_recipe

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PACKAGE = Path(lucid.__file__).parent
MERMAID = REPOSITORY / "node_modules" / "mermaid"

PAGES = sorted(DOCS.glob("*.rst"))
TEXTS = [REPOSITORY / "README.md", *PAGES]
MODULES = [
    ".".join(("lucid", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__main__.py"
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from nothing; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    command += ["--doctree-dir", str(folder / "doctrees"), str(DOCS), str(folder / "html")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder / "html"


@dataclass
class Shown:
    """What a browser made of a page."""

    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    charts: list[dict[str, object]] = field(default_factory=list)


# What is drawn of each chart: its text, its nodes and boxes, and how wide it came out.
_READ_CHARTS = """charts => charts.map(chart => {
    const svg = chart.querySelector("svg"), box = svg.getBoundingClientRect();
    return {
        text: svg.textContent, width: box.width,
        nodes: svg.querySelectorAll("g.node").length,
        boxes: svg.querySelectorAll("g.cluster").length,
    };
})"""


@pytest.fixture(scope="module")
def model_page(site: Path) -> Shown:
    """The model's page, read from the disk by a real browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: run scripts/install-system-packages")
    if not MERMAID.is_dir():
        pytest.skip("no Mermaid: run npm ci")
    from playwright.sync_api import sync_playwright

    shown = Shown()
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("request", lambda request: shown.requests.append(request.url))
        page.on("requestfailed", lambda request: shown.problems.append(request.url))
        page.on("pageerror", lambda error: shown.problems.append(str(error)))
        page.goto((site / "mobilenet.html").as_uri())
        page.wait_for_function(
            "document.querySelectorAll('pre.mermaid').length"
            " === document.querySelectorAll('pre.mermaid svg').length"
        )
        shown.charts = page.eval_on_selector_all("pre.mermaid", _READ_CHARTS)
        if folder := os.environ.get("LUCID_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "mobilenet.png", full_page=True)
        browser.close()
    return shown


def test_model_page_needs_no_network(model_page: Shown) -> None:
    assert not model_page.problems
    assert not [url for url in model_page.requests if not url.startswith(("file:", "data:"))]


def test_model_page_draws_the_chart_of_the_live_class(model_page: Shown) -> None:
    from lucid.models import MobileNet
    from lucid.visual import build_module_mermaid_chart

    source = build_module_mermaid_chart(MobileNet(1.0), (1, 3, 224, 224))
    (chart,) = model_page.charts
    assert chart["boxes"] == len(re.findall(r"^\s*subgraph ", source, re.MULTILINE))
    assert chart["nodes"] == len(re.findall(r"^\s*\w+[(\[]+\"", source, re.MULTILINE))
    assert "Syntax error" not in str(chart["text"])
    assert "(1,1024,4,4) → (1,1024,1,1)" in str(chart["text"])
    assert float(str(chart["width"])) > 1000, "drawn too small to be read"


def test_model_page_has_the_parts_of_a_model_page() -> None:
    """They stand in the order in which every model page has them."""
    page = (DOCS / "mobilenet.rst").read_text()
    parts = (
        "MobileNet\n=========",
        ".. toctree::\n    :maxdepth: 1\n    :hidden:",
        "|convnet-badge| |imgclf-badge|",
        ".. autoclass:: lucid.models.MobileNet",
        "Overview\n--------",
        ".. model-chart:: 1.0\n    :name: MobileNet",
        "Class Signature\n---------------",
        "Parameters\n----------",
        ".. tip::",
    )
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_published_counts_are_on_the_page(site: Path) -> None:
    """Howard et al. 2017, arXiv:1704.04861, tables 4, 6 and 7, in millions."""
    text = re.sub(r"<[^>]+>", " ", (site / "mobilenet.html").read_text())
    for parameters, multiply_adds in (
        ("4,231,976", "568,740,352"),
        ("2,585,560", "325,400,448"),
        ("1,331,592", "149,497,088"),
        ("470,072", "41,030,272"),
    ):
        assert parameters in text
        assert multiply_adds in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    reference = "".join(page.read_text() for page in site.glob("*.html"))
    rooms = [name for name in MODULES if name.count(".") == 1 and name != "lucid.cli"]
    for module in rooms:
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            # lucid.nn hands on names of torch.nn, which PyTorch documents.
            if getattr(getattr(loaded, name), "__module__", "").startswith("lucid"):
                assert f'id="{module}.{name}"' in reference, f"{module}.{name} is in no page"


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "cli.html").read_text()
    for command in COMMANDS:
        assert f'id="lucid-{command}"' in page


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_in_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testfile(str(page), module_relative=False).failed == 0


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_programs_in_pages_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a checkpoint and photos at the places that the pages name."""
    programs = _programs(page.read_text())
    if page.stem in ("README", "index", "tutorial"):
        assert any("lucid.load" in program for program in programs)
    monkeypatch.chdir(tmp_path)
    Path("runs", "photos").mkdir(parents=True)
    for place in ("runs/photos/model.safetensors", "model.safetensors"):
        write_checkpoint(place, small_checkpoint())
    photo(0).save("new.jpg")
    write_classes(Path("photos"), {"daisy": 2, "rose": 2})
    for program in programs:
        exec(compile(program, page.name, "exec"), {})
        assert any(name in capsys.readouterr().out for name in small_checkpoint().class_names)


def test_recipes_shown_are_valid(tmp_path: Path) -> None:
    page = (DOCS / "recipe.rst").read_text()
    shown = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    assert shown
    for text in [*map(dedent, shown), (REPOSITORY / "examples" / "digits.toml").read_text()]:
        (tmp_path / "recipe.toml").write_text(text)
        assert read_recipe(tmp_path / "recipe.toml")


def _programs(text: str) -> list[str]:
    """The Python that a page shows for use; declarations alone are not run."""
    fenced = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", text, re.MULTILINE)
    return [code for code in fenced + list(map(dedent, blocks)) if "import" in code]


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The ``lucid NAME --option ...`` lines of a page, continued lines joined."""
    joined = text.replace("\\\n", " ")
    for name, rest in re.findall(r"^ *(?:\$ )?lucid ([a-z]+)(?: (.*))?$", joined, re.MULTILINE):
        yield name, re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", rest)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_commands_in_pages_exist(page: Path) -> None:
    for name, options in _commands(page.read_text()):
        assert name in COMMANDS, f"{page.name} shows lucid {name}"
        command = main.get_command(click.Context(main), name)
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        assert set(options) <= known | {"--help"}, f"{page.name} shows lucid {name} {options}"
