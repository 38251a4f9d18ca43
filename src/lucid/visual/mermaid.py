"""A module as the text of a Mermaid flowchart."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from lucid.checks import check_choice, check_integer
from lucid.errors import ShapeError
from lucid.models import model_name
from lucid.visual.edges import Edges, edges
from lucid.visual.families import Family, family
from lucid.visual.grouping import Node, displayed_tree
from lucid.visual.tracing import Shape, Trace, trace

Direction = Literal["LR", "RL", "TB", "BT"]

_COLLAPSED_DEPTH = 3
_MAX_DEPTH = 100
_BOX = "fill:#000000,fill-opacity:0.05,stroke:#000000,stroke-opacity:0.75,stroke-width:1px"
_PILL = Family("#e2e8f0", "#64748b")
_END = Family("#fff3cd", "#a67c00")
_IDLE = Family("#ffffff", "#718096")
# By name, since Mermaid has a meaning of its own for numbers such as "&#39;".
_ESCAPES = str.maketrans({'"': "&quot;", "#": "&num;", "`": "&grave;"})
_MAX_SHAPES = 3  # of a module with more inputs or outputs, the others are left out


def build_module_mermaid_chart(
    module: nn.Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]],
    *,
    depth: int | None = None,
    collapse: bool = True,
    costs: bool = False,
    direction: Direction = "LR",
    dtype: torch.dtype | None = None,
) -> str:
    """Draw a module as a Mermaid flowchart, by running it once and leaving it as it was.

    Edges follow the order in which the forward pass completes modules, not the tensors between
    them. A module called twice is one node with edges of both calls; one that stands at two places
    of the module tree is drawn at both. What a ``forward`` computes itself is not drawn; a module
    that is never called says so.

    Args:
        module: any module that takes tensors by position.
        input_shape: the shape of its input, batch first, such as (1, 3, 224, 224); for a module
            with several inputs, a sequence of shapes.
        depth: levels of the module tree that are drawn, from 0 (the module alone); None: 3, or all
            without ``collapse``.
        collapse: show consecutive siblings of equal structure once, as ``name x N``. Without it
            every layer is drawn, in the order in which they ran.
        costs: add parameters and multiply-adds to each node, in all it stands for. A parameter
            counts once, at the first module that has it, multiply-adds for each call and the whole
            batch; those of convolutions and matrix products are counted, nothing else.
        direction: of the flowchart, ``"LR"``, ``"RL"``, ``"TB"`` or ``"BT"``.
        dtype: of the inputs; None: that of the module's parameters. Give an integer one, such as
            ``torch.long``, for a module that takes indices: it gets zeros.
    Returns:
        the text, without a final newline.
    Raises:
        ConfigError: an option is out of range, or the module has lazy parameters.
        ShapeError: ``input_shape`` is no shape, or the module can't run on it.
    """
    check_choice("direction", direction, get_args(Direction))
    if depth is not None:
        check_integer("depth", depth, 0, _MAX_DEPTH)
    elif collapse:
        depth = _COLLAPSED_DEPTH
    traced = trace(module, _input_shapes(input_shape), dtype=dtype, costs=costs)
    tree = displayed_tree(traced.root, depth=depth, collapse=collapse)
    return "\n".join(_chart(traced, tree, direction, costs))


def _input_shapes(given: Sequence[int] | Sequence[Sequence[int]]) -> list[Shape]:
    entries: list[Any] = list(given) if isinstance(given, Sequence) else []
    shapes: list[Any] = [entries] if all(isinstance(entry, int) for entry in entries) else entries
    if not entries or not all(_is_shape(shape) for shape in shapes):
        raise ShapeError(
            "input_shape must be one shape such as (1, 3, 224, 224), or a sequence of such shapes, "
            f"of whole numbers from 1; got {given!r}"
        )
    return [tuple(shape) for shape in shapes]


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) > 0
        and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in shape)
    )


def _chart(traced: Trace, tree: Node, direction: Direction, costs: bool) -> Iterator[str]:
    shapes = traced.input_shapes
    input_ids = ["input"] if len(shapes) == 1 else [f"input{n + 1}" for n in range(len(shapes))]
    found = edges(traced, tree, input_ids)
    curve = "monotoneX" if direction in ("LR", "RL") else "monotoneY"
    yield (
        f'%%{{init: {{"flowchart":{{"curve":"{curve}","nodeSpacing":50,"rankSpacing":50}}}} }}%%'
    )
    yield f"flowchart {direction}"
    yield "  linkStyle default stroke-width:2.0px"
    deepest_box = max((node.level for node in tree.walk() if node.children), default=0)
    yield from _Nodes(found, costs, vertical_from=max(1, deepest_box - 1)).lines(tree, "  ")
    for number, (input_id, shape) in enumerate(zip(input_ids, shapes, strict=True), start=1):
        title = "Input" if len(shapes) == 1 else f"Input {number}"
        yield f'  {input_id}["{title}{_detail(_shape_text([shape]), _END)}"];'
    yield f'  output["Output{_detail(_shape_text(traced.output_shapes), _END)}"];'
    for end in (*input_ids, "output"):
        yield f"  {_style(end, _END)}"
    for leaf in tree.leaves():
        if colours := _colours(leaf):
            yield f"  {_style(leaf.id, colours)}"
    yield from (f"  {line}" for line in found.lines)
    for leaf in tree.leaves():
        if not leaf.place.ran():
            # Invisible: without an edge Mermaid would lay it over the edges of others.
            yield f"  {input_ids[0]} ~~~ {leaf.id};"


class _Nodes:
    """Writes boxes and leaves; boxes from level ``vertical_from`` on run top to bottom."""

    def __init__(self, found: Edges, costs: bool, vertical_from: int) -> None:
        self._found = found
        self._costs = costs
        self._vertical_from = vertical_from

    def lines(self, node: Node, indent: str) -> Iterator[str]:
        if node.children:
            yield from self._box(node, indent)
        else:
            yield indent + self._leaf(node)

    def _box(self, node: Node, indent: str) -> Iterator[str]:
        inside = indent + "  "
        yield f'{indent}subgraph sg_{node.id}["{self._title(node)}{self._box_cost(node)}"]'
        if node.level >= self._vertical_from:
            yield f"{inside}direction TB;"
        yield f"{indent}style sg_{node.id} {_BOX}"
        if node in self._found.boxes_with_pills:
            pills = {f"{node.id}_in": "Input", f"{node.id}_out": "Output"}
            yield from (f'{inside}{pill}(["{title}"]);' for pill, title in pills.items())
            yield from (f"{inside}{_style(pill, _PILL)}" for pill in pills)
        for child in node.children:
            yield from self.lines(child, inside)
        yield f"{indent}end"

    def _leaf(self, node: Node) -> str:
        colours = _colours(node)
        inputs, outputs = node.place.inputs, node.place.outputs
        label = self._title(node)
        if not node.place.ran():
            label += _detail("not called", colours)
        elif inputs != outputs:
            label += _detail(f"{_shape_text(inputs)} → {_shape_text(outputs)}", colours)
        label += self._leaf_cost(node, colours)
        return f'{node.id}(["{label}"]);' if len(node.run) > 1 else f'{node.id}["{label}"];'

    def _title(self, node: Node) -> str:
        if node.level > 0:
            return _escape(node.title)
        title = _escape(model_name(node.place.module) or node.title)
        return f"<span style='font-size:20px;font-weight:700'>{title}</span>"

    def _box_cost(self, node: Node) -> str:
        # On one line, since Mermaid leaves no room for a second.
        return f" {_small(' · '.join(_counts(node)))}" if self._costs else ""

    def _leaf_cost(self, node: Node, colours: Family | None) -> str:
        return _detail("<br/>".join(_counts(node)), colours) if self._costs else ""


def _colours(leaf: Node) -> Family | None:
    return family(leaf.place.module) if leaf.place.ran() else _IDLE


def _escape(text: str) -> str:
    return html.escape(text, quote=False).translate(_ESCAPES)


def _counts(node: Node) -> tuple[str, str]:
    return f"{node.parameters:,} parameters", f"{node.multiply_adds:,} multiply-adds"


def _detail(text: str, colours: Family | None) -> str:
    return f"<br/>{_small(text, colours)}"


def _small(text: str, colours: Family | None = None) -> str:
    colour = f"color:{colours.stroke};" if colours else ""
    return f"<span style='font-size:11px;{colour}font-weight:400'>{text}</span>"


def _shape_text(shapes: Sequence[Shape]) -> str:
    """Shapes in the notation of the chart; a dash where there is no tensor."""
    texts = ["(" + ",".join(map(str, shape)) + ")" for shape in shapes[:_MAX_SHAPES]]
    return ", ".join(texts + ["…"] * (len(shapes) > _MAX_SHAPES)) or "–"


def _style(node_id: str, colours: Family) -> str:
    return f"style {node_id} fill:{colours.fill},stroke:{colours.stroke},stroke-width:1px;"
