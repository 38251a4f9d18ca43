"""The wheel and the sdist: complete, free of clutter, and working away from the repository."""

from __future__ import annotations

import importlib.machinery
import os
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import lucid

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "lucid"


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, the wheel built from the sdist as an index would."""
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)], cwd=REPOSITORY)
    return folder


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(_only(built, "*.whl")) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    (engine,) = [name for name in files if name.startswith("lucid/_native.") and name[-1] != "i"]
    assert engine.endswith(importlib.machinery.EXTENSION_SUFFIXES[0])
    files.remove(engine)
    expected = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files == expected
    assert "lucid/py.typed" in files


def test_wheel_metadata(built: Path) -> None:
    with zipfile.ZipFile(_only(built, "*.whl")) as wheel:
        names = wheel.namelist()
        (place,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        text = wheel.read(place).decode()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    base = [line for line in text.splitlines() if line.startswith("Requires-Dist")]
    assert not [line for line in base if "torch" in line and "extra ==" not in line]


def test_sdist_is_clean(built: Path) -> None:
    with tarfile.open(_only(built, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert {"src", "native", "tests", "docs", "LICENSE", "README.md", "pyproject.toml"} <= tops
    assert not tops & {".venv", ".ci", "runs", "build", "dist", "node_modules"}
    assert not [name for name in names if "__pycache__" in name or "_build" in name]
    assert (sdist_bytes := _only(built, "*.tar.gz").stat().st_size) < 2_000_000, sdist_bytes


def test_installed_wheel_works_elsewhere(built: Path, tmp_path: Path) -> None:
    """The installed copy answers, not this repository's."""
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*install, "--target", str(target), str(_only(built, "*.whl"))])
    # Without site, which would put the repository's copy first.
    python = [sys.executable, "-S"]
    paths = [str(target), *site.getsitepackages()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    code = "import lucid.cli, lucid._native; print(lucid._native.__file__)"
    place = _run([*python, "-c", code], cwd=tmp_path, env=environment).stdout.strip()
    assert Path(place).is_relative_to(target)
    said = _run(
        [*python, str(target / "bin" / "lucid"), "--version"], cwd=tmp_path, env=environment
    )
    assert said.stdout == f"lucid {lucid.__version__}\n"


def test_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == lucid.__version__ == metadata.version("lucid-mobilenet")
    assert f"version: {lucid.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"## {lucid.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_constraints_pin_everything_installed() -> None:
    """Whoever runs make gets the versions that the tests passed with."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(separator and version for _, separator, version in pins)
    pinned = {name.lower().replace("_", "-"): version for name, _, version in pins}
    for name in ("torch", "numpy", "pillow", "sphinx", "pytest", "nanobind"):
        assert metadata.version(name).partition("+")[0] == pinned[name]
