"""What tests of models share: valid arguments, statistics that make outputs depend on the input."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from lucid.architecture import (
    ACTIVATIONS,
    CHANNEL_ROUNDINGS,
    PADDINGS,
    MobileNetArguments,
)
from lucid.images import Preprocessing, normalise
from lucid.lowering import lower_model
from lucid.models import MobileNet
from lucid.network import FloatNetwork

# Small enough to build and run in milliseconds.
valid_arguments = st.builds(
    MobileNetArguments,
    width_multiplier=st.floats(1 / 32, 0.5),
    num_classes=st.integers(1, 20),
    last_stride=st.integers(1, 2),
    activation=st.sampled_from(ACTIVATIONS),
    padding=st.sampled_from(PADDINGS),
    channel_rounding=st.sampled_from(CHANNEL_ROUNDINGS),
    in_channels=st.integers(1, 5),
    batch_norm_epsilon=st.floats(1e-6, 1.0),
    dropout=st.floats(0.0, 0.9),
    head_channels=st.sampled_from([0, 0, 1, 13, 40]),
)


def settle_batch_norm(
    model: nn.Module, images: torch.Tensor, *, seed: int = 0, shift: float = 0.0
) -> nn.Module:
    """Give every batch norm a random scale and shift and the statistics of ``images``.

    With the default statistics an untrained model gives almost the same logits for every image, so
    that a comparison would pass whatever its convolutions compute. Returns the model in eval mode.
    The shifts are uniform around ``shift``.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            size = norm.weight.shape
            norm.weight.copy_(torch.empty(size).uniform_(0.5, 1.5, generator=generator))
            norm.bias.copy_(torch.empty(size).uniform_(-0.5, 0.5, generator=generator) + shift)
            norm.momentum = 1.0
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


@torch.no_grad()
def steady(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """``settle_batch_norm``, with less of an effect of every rounding error on the logits.

    Through random layers an error grows from each to the next: PyTorch's own float32 and float64
    differ by more than 1e-5 then. Depthwise filters that blur and ReLUs that mostly pass, as in
    trained networks, keep it small.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.weight += module.weight.std()
    return settle_batch_norm(model, images, shift=0.5)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest magnitude in ``expected``."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def assert_sensitive(model: nn.Module, images: torch.Tensor, filters: nn.Parameter) -> None:
    """Prove that logits tell images apart and notice one flipped filter of an early layer."""
    logits = model(images)
    logits = getattr(logits, "logits", logits)
    assert difference(logits[:1], logits[1:2]) > 0.01, "different images have the same logits"
    filters[0].neg_()
    flipped = model(images)
    filters[0].neg_()
    flipped = getattr(flipped, "logits", flipped)
    assert difference(flipped, logits) > 0.01, "a flipped filter does not change the logits"


def import_reference(name: str) -> ModuleType:
    """timm or transformers, or a skip that names it.

    Both import torchvision, whose compiled operators don't fit the CPU build of torch; only its
    declarations of their shapes fail, and no test needs those.
    """
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("empty"))
    return pytest.importorskip(name)


def network_of(model: MobileNet) -> FloatNetwork:
    """A live model, folded."""
    arguments = model.arguments
    names = tuple(str(k) for k in range(arguments.num_classes))
    return lower_model(model, names, Preprocessing(32, color=color(arguments.in_channels)))


def color(channels: int) -> str:
    """Of pictures with so many channels."""
    return {1: "L", 3: "RGB"}[channels]


def random_pixels(shape: tuple[int, int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Squares of random colours under noise; of noise alone all images would look the same."""
    random = np.random.default_rng(seed)
    count, height, width, channels = shape
    grid = (count, -(-height // 16), -(-width // 16), channels)
    squares = random.integers(0, 200, grid).repeat(16, axis=1).repeat(16, axis=2)
    pixels = squares[:, :height, :width] + random.integers(0, 56, shape)
    return pixels.astype(np.uint8)


def steady_model(arguments: MobileNetArguments) -> MobileNet:
    """A model whose logits depend on every layer, always the same."""
    torch.manual_seed(3)
    model = MobileNet.from_arguments(arguments)
    measured = random_pixels((16, 64, 64, arguments.in_channels), seed=1)
    preprocessing = Preprocessing(32, color=color(arguments.in_channels))
    steady(model, torch.from_numpy(normalise(measured, preprocessing)))
    return model
