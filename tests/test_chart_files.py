"""Charts as files: every format, drawn by real Mermaid in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from chart_helpers import Encoder, ResidualNet, Siamese, read_chart
from click.testing import CliRunner
from PIL import Image
from torch import nn

from lucid.cli.chart import command
from lucid.errors import ConfigError, LucidError, MissingDependencyError, OutputError, RenderError
from lucid.models import MobileNet
from lucid.visual import browser, build_module_mermaid_chart, render, write_chart

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "mobilenet_1.0_224.mmd"
MERMAID = ROOT / "node_modules" / "mermaid"
SMALL = 'flowchart LR\n  a["<b>"];\n  b["é"];\n  a --> b;'


@pytest.fixture
def mermaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips unless a browser and Mermaid are installed."""
    try:
        browser.find_browser()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    script = MERMAID / "dist" / "mermaid.min.js"
    if not script.is_file():
        pytest.skip(f"no {script}; run: npm ci")
    monkeypatch.setenv("LUCID_MERMAID_JS", str(script))


def test_fixture_is_the_published_page(shared: Path) -> None:
    page = (shared / "seed" / "mobilenet.rst").read_text(encoding="utf-8")
    block = re.search(r"\.\. mermaid::\n    :name: MobileNet\n\n(.*?)\n\n\S", page, re.DOTALL)
    assert block
    assert textwrap.dedent(block[1]) == GOLDEN.read_text(encoding="utf-8").rstrip("\n")


# Formats that need no browser


def test_text_formats(tmp_path: Path) -> None:
    write_chart(SMALL, tmp_path / "a.mmd")
    assert (tmp_path / "a.mmd").read_text(encoding="utf-8") == f"{SMALL}\n"
    write_chart(SMALL, tmp_path / "a.MD")
    assert (tmp_path / "a.MD").read_text(encoding="utf-8") == f"```mermaid\n{SMALL}\n```\n"


def test_page_holds_a_local_mermaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
    script.parent.mkdir(parents=True)
    script.write_text('let text = "</script>";', encoding="utf-8")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("LUCID_MERMAID_JS", raising=False)
    write_chart("a</script>", "a.html", title="<b>")
    page = Path("a.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 2, "only the two scripts end"
    assert '<script>let text = "<\\/script>";</script>' in page
    assert "<title>&lt;b&gt;</title>" in page
    assert "https://cdn" not in page


def test_page_loads_the_pinned_mermaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUCID_MERMAID_JS", raising=False)
    write_chart(SMALL, "a.html")
    version = json.loads((ROOT / "package.json").read_text())["devDependencies"]["mermaid"]
    page = Path("a.html").read_text(encoding="utf-8")
    assert f"/npm/mermaid@{version}/dist/mermaid.min.js" in page
    assert f'integrity="{render.MERMAID_INTEGRITY}"' in page


@pytest.mark.usefixtures("mermaid")
def test_pinned_hash_is_that_of_the_installed_mermaid() -> None:
    version = json.loads((MERMAID / "package.json").read_text())["version"]
    assert version == render.MERMAID_VERSION
    digest = hashlib.sha384((MERMAID / "dist" / "mermaid.min.js").read_bytes()).digest()
    assert f"sha384-{base64.b64encode(digest).decode()}" == render.MERMAID_INTEGRITY


def test_lock_file_names_no_registry() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert packages
    assert not any("resolved" in package for package in packages.values())


# Errors


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.htm"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be one of \.mmd, \.md, \.html, \.svg, \.png"):
        write_chart(SMALL, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_made(tmp_path: Path) -> None:
    write_chart(SMALL, tmp_path / "none" / "a.mmd")
    assert (tmp_path / "none" / "a.mmd").is_file()


def test_place_that_can_not_be_written_is_found_before_the_browser_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUCID_BROWSER", str(tmp_path / "no browser"))
    with pytest.raises(OutputError, match="choose a folder that exists and can be written"):
        write_chart(SMALL, tmp_path / "file" / "a.svg")


def test_missing_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUCID_BROWSER", raising=False)
    monkeypatch.setattr(browser, "_PROGRAMS", ())
    monkeypatch.setattr(browser, "_MAC_PROGRAMS", ())
    monkeypatch.setattr(browser, "_WINDOWS_PROGRAMS", ())
    with pytest.raises(MissingDependencyError, match="apt-get install chromium"):
        write_chart(SMALL, tmp_path / "a.svg")


@pytest.mark.parametrize("variable", ["LUCID_BROWSER", "LUCID_MERMAID_JS"])
def test_variable_that_names_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=variable):
        write_chart(SMALL, tmp_path / "a.svg")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the browser")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no display >&2; exit 3", r"failed \(3\): no display"),
        ("echo '<body>Drawing</body>'", "stopped before Mermaid"),
        ("sleep 600 & wait", "took longer than 1 s"),
    ],
)
def test_browser_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    program = tmp_path / "browser"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("LUCID_BROWSER", str(program))
    monkeypatch.setattr(browser, "_TIME_LIMIT", 1)
    with pytest.raises(RenderError, match=message):
        write_chart(SMALL, tmp_path / "a.svg")


@pytest.mark.usefixtures("mermaid")
def test_mermaid_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.js").touch()
    monkeypatch.setenv("LUCID_MERMAID_JS", str(tmp_path / "empty.js"))
    with pytest.raises(RenderError, match=r"could not be loaded from the network.*npm install"):
        write_chart(SMALL, tmp_path / "a.svg")


