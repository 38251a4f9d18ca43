"""The examples do what is said of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "digits.py"


def test_demo_learns_digits(tmp_path: Path) -> None:
    """It exits with an error below 98%, which is the least that is promised."""
    result = subprocess.run(
        [sys.executable, str(DEMO), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("digits/*/*.png"))) == 1797
    for name in ("audit.html", "report.html", "chart.html", "model/model.safetensors"):
        assert (tmp_path / name).stat().st_size > 1000
    shown = re.findall(r"^\$ lucid (\w+)", result.stdout, re.MULTILINE)
    assert shown == ["audit", "train", "evaluate", "predict", "chart"]
    (top1,) = re.findall(r"^([\d.]+)% of the digits set aside", result.stdout, re.MULTILINE)
    assert float(top1) >= 98


def test_c_program_fits_the_header() -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: scripts/install-system-packages installs one")
    options = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only"]
    command = [compiler, *options, f"-I{ROOT}/native/include", f"{ROOT}/examples/classify.c"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
