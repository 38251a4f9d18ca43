"""What the pages show of the code itself: charts, costs, recipe keys. All made while they build."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from statistics import median
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib.mermaid import Mermaid, mermaid

from lucid.architecture import MobileNetArguments, tensor_shapes
from lucid.exporters.c import make_plan
from lucid.exporters.c.boards import need
from lucid.exporters.formats import FORMATS
from lucid.network import Totals, layers, sized_layers, totals

Rows = Iterable[Sequence[str]]

WIDTHS = (0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (96, 128, 160, 192, 224)

MERMAID = Path("node_modules", "mermaid", "dist", "mermaid.min.js")
# sphinxcontrib-mermaid imports Mermaid as a module, which browsers refuse to read from a file on
# disk. A plain script may be read, so the import is led to what that script left behind.
IMPORT_MAP = (
    '{"imports": {"./_static/mermaid.min.js": '
    '"data:text/javascript,export default globalThis.mermaid"}}'
)

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "native" / "src" / "kernels"
RESULTS = ROOT / "benchmarks" / "results"
CPUS = {"X86": "x86-64", "ARM": "AArch64", "ANY": "any"}

FIRST = 100  # Sphinx sorts scripts by it; sphinxcontrib-mermaid's own is 500.


class ModelChart(Mermaid):
    """``.. model-chart:: WIDTH`` draws MobileNet(WIDTH) for one 224x224 image."""

    has_content = False
    required_arguments = 1
    optional_arguments = 0

    def get_mm_code(self) -> str:
        from lucid.models import MobileNet
        from lucid.visual import build_module_mermaid_chart

        return build_module_mermaid_chart(MobileNet(float(self.arguments[0])), (1, 3, 224, 224))


class Table(SphinxDirective):
    """``.. lucid-table:: NAME`` shows one of ``TABLES``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = list(TABLES[self.arguments[0]]())
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in rows:
            marks = ["   * -", *["     -"] * (len(row) - 1)]
            lines += [f"{mark} {cell}" for mark, cell in zip(marks, row, strict=True)]
        return self.parse_text_to_nodes("\n".join(lines))


class SourceComment(SphinxDirective):
    """``.. source-comment:: PATH`` shows with what a file of the repository begins."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        lines = leading_comment(path)
        name = nodes.literal(text=self.arguments[0])
        return [nodes.paragraph("", "", name), nodes.literal_block(text="\n".join(lines))]


def leading_comment(path: Path) -> list[str]:
    """The lines of the comment that a C++ file begins with, without the marks."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").removeprefix(" "))
    if not lines:
        raise LookupError(f"{path} begins without a comment")
    return lines


def _totals(width: float, resolution: int = 224, **variant: Any) -> Totals:
    return totals(
        sized_layers(layers(MobileNetArguments(width, **variant)), resolution, resolution)
    )


def variants() -> Rows:
    """Parameters and multiply-adds at 224x224 and 1000 classes, both strides of the last layer."""
    yield (
        "Width multiplier",
        "Parameters",
        "Multiply-adds, ``last_stride=2`` (default)",
        "Multiply-adds, ``last_stride=1`` (published)",
    )
    for width in WIDTHS:
        own, published = _totals(width), _totals(width, last_stride=1)
        yield (
            f"{width}",
            f"{own.parameters:,}",
            f"{own.multiply_adds:,}",
            f"{published.multiply_adds:,}",
        )


def every_layer() -> Rows:
    """The layers of MobileNet(1.0) for one 224x224 image."""
    yield ("Layer", "Kind", "Kernel", "Stride", "Output", "Parameters", "Multiply-adds")
    for layer in sized_layers(layers(MobileNetArguments(1.0)), 224, 224):
        yield (
            f"``{layer.name}``",
            layer.kind,
            _product(layer.window),
            str(layer.stride),
            _product(layer.output_shape),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        )


def _product(sizes: Iterable[int]) -> str:
    return "x".join(str(size) for size in sizes)


def costs() -> Rows:
    """Multiply-adds of one image by width and resolution, of networks as ``lucid train`` makes."""
    yield ("Width multiplier", *(f"{side}x{side}" for side in RESOLUTIONS))
    for width in WIDTHS:
        found = (_totals(width, side, last_stride=1).multiply_adds for side in RESOLUTIONS)
        yield (f"{width}", *(f"{multiply_adds / 1e6:.1f} M" for multiply_adds in found))


