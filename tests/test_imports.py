"""What may import what: one direction, torch only where it is needed, nothing heavy at start."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lucid

PACKAGE = Path(lucid.__file__).parent
MODULES = sorted(
    ".".join(("lucid", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)

# A module may import those of its own row and of the rows above it. The longest name that fits a
# module counts: lucid.data.loader stands apart from lucid.data.
LAYERS = (
    ("lucid.errors",),
    ("lucid.checks", "lucid.drawing", "lucid.files", "lucid.page", "lucid.parallel"),
    ("lucid.architecture", "lucid.container"),
    ("lucid.decoding",),
    ("lucid.images",),
    ("lucid.description",),
    ("lucid.checkpoint", "lucid.data", "lucid.network"),
    ("lucid.reference",),
    ("lucid.quantization",),
    ("lucid.nn",),
    ("lucid.importers",),
    ("lucid.models",),
    ("lucid.lowering",),
    ("lucid.data.augmentation", "lucid.data.colour", "lucid.data.contact_sheet"),
    ("lucid.visual", "lucid.data.loader"),
    ("lucid.prediction",),
    ("lucid.classifier",),
    ("lucid.engine",),
    ("lucid.opening",),
    ("lucid.evaluation", "lucid.training"),
    ("lucid.quantization.report",),
    ("lucid.benchmark.samples",),
    ("lucid.exporters",),
    ("lucid.benchmark",),
    ("lucid.cli",),
)

# These need torch to be imported; all others work with the base install.
NEEDS_TORCH = (
    "lucid.classifier",
    "lucid.data.augmentation",
    "lucid.data.colour",
    "lucid.data.contact_sheet",
    "lucid.data.loader",
    "lucid.exporters.executorch",
    "lucid.importers.statistics",
    "lucid.models",
    "lucid.nn",
    "lucid.training",
    "lucid.visual",
)

HEAVY = ("numpy", "PIL", "safetensors", "torch", "sklearn", "matplotlib", "rich", "click")


def _layer(module: str) -> int:
    fitting = [
        (len(name), rank)
        for rank, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    assert fitting, f"{module} has no place in LAYERS: say which modules it may import"
    return max(fitting)[1]


def _needs_torch(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in NEEDS_TORCH)


def _path(module: str) -> Path:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _imports(module: str) -> Iterator[str]:
    """The modules of lucid that ``module`` imports anywhere, inside its functions too."""
    for node in ast.walk(ast.parse(_path(module).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the whole name"
            source = node.module or ""
            whole = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else source for name in whole]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "lucid" and name != module)


# lucid/__init__.py names the rooms but loads them at first use.
INNER = [module for module in MODULES if module != "lucid"]


@pytest.mark.parametrize("module", INNER)
def test_imports_run_one_way(module: str) -> None:
    wrong = [name for name in _imports(module) if name != "lucid" and _layer(name) > _layer(module)]
    assert not wrong, f"{module} imports {wrong}, which stand above it"


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: set(_imports(module)) - {"lucid"} for module in INNER}
    # A package and the modules in it are one place; only paths between places can be circles.
    for module in graph:
        package = module.rpartition(".")[0]
        graph[module].discard(package)
    graphlib.TopologicalSorter(graph).prepare()


def _base_install() -> set[str]:
    """Top-level names that ``pip install lucid-mobilenet`` brings, read off the requirements."""
    pending = ["lucid-mobilenet"]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    normal = {name.lower().replace("_", "-") for name in found}
    return {
        top
        for top, distributions in metadata.packages_distributions().items()
        if any(distribution.lower().replace("_", "-") in normal for distribution in distributions)
    } | {"lucid"}


# Refuses what the base install lacks, as if it were not there.
_REFUSE = """
import sys
class Refuse:
    allowed = {allowed!r} | sys.stdlib_module_names
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new interpreter that has the base install only."""
    program = _REFUSE.format(allowed=_base_install()) + code
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_refusal_works() -> None:
    """The tests below mean something only if torch really is out of reach."""
    assert "torch" not in _base_install()
    assert "numpy" in _base_install()
    assert "No module named 'torch'" in run_without_extras("import torch").stderr


def test_all_but_the_torch_side_imports_without_extras() -> None:
    torch_free = [module for module in MODULES if not _needs_torch(module)]
    assert "lucid.checkpoint" in torch_free
    result = run_without_extras("\n".join(f"import {module}" for module in torch_free))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["lucid.models", "lucid.nn", "lucid.training"])
def test_missing_extra_is_named(name: str) -> None:
    result = run_without_extras(f"import lucid\n{name}")
    assert (
        result.stderr.strip().splitlines()[-1].endswith("run: pip install 'lucid-mobilenet[train]'")
    ), result.stderr


def test_help_works_without_extras() -> None:
    result = run_without_extras("from lucid.cli import main\nmain(['--help'])")
    assert result.returncode == 0, result.stderr
    assert "Commands" in result.stdout


def test_import_loads_nothing_heavy() -> None:
    code = f"import lucid, sys\nprint(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_public_names() -> None:
    assert lucid.__all__ == ["Classifier", "Engine", "LucidError", "__version__", "load"]


@pytest.mark.parametrize("module", MODULES)
def test_all_names_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    missing = [name for name in names if not hasattr(loaded, name)]
    assert not missing
    assert sorted(set(names)) == sorted(names), "a name stands there twice"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = lucid.lod
