"""Drawing leaves the module as it was, and counts what it costs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from chart_helpers import Chart, Encoder, ResidualNet, read_chart
from torch import nn

from lucid.errors import ShapeError
from lucid.models import MobileNet
from lucid.visual import build_module_mermaid_chart

SHAPE = (1, 3, 32, 32)


class Stateful(nn.Module):
    """Changes its buffers and draws random numbers in every call, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("in_place", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("view", torch.zeros(1).expand(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.in_place += 1
        self.replaced = self.replaced + 1
        return self.layer(x + torch.rand(4))


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (1, 5)], ids=["runs", "fails"])
def test_module_is_unchanged(shape: tuple[int, ...], costs: bool) -> None:
    model = nn.Sequential(Stateful(), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    own_hook = model[0].register_forward_hook(lambda *_: None)
    before, objects, flags = copy.deepcopy(model.state_dict()), list(model.buffers()), modes(model)
    random_state = torch.get_rng_state()
    try:
        build_module_mermaid_chart(model, shape, costs=costs)
    except ShapeError:
        assert shape == (1, 5)
    else:
        assert shape == (1, 4)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(a is b for a, b in zip(model.buffers(), objects, strict=True))
    assert modes(model) == flags
    assert hooks(model) == 1
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    own_hook.remove()


def test_drawing_does_not_disturb_a_backward_pass() -> None:
    model = MobileNet(0.25, 5)
    loss = model(torch.rand(2, 3, 32, 32)).sum()
    build_module_mermaid_chart(model, SHAPE)
    loss.backward()
    assert model.conv1.conv.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_input_has_the_dtype_of_the_parameters(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).to(dtype)
    assert read_chart(build_module_mermaid_chart(model, (1, 4))).layers == ["Linear", "ReLU"]


def test_meta_device_needs_no_memory() -> None:
    with torch.device("meta"):
        model = MobileNet(1.0)
    shape = (64, 3, 224, 224)
    chart = build_module_mermaid_chart(model, shape, costs=True)
    assert total(read_chart(chart)) == (4_231_976, 64 * 533_833_216)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_input_is_on_the_device_of_the_parameters() -> None:
    model = MobileNet(0.25).cuda()
    state = torch.cuda.get_rng_state()
    assert build_module_mermaid_chart(model, SHAPE) == build_module_mermaid_chart(
        MobileNet(0.25), SHAPE
    )
    assert torch.equal(torch.cuda.get_rng_state(), state)


# Costs


def counts(text: str) -> tuple[int, int]:
    """Parameters and multiply-adds in the last part of a label."""
    words = text.replace(",", "").replace("·", " ").split()
    return int(words[words.index("parameters") - 1]), int(words[words.index("multiply-adds") - 1])


def total(chart: Chart) -> tuple[int, int]:
    return counts(chart.boxes["m0"] if "m0" in chart.boxes else chart.details["m0"])


def costs_of(module: nn.Module, shape: object, **options: object) -> Chart:
    return read_chart(build_module_mermaid_chart(module, shape, costs=True, **options))


# Parameters, and millions of multiply-adds (Howard et al. 2017, arXiv:1704.04861, table 6).
PUBLISHED = {
    1.0: (4_231_976, 569),
    0.75: (2_585_560, 325),
    0.5: (1_331_592, 149),
    0.25: (470_072, 41),
}


@pytest.mark.parametrize("width", PUBLISHED)
@pytest.mark.parametrize("collapse", [True, False])
def test_costs_are_the_published_ones(width: float, collapse: bool) -> None:
    with torch.device("meta"):
        model = MobileNet(width, last_stride=1)
    chart = costs_of(model, (1, 3, 224, 224), collapse=collapse)
    parameters, multiply_adds = total(chart)
    assert (parameters, round(multiply_adds / 1e6)) == PUBLISHED[width]
    if not collapse:
        layers = [counts(chart.details[n]) for n in chart.titles if n not in ("input", "output")]
        assert tuple(map(sum, zip(*layers, strict=True))) == (parameters, multiply_adds)


LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, groups=2), (1, 4, 9), 9 * 6 * 2 * 3),
    "conv2d": (nn.Conv2d(3, 8, (3, 5), stride=2), (2, 3, 9, 9), 2 * 4 * 3 * 8 * 3 * 15),
    "conv3d": (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 27 * 3 * 2 * 8),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (1, 4, 5, 5), 25 * 4 * 3 * 9),
    "linear": (nn.Linear(7, 5), (2, 3, 7), 2 * 3 * 7 * 5),
    "norm": (nn.BatchNorm2d(3), (1, 3, 8, 8), 0),
    "lstm": (nn.LSTM(8, 16), (5, 1, 8), 5 * 4 * 16 * (8 + 16)),
    "attention": (
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        (1, 10, 32),
        10 * 32 * (3 * 32 + 32 + 64 + 64) + 2 * 10 * 10 * 32,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_adds_of_a_layer(name: str) -> None:
    layer, shape, expected = LAYERS[name]
    parameters = sum(math.prod(parameter.shape) for parameter in layer.parameters())
    assert total(costs_of(layer, shape, depth=0)) == (parameters, expected)


def test_second_call_costs_again_but_has_no_new_parameters() -> None:
    layer = nn.Linear(4, 4, bias=False)
    once = nn.Sequential(layer, nn.ReLU())
    twice = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU())
    assert total(costs_of(once, (1, 4))) == (16, 16)
    chart = costs_of(twice, (1, 4), collapse=False)
    assert total(chart) == (16, 32)
    assert [counts(chart.details[node]) for node in ("m1", "m3")] == [(16, 16), (0, 16)]


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert total(costs_of(model, (1, 4), collapse=False)) == (16, 32)


def test_repeated_node_costs_what_it_stands_for() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.ReLU())
    chart = costs_of(model, (1, 4))
    assert chart.titles["m1"] == "Linear x 2"
    assert counts(chart.details["m1"]) == total(chart) == (4 * 3 + 3 + 3 * 2 + 2, 18)


def test_counting_does_not_change_the_chart() -> None:
    """PyTorch's fused attention would leave out the layers of an encoder."""
    plain, counted = (
        read_chart(
            build_module_mermaid_chart(
                Encoder(), (1, 7), depth=4, collapse=False, costs=costs, dtype=torch.long
            )
        )
        for costs in (False, True)
    )
    assert plain.edges == counted.edges
    assert plain.layers == counted.layers
    attention = ["MultiheadAttention", "Dropout", "LayerNorm"]
    block = [*attention, "Linear", "Dropout", "Linear", "Dropout", "LayerNorm"]
    assert plain.layers == ["Embedding", *block, *block, "Linear"]


def test_functional_products_count_where_they_happen() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))
            self.layer = nn.Linear(3, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(nn.functional.linear(x, self.weight))

    chart = costs_of(Functional(), (1, 4))
    assert total(chart) == (12 + 6, 12 + 6)
    assert counts(chart.details["m1"]) == (6, 6)


def test_layers_that_are_never_called_have_parameters_only() -> None:
    chart = costs_of(ResidualNet(), SHAPE)
    idle = next(text for text in chart.details.values() if text.startswith("not called"))
    assert counts(idle) == (8 * 2 + 2, 0)