def memory() -> Rows:
    """KiB of activations that one image needs at the peak, as float32, by width and resolution."""
    yield ("Width multiplier", *(f"{side}x{side}" for side in RESOLUTIONS))
    for width in WIDTHS:
        found = (4 * _totals(width, side).peak.activations for side in RESOLUTIONS)
        yield (f"{width}", *(f"{size / 1024:,.0f} KiB" for size in found))


def sizes() -> Rows:
    """Parameters and file size of a model for five classes, by width."""
    yield ("Width multiplier", "Parameters", "Weights as float32", "Weights as int8")
    for width in WIDTHS:
        count = _totals(width, num_classes=5).parameters
        yield (f"{width}", f"{count:,}", f"{4 * count / 1e6:.2f} MB", f"{count / 1e6:.2f} MB")


def tensors() -> Rows:
    """Tensors of a small model, one of each kind."""
    yield ("Name", "Shape")
    shapes = tensor_shapes(MobileNetArguments(0.25, num_classes=5))
    for name, shape in shapes.items():
        if name.startswith(("conv1.", "conv2.depthwise", "conv3.0.pointwise.0", "fc.")):
            yield (f"``{name}``", _product(shape) or "one number")


def recipe() -> Rows:
    """Every key of a recipe with its default and what its docstring says."""
    from lucid.training.recipe import Recipe

    arguments = inspect.cleandoc(Recipe.__doc__ or "").partition("Args:")[2].partition("Raises:")[0]
    yield ("Key", "Default", "Meaning")
    for field in fields(Recipe):
        found = re.search(rf"^    {field.name}: (.+(?:\n {{8}}.+)*)", arguments, re.MULTILINE)
        if found is None or field.default is MISSING:
            raise LookupError(f"Recipe.{field.name} needs a default and a line in the docstring")
        yield (f"``{field.name}``", f"``{_toml(field.default)}``", " ".join(found[1].split()))


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def kernel_sets() -> Rows:
    """The rows of native/kernels.cmake, which are in the order of preference."""
    yield ("Precision", "``LUCID_ISA``", "CPU", "Compiled for", "File")
    text = (ROOT / "native" / "kernels.cmake").read_text()
    row = r"^ *lucid_kernels\((\w+) \w+ (\w+) ?(.*)\)$"
    for name, cpu, flags in re.findall(row, text, re.MULTILINE):
        if "LUCID_TEST" in flags:
            continue
        precision, _, isa = name.rpartition("_")
        features = re.findall(r"\$\{(\w+)\}|-march=(\S+)|-m(\S+)", flags)
        yield (
            precision.replace("_", "-"),
            f"``{isa}``",
            CPUS[cpu],
            ", ".join("".join(found) for found in features) or "the compiler's default",
            f"``{name}.cpp``",
        )


def profiles() -> Rows:
    """How much of the peak each set of kernels reaches, as benchmarks/layers.py measured it."""
    yield ("Width", "Precision", "Instruction set", "Milliseconds", "Bound by", "Share of its peak")
    results = json.loads((RESULTS / "layers.json").read_text())["results"]
    for width in ("1", "0.25"):
        for one in results[width]:
            seconds = sum(step["seconds"] for step in one["steps"])
            work = sum(step["multiply_adds"] for step in one["steps"])
            share = f"{work / seconds / one['peak']:.0%}" if one["peak"] else ""
            yield (
                width,
                one["precision"],
                one["isa"],
                f"{1e3 * seconds:.3f}",
                one["instruction"] or "",
                share,
            )


def runtimes() -> Rows:
    """Calls of all runtimes as benchmarks/inference.py measured them; the fastest other last."""
    yield ("Case", "Precision", "lucid, ms", "Fastest other in this precision", "Fastest other")
    path = RESULTS / "inference.json"
    if not path.exists():
        path = RESULTS / "inference-speed.json"
    if not path.exists():
        yield ("not measured yet", "", "", "", "")
        return
    for case, found in json.loads(path.read_text())["results"]["speed"].items():
        others = [one for one in found["measurements"] if one["peer"] != "lucid"]
        for mine in found["measurements"]:
            if mine["peer"] != "lucid":
                continue
            same = [one for one in others if one["precision"] == mine["precision"]]
            yield (
                case,
                mine["precision"],
                f"{1e3 * mine['seconds']:.3f}",
                _fastest(mine, same),
                _fastest(mine, others),
            )


