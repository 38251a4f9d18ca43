"""What changes the weights: parameter groups, the schedule and the moving average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lucid.training.recipe import Recipe

# The average starts by following the weights closely, as in TensorFlow's ExponentialMovingAverage:
# at step t it decays by (1 + t) / (10 + t) until that exceeds the recipe's decay.
_AVERAGE_START = 10


def make_optimizer(
    model: nn.Module, recipe: Recipe, beside: nn.Module | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer; only weights of convolutions and linear layers decay.

    Args:
        beside: what learns with the model and is no part of it.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in (model, beside):
        for parameter in module.parameters() if module is not None else ():
            (decaying if parameter.ndim > 1 else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate(recipe: Recipe, step: int, steps_an_epoch: int) -> float:
    """Linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter 2016, arXiv:1608.03983).

    Args:
        step: 0 for the first step of the run.
    """
    total = recipe.epochs * steps_an_epoch
    warmup = min(recipe.warmup_epochs * steps_an_epoch, total / 2)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def initialise(model: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852), fan out, for every convolution."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class MovingAverage:
    """Moves one model towards another: weights and the statistics of batch norms."""

    def __init__(self, average: nn.Module, model: nn.Module) -> None:
        # Listed once: a state dict takes as long to make as the average to move.
        self._averages, self._values = _float_tensors(average), _float_tensors(model)

    @torch.no_grad()
    def update(self, step: int, decay: float) -> None:
        """Move by ``1 - decay``, and further in the first steps."""
        decay = min(decay, (1 + step) / (_AVERAGE_START + step))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)


def _float_tensors(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in model.state_dict().values() if tensor.dtype.is_floating_point]