@pytest.mark.usefixtures("mermaid")
def test_mermaid_refuses_a_wrong_chart(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="Parse error on line 2"):
        write_chart("flowchart LR\n  a --> --> b", tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


# Real Mermaid in a real browser


def odd_names() -> nn.Module:
    model = nn.Sequential()
    for name in ('a"]b', "<i>x</i>", "it's", "#35;", "end", "`**x**`", "&amp;"):
        model.add_module(name, nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
        model.add_module(f"{name} act", nn.GELU())
    return model


IMAGE = (1, 3, 224, 224)
CHARTS = {
    "seed": (MobileNet(1.0), IMAGE, {}),
    "seed with costs": (MobileNet(1.0), IMAGE, {"costs": True}),
    "full": (MobileNet(1.0), IMAGE, {"collapse": False}),
    "full with costs": (MobileNet(1.0), IMAGE, {"collapse": False, "costs": True}),
    "residual": (ResidualNet(), (1, 3, 32, 32), {"costs": True}),
    "residual downwards": (ResidualNet(), (1, 3, 32, 32), {"collapse": False, "direction": "TB"}),
    "encoder": (Encoder(), (1, 7), {"dtype": torch.long, "depth": 4}),
    "siamese": (Siamese(), [(1, 6), (1, 6)], {"costs": True}),
    "single layer": (nn.Linear(4, 2), (1, 4), {}),
    "odd names": (odd_names(), (1, 4), {}),
}


@pytest.mark.usefixtures("mermaid")
@pytest.mark.parametrize("name", CHARTS)
def test_real_mermaid_draws_every_node(name: str, tmp_path: Path) -> None:
    module, shape, options = CHARTS[name]
    text = build_module_mermaid_chart(module, shape, **options)
    if name == "seed":
        text = GOLDEN.read_text(encoding="utf-8")
    chart = read_chart(text)
    write_chart(text, tmp_path / "chart.svg")
    drawing = ElementTree.parse(tmp_path / "chart.svg").getroot()
    classes = [set(element.get("class", "").split()) for element in drawing.iter()]
    assert sum({"node", "default"} <= names for names in classes) == len(chart.titles)
    assert sum("cluster" in names for names in classes) == len(chart.boxes)
    visible = (names for names in classes if "edge-thickness-invisible" not in names)
    assert sum("flowchart-link" in names for names in visible) == len(chart.edges)
    words = " ".join(drawing.itertext())
    for title in (*chart.titles.values(), *chart.boxes.values()):
        assert title in words
    if name == "seed":
        # As the text stands, Mermaid reads the colour as a character code and drops it.
        assert "color:#c53030" in (tmp_path / "chart.svg").read_text().replace(" ", "")


@pytest.mark.usefixtures("mermaid")
def test_picture_has_the_size_of_the_drawing(tmp_path: Path) -> None:
    write_chart(SMALL, tmp_path / "a.svg")
    write_chart(SMALL, tmp_path / "a.png")
    drawing = ElementTree.parse(tmp_path / "a.svg").getroot()
    with Image.open(tmp_path / "a.png") as image:
        for side, name in zip(image.size, ("width", "height"), strict=True):
            assert side == pytest.approx(2 * float(drawing.get(name, "0")), abs=2)
        colours = image.convert("RGB").getcolors(100_000)
    assert colours
    assert max(colours)[1] in ((255, 255, 255), (236, 236, 255)), "paper or the fill of a node"
    assert len(colours) > 10, "there is text"


# The command


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_prints_the_chart() -> None:
    expected = [line.strip() for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert [line.strip() for line in run("mobilenet").splitlines()] == expected


def test_command_writes_a_file_with_its_options(tmp_path: Path) -> None:
    out = tmp_path / "a.mmd"
    run(
        *("mobilenet", "--width", "0.25", "--classes", "7", "--last-stride", "1"),
        *("--resolution", "64", "--depth", "1", "--costs", "--direction", "TB", "--out", str(out)),
    )
    expected = build_module_mermaid_chart(
        MobileNet(0.25, 7, last_stride=1), (1, 3, 64, 64), depth=1, costs=True, direction="TB"
    )
    assert out.read_text(encoding="utf-8") == f"{expected}\n"
    assert "--no-collapse" not in run("mobilenet", "--no-collapse")


def test_command_draws_a_checkpoint(tmp_path: Path, fixed_model: MobileNet) -> None:
    from lucid.checkpoint import Checkpoint, write_checkpoint
    from lucid.images import Preprocessing

    path = tmp_path / "model.safetensors"
    write_checkpoint(
        path,
        Checkpoint(
            arguments=fixed_model.arguments,
            class_names=tuple("abcdefghij"),
            preprocessing=Preprocessing(resolution=96),
            tensors={name: tensor.numpy() for name, tensor in fixed_model.state_dict().items()},
        ),
    )
    assert run(str(path)) == build_module_mermaid_chart(fixed_model, (1, 3, 96, 96)) + "\n"
    assert "(1,3,64,64)" in run(str(path), "--resolution", "64")
    with pytest.raises(ConfigError, match="has its own arguments; leave out --width"):
        run(str(path), "--width", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilnet"], "did you mean 'mobilenet'"),
        (["resnet50"], "models: mobilenet"),
        (["mobilenet", "--width", "0"], "width_multiplier must be a number above 0"),
        (["mobilenet", "--depth", "-1"], "depth must be"),
        (["mobilenet", "--out", "a.pdf"], "suffix must be one of"),
        ([__file__], "test_chart_files.py"),
    ],
)
def test_command_with_bad_input(arguments: list[str], message: str) -> None:
    with pytest.raises(LucidError, match=message):
        run(*arguments)