def formats() -> Rows:
    """What each format keeps, as its row of the table in lucid.exporters.formats says."""
    yield ("``--format``", "Files", "Takes", "Batch", "Names and preprocessing", "Extra")
    for name, one in FORMATS.items():
        yield (
            f"``{name}``",
            f"{one.title}, ``{one.suffix}``",
            one.images,
            "any" if one.dynamic_batch else "1",
            one.keeps,
            f"``{one.extra}``",
        )


def exports() -> Rows:
    """What benchmarks/exports.py found out about the files of every format."""
    yield ("Format", "Precision", "Run by", "MB", "Largest difference", "Same class", "Top-1")
    path = RESULTS / "exports.json"
    if not path.exists():
        yield ("not measured yet", "", "", "", "", "", "")
        return
    for file in json.loads(path.read_text())["results"]["files"]:
        one = file["verification"]
        yield (
            file["format"],
            file["precision"],
            f"{one['runtime']} {one['version']}",
            f"{file['bytes'] / 1e6:.2f}",
            f"{one['difference']:.2g}" if one["difference"] else "none: the same bits",
            f"{one['agreement']:.2%}",
            f"{one['top1']:.2%}",
        )


def _fastest(mine: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """The fastest of the others, and how many times as long as lucid it takes, round by round."""
    if not others:
        return ""
    best = min(others, key=lambda one: one["seconds"])
    ratios = [theirs / ours for ours, theirs in zip(mine["turns"], best["turns"], strict=True)]
    return f"{median(ratios):.2f} times as long: {best['peer']} {best['precision']}"


def device_memory() -> Rows:
    """Bytes that the C export takes of a device."""
    yield (
        "width",
        "image",
        "classes",
        "weights, biases, multipliers",
        "RAM, rows pushed",
        "RAM, with the image",
        "largest input and output of a layer",
    )
    for width, side, classes in ((0.25, 96, 2), (0.25, 128, 5), (0.25, 224, 1000), (0.5, 96, 2)):
        arguments = MobileNetArguments(width_multiplier=width, num_classes=classes, last_stride=1)
        network = layers(arguments)
        flash = sum(
            4 if layer.kind == "pool" else layer.weights + 8 * layer.out_channels
            for layer in network
        )
        needed = need(make_plan(network, side, side), flash)
        whole = totals(sized_layers(network, side, side)).peak.activations
        numbers = (classes, needed.flash, needed.rows, needed.image, whole)
        yield (str(width), f"{side}x{side}x3", *(f"{number:,}" for number in numbers))


def device_instructions() -> Rows:
    """What benchmarks/embedded.py counted."""
    yield ("core", "kernels", "flags", "instructions", "code and tables, bytes")
    counts = json.loads((RESULTS / "embedded.json").read_text())["results"]
    for name, count in counts.items():
        yield (*name.split(), f"{count['all']:,}", f"{count['code']:,}")


TABLES: dict[str, Callable[[], Rows]] = {
    "costs": costs,
    "device-instructions": device_instructions,
    "device-memory": device_memory,
    "kernel-sets": kernel_sets,
    "layers": every_layer,
    "memory": memory,
    "profiles": profiles,
    "exports": exports,
    "formats": formats,
    "recipe": recipe,
    "runtimes": runtimes,
    "sizes": sizes,
    "tensors": tensors,
    "variants": variants,
}


def _use_local_mermaid(app: Sphinx, config: Any) -> None:
    """Draw charts without a network where Mermaid is installed beside the documentation."""
    script = Path(app.confdir).parent / MERMAID
    if script.is_file():
        config.html_static_path.append(str(script))
        config.mermaid_use_local = MERMAID.name


def _add_mermaid(app: Sphinx, *page: Any) -> None:
    doctree: nodes.document | None = page[-1]
    if app.config.mermaid_use_local and doctree and doctree.next_node(mermaid):
        app.add_js_file(MERMAID.name, priority=FIRST)
        app.add_js_file(None, body=IMPORT_MAP, type="importmap", priority=FIRST)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("model-chart", ModelChart)
    app.add_directive("lucid-table", Table)
    app.add_directive("source-comment", SourceComment)
    app.connect("config-inited", _use_local_mermaid)
    app.connect("html-page-context", _add_mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
