"""The examples that run exported files without lucid do what is said of them."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.benchmark.samples import photo_like, settled_network
from lucid.exporters import export
from lucid.network import FloatNetwork

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ORT = ROOT / "node_modules" / "onnxruntime-web" / "dist"


@pytest.fixture(scope="module")
def network() -> FloatNetwork:
    """It takes the whole picture, which has the network's size: nothing is resized."""
    found = settled_network(MobileNetArguments(0.25, 4), 64)
    names = ("dandelion", "marguerite", "poppy", "tea-rose")
    preprocessing = replace(found.preprocessing, crop_fraction=1.0)
    return replace(found, class_names=names, preprocessing=preprocessing)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(photo_like(3, 64, 64, seed=2)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def expected(network: FloatNetwork, picture: Path) -> list[tuple[str, float]]:
    """The best three classes with their probabilities in percent."""
    (logits,) = reference.run(network, np.asarray(Image.open(picture))[np.newaxis])
    shares = 100 * np.exp(logits) / np.exp(logits).sum()
    return [(network.class_names[k], float(shares[k])) for k in np.argsort(-logits)[:3]]


def check(text: str, network: FloatNetwork, picture: Path) -> None:
    found = [(name, float(share)) for name, share in re.findall(r"([a-z-]+) ([\d.]+)%", text)]
    wanted = expected(network, picture)
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert [share for _, share in found] == pytest.approx([share for _, share in wanted], abs=0.06)


def test_litert_in_python(network: FloatNetwork, pictures: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "model.tflite"
    export(network, "litert").write(path)
    command = [sys.executable, EXAMPLES / "classify_litert.py", path, *pictures]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(pictures)
    for line, picture in zip(lines, pictures, strict=True):
        check(line.removeprefix(str(picture)), network, picture)


def test_openvino_in_cpp(network: FloatNetwork, pictures: list[Path], tmp_path: Path) -> None:
    """Built with the headers and libraries of OpenVINO's Python package."""
    openvino = pytest.importorskip("openvino")
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: scripts/install-system-packages installs one")
    package = Path(openvino.__file__).parent
    (library,) = (package / "libs").glob("libopenvino.so.*")
    program, model = tmp_path / "classify", tmp_path / "model.xml"
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-isystem{package}/include"]
    source = EXAMPLES / "classify_openvino.cpp"
    link = [library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *options, source, *link, "-o", program], check=True)
    export(network, "openvino").write(model)
    for picture in pictures:
        Image.open(picture).save(tmp_path / "picture.ppm")
        command = [program, model, tmp_path / "picture.ppm"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        check(result.stdout, network, picture)
    result = subprocess.run([program, model, source], capture_output=True, text=True, check=False)
    assert (result.returncode, "not a PPM file" in result.stderr) == (1, True)


class TestWebPage:
    @pytest.fixture
    def address(self, network: FloatNetwork, tmp_path: Path) -> Iterator[str]:
        """Of a server of the page, the model and ONNX Runtime Web."""
        if not ORT.is_dir():
            pytest.skip(f"no {ORT}; run: npm ci")
        pytest.importorskip("onnx")
        folder = tmp_path / "web"
        shutil.copytree(EXAMPLES / "web", folder)
        (folder / "ort").mkdir()
        for pattern in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.*"):
            for file in ORT.glob(pattern):
                shutil.copy(file, folder / "ort")
        export(network, "onnx").write(folder / "model.onnx")

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

        handler = functools.partial(Handler, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    def test_classifies(self, address: str, network: FloatNetwork, pictures: list[Path]) -> None:
        chromium = shutil.which("chromium")
        if chromium is None:
            pytest.skip("no chromium: scripts/install-system-packages installs one")
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            messages: list[str] = []
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            page.goto(address)
            page.wait_for_selector("input:enabled", timeout=60_000)
            for picture in pictures:
                page.evaluate("document.querySelector('ol').replaceChildren()")
                page.set_input_files("input", picture)
                page.wait_for_selector("li", timeout=60_000)
                check(page.inner_text("ol"), network, picture)
            page.set_input_files("input", EXAMPLES / "web" / "classify.js")
            page.wait_for_function("document.querySelector('ol').textContent.includes('read')")
            browser.close()
        assert not messages
