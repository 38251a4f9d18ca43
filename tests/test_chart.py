"""The rules of the chart: what is drawn, under which name, and which edges join it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from chart_helpers import Chart, Encoder, ResidualNet, Siamese, read_chart
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lucid.architecture import convolutions
from lucid.errors import ConfigError, ShapeError
from lucid.models import MobileNet
from lucid.visual import build_module_mermaid_chart

GOLDEN = Path(__file__).parent / "golden" / "mobilenet_1.0_224.mmd"
SHAPE = (1, 3, 32, 32)


def chart_of(module: nn.Module, shape: object = (1, 4), **options: object) -> Chart:
    return read_chart(build_module_mermaid_chart(module, shape, **options))


def stripped(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_mobilenet_equals_the_published_chart() -> None:
    chart = build_module_mermaid_chart(MobileNet(1.0), (1, 3, 224, 224))
    assert stripped(chart) == stripped(GOLDEN.read_text(encoding="utf-8"))


def test_shape_may_be_a_list_and_one_input_a_sequence() -> None:
    model = nn.Linear(4, 2)
    charts = {build_module_mermaid_chart(model, s) for s in ((1, 4), [1, 4], [(1, 4)], [[1, 4]])}
    assert len(charts) == 1


# Names and runs


def test_equal_neighbours_show_once() -> None:
    chart = chart_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)))
    assert chart.layers == ["Linear x 2", "ReLU", "Linear"]
    assert 'm1(["Linear x 2"]);' in chart.text, "a repeated leaf is a pill"
    assert 'm2["ReLU"];' in chart.text


def test_repeat_counts_inside_do_not_matter() -> None:
    blocks = (nn.Sequential(*(nn.Identity() for _ in range(n)), nn.ReLU()) for n in (1, 2, 5))
    assert chart_of(nn.Sequential(*blocks)).boxes == {"m0": "Sequential", "m1": "Sequential x 3"}


def test_structure_below_the_cut_counts() -> None:
    """Siblings that look alike because the cut hides the difference are not equal."""
    siblings = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU()))
    assert chart_of(siblings, depth=1).layers == ["Sequential", "Sequential"]


def test_only_a_box_of_a_named_sequential_has_its_name() -> None:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Sequential(nn.ReLU()), nn.GELU()))
    model.add_module("empty", nn.Sequential())
    model.add_module("act", nn.ReLU())
    chart = chart_of(model)
    assert list(chart.boxes.values()) == ["Sequential", "body", "Sequential"]
    assert chart.layers == ["ReLU", "GELU", "Sequential", "ReLU"]
    assert chart_of(model, depth=1).layers == ["Sequential", "Sequential", "ReLU"]


def test_module_list_is_a_box_of_its_class() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([nn.Linear(4, 4), nn.ReLU()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for step in self.steps:
                x = step(x)
            return x

    chart = chart_of(Chain())
    assert chart.boxes == {"m0": "Chain", "m1": "ModuleList"}
    assert chart.path() == ["Input", "Linear", "ReLU", "Output"]
    # Cut above them, its steps count as the list, which itself is never called.
    assert chart_of(Chain(), depth=1).path() == ["Input", "ModuleList", "Output"]


def test_depth_zero_is_the_module_alone() -> None:
    chart = chart_of(MobileNet(0.25), SHAPE, depth=0)
    assert chart.layers == ["mobilenet"]
    assert chart.path() == ["Input", "mobilenet", "Output"]


def test_names_can_not_break_the_chart() -> None:
    model = nn.Sequential()
    model.add_module('a"] --> <b>', nn.Sequential(nn.ReLU(), nn.GELU()))
    assert "a&quot;] --&gt; &lt;b&gt;" in build_module_mermaid_chart(model, (1, 4))


@pytest.mark.parametrize(
    ("direction", "curve"),
    [("LR", "monotoneX"), ("RL", "monotoneX"), ("TB", "monotoneY"), ("BT", "monotoneY")],
)
def test_direction(direction: str, curve: str) -> None:
    init, flowchart = chart_of(nn.ReLU(), direction=direction).text.splitlines()[:2]
    assert f'"curve":"{curve}"' in init
    assert flowchart == f"flowchart {direction}"


def test_two_deepest_levels_of_boxes_run_top_to_bottom() -> None:
    nested = nn.Sequential(nn.Sequential(nn.Sequential(nn.Sequential(nn.ReLU()))))
    text = chart_of(nested, collapse=False).text
    assert re.findall(r"sg_(m\d)\[[^\n]*\n\s*direction TB;", text) == ["m2", "m3"]


# Edges


def test_edge_from_a_leaf_to_itself_is_left_out() -> None:
    chart = chart_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)))
    assert set(chart.edges) == {("input", "m1"), ("m1", "output")}


@pytest.mark.parametrize(("repeats", "joined"), [(2, False), (3, True)])
def test_repeated_boxes_join_through_their_pills(repeats: int, joined: bool) -> None:
    """The first of a run is drawn; the second is the box, and a third an edge back to it."""
    blocks = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(repeats))
    expected = {
        ("input", "m2"): "-.->",
        ("m2", "m3"): "-->",
        ("m3", "m1_in"): "-.->" if joined else "-->",
        ("m1_in", "m2"): "-.->",
        ("m3", "m1_out"): "-->",
        ("m1_out", "output"): "-->",
    }
    if joined:
        expected["m1_out", "m1_in"] = "-.->"
    chart = chart_of(nn.Sequential(*blocks))
    assert chart.edges == expected
    lines = stripped(chart.text)
    edge_lines = [line for line in lines if "->" in line]
    assert edge_lines == sorted(edge_lines) == lines[-len(expected) :]


def test_boxes_without_edges_have_no_pills() -> None:
    assert "_in" not in chart_of(nn.Sequential(nn.Sequential(nn.ReLU(), nn.GELU()))).text


def test_module_called_twice_has_the_edges_of_both_calls() -> None:
    chart = chart_of(ResidualNet(), SHAPE, collapse=False)
    conv1, bn1, relu, conv2, bn2 = (f"m{n}" for n in range(4, 9))
    assert chart.titles[relu] == "ReLU"
    calls = {(conv1, bn1), (bn1, relu), (relu, conv2), (conv2, bn2), (bn2, relu)}
    assert calls <= set(chart.edges)
    assert chart.edges[bn2, relu] == "-.->"


def test_inputs_go_where_they_are_given() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4, bias=False)
            self.last = nn.ReLU()

        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(a) + self.second(b) + 2 * c)

    chart = chart_of(Late(), [(1, 4)] * 3, collapse=False)
    assert {edge for edge in chart.edges if "input" in edge[0]} == {
        ("input1", "m1"),
        ("input2", "m2"),
        ("input3", "m1"),  # no module is given it as it is
    }
    assert [chart.titles[f"input{n}"] for n in (1, 2, 3)] == ["Input 1", "Input 2", "Input 3"]


def test_two_inputs_share_an_encoder() -> None:
    chart = chart_of(Siamese(), [(2, 6), (2, 6)])
    assert chart.details["m2"] == "(2,6) → (2,5)"
    assert chart.details["m4"] == "(2,5) → (2,1)"
    assert chart.details["output"] == "(2,1), (2)"
    assert {("input1", "m2"), ("input2", "m2"), ("m3", "m2"), ("m3", "m4")} <= set(chart.edges)


# Unusual modules


def test_functional_module_is_one_node() -> None:
    class Flip(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.transpose(0, 1)

    chart = chart_of(Flip())
    assert chart.path() == ["Input", "Flip", "Output"]
    assert chart.details["m0"] == "(1,4) → (4,1)"


def test_attention_is_a_leaf_and_outputs_may_be_dicts() -> None:
    chart = chart_of(Encoder(), (1, 7), depth=9, collapse=False, dtype=torch.long)
    assert chart.layers.count("MultiheadAttention") == 2
    assert "NonDynamicallyQuantizableLinear" not in chart.text
    assert chart.details["output"] == "(1,3), (1,7,16)"
    assert chart.details["m1"] == "(1,7) → (1,7,16)"


def test_module_that_is_never_called_says_so() -> None:
    chart = chart_of(ResidualNet(), SHAPE)
    idle = next(node for node, detail in chart.details.items() if detail == "not called")
    assert chart.titles[idle] == "Sequential"
    assert not any(idle in ends for ends in chart.edges)
    assert f"input ~~~ {idle};" in chart.text


def test_shared_layer_is_drawn_at_each_of_its_places() -> None:
    act = nn.ReLU()
    same_parent = nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 2), act)
    expected = ["Input", "Linear", "ReLU", "Linear", "ReLU", "Output"]
    assert chart_of(same_parent, collapse=False).path() == expected
    parents = nn.Sequential(nn.Sequential(nn.Linear(4, 3), act), nn.Sequential(nn.Tanh(), act))
    expected = ["Input", "Linear", "ReLU", "Tanh", "ReLU", "Output"]
    assert chart_of(parents, collapse=False).path() == expected


def test_exception_that_the_model_catches() -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError(x)

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.picky = nn.Sequential(nn.ReLU(), Picky())
            self.other = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.picky(x)
            except ValueError:
                return self.other(x)

    chart = chart_of(Careful())
    assert ("m2", "m4") in chart.edges, chart.text
    assert chart.details["m3"] == "not called"


# Every layer in its true order


def test_full_chart_has_every_layer_in_its_order() -> None:
    model = MobileNet(0.25, 10)
    chart = chart_of(model, SHAPE, collapse=False)
    one = ["Conv2d", "BatchNorm2d", "ReLU"]
    expected = one * len(list(convolutions(model.arguments))) + ["AdaptiveAvgPool2d", "Linear"]
    assert chart.layers == expected
    assert chart.path() == ["Input", *expected, "Output"]
    assert set(chart.edges.values()) == {"-->"}


def test_full_chart_follows_the_calls_and_not_the_definition() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Sequential(nn.GELU(), nn.Linear(3, 2))
            self.first = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    assert chart_of(Reversed(), collapse=False).layers == ["Linear", "GELU", "Linear"]


layers = st.sampled_from([nn.ReLU, nn.GELU, nn.Tanh, nn.Identity])
trees = st.recursive(
    st.builds(lambda layer: layer(), layers),
    lambda children: st.lists(children, min_size=1, max_size=4).map(lambda c: nn.Sequential(*c)),
    max_leaves=12,
)


@given(trees)
def test_full_chart_of_any_tree_is_the_chain_of_its_leaves(tree: nn.Module) -> None:
    leaves = [type(part).__name__ for part in tree.modules() if not list(part.children())]
    assert chart_of(tree, collapse=False).path() == ["Input", *leaves, "Output"]


@given(trees, st.integers(0, 4))
def test_collapsed_chart_of_any_tree_is_connected(tree: nn.Module, depth: int) -> None:
    chart = chart_of(tree, depth=depth)
    numbers = sorted(
        {int(node[1:]) for node in {*chart.titles, *chart.boxes} if node[1:].isdigit()}
    )
    assert numbers == list(range(len(numbers)))
    reached = {"input"}
    while more := {end for start, end in chart.edges if start in reached} - reached:
        reached |= more
    assert reached == set(chart.titles)
    arrows = {end: [a for (_, e), a in chart.edges.items() if e == end] for _, end in chart.edges}
    for incoming in arrows.values():
        assert set(incoming) == ({"-->"} if len(incoming) == 1 else {"-.->"})


# Bad input


@pytest.mark.parametrize(
    "shape",
    [(), [], (1, 0), (1, -4), (1, 4.0), (True, 4), "14", 4, None, [(1, 4), ()], [(1, 4), 4]],
)
def test_shape_that_is_none(shape: object) -> None:
    with pytest.raises(ShapeError, match="input_shape must be one shape such as"):
        build_module_mermaid_chart(nn.ReLU(), shape)


def test_shape_that_the_model_refuses() -> None:
    with pytest.raises(ShapeError, match=r"MobileNet expects images \(N, 3, H, W\), got \(1, 4\)"):
        build_module_mermaid_chart(MobileNet(0.25), (1, 4))


def test_shape_that_fails_inside_names_the_layer() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(5, 2)))
    with pytest.raises(ShapeError, match=r"can't run on input of shape \(1, 4\).*failed in 1\.0:"):
        build_module_mermaid_chart(model, (1, 4))


def test_wrong_number_of_inputs() -> None:
    with pytest.raises(ShapeError, match=r"Siamese can't run .* missing 1 required positional"):
        build_module_mermaid_chart(Siamese(), (1, 6))


def test_lazy_parameters() -> None:
    with pytest.raises(ConfigError, match="run it once on real input"):
        build_module_mermaid_chart(nn.Sequential(nn.LazyLinear(3)), (1, 4))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"depth": -1}, "depth must be"),
        ({"depth": 1.5}, "depth must be"),
        ({"direction": "lr"}, "direction must be one of LR, RL, TB, BT"),
    ],
)
def test_option_out_of_range(option: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_module_mermaid_chart(nn.ReLU(), (1, 4), **option)
