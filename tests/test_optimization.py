"""What changes the weights: groups, schedule, average."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lucid.models import MobileNet
from lucid.training import Recipe
from lucid.training.optimization import MovingAverage, learning_rate, make_optimizer


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_is_for_convolution_and_classifier_weights_only(optimizer: str) -> None:
    model = MobileNet(0.25, 5)
    made = make_optimizer(model, Recipe(optimizer=optimizer, weight_decay=0.1))
    decays = {id(p): g["weight_decay"] for g in made.param_groups for p in g["params"]}
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    decaying = {id(layer.weight) for layer in layers}
    assert len(decaying) == 28
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.1 if id(parameter) in decaying else 0.0), name


@given(
    epochs=st.integers(1, 50),
    steps=st.integers(1, 50),
    warmup=st.floats(0, 60),
    peak=st.floats(1e-6, 10),
)
def test_the_rate_rises_to_the_peak_and_falls_to_nothing(epochs, steps, warmup, peak) -> None:
    recipe = Recipe(epochs=epochs, warmup_epochs=warmup, learning_rate=peak)
    rates = [learning_rate(recipe, step, steps) for step in range(epochs * steps)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if epochs * steps > 20:
        assert rates[-1] < 0.02 * peak
        assert max(rates) > 0.8 * peak


def test_the_cosine_is_halfway_down_at_half_time() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=0, learning_rate=1.0)
    assert math.isclose(learning_rate(recipe, 500, 100), 0.5)


def test_the_average_equals_pytorchs() -> None:
    torch.manual_seed(0)
    model = MobileNet(0.25, 3)
    average = copy.deepcopy(model)
    reference = torch.optim.swa_utils.AveragedModel(
        copy.deepcopy(model),
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9),
    )
    reference.update_parameters(model)  # the first one copies
    for step in range(1000, 1004):  # past the start, where the decay is smaller
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        MovingAverage(average, model).update(step, 0.9)
        reference.update_parameters(model)
    for ours, theirs in zip(average.parameters(), reference.module.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(average.fc.weight, model.fc.weight, atol=0.1)


def test_the_average_follows_closely_at_the_start() -> None:
    model, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.ones_(average.weight)
    moving = MovingAverage(average, model)
    for step, share_kept in ((0, 1 / 10), (10, 11 / 20), (10**9, 0.999)):
        before = average.weight.item()
        moving.update(step, 0.999)
        assert math.isclose(average.weight.item(), share_kept * before, rel_tol=1e-5), step
