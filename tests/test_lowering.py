"""Batch norm folds into the convolution exactly, and a checkpoint needs no PyTorch for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_helpers import small_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lucid import reference
from lucid.architecture import MobileNetArguments
from lucid.checkpoint import write_checkpoint
from lucid.errors import CheckpointError, NetworkError
from lucid.images import Preprocessing
from lucid.lowering import fold_batch_norm, lower, lower_model
from lucid.models import MobileNet
from lucid.network import FloatLayer, FloatPool, layers

NORM = ("weight", "bias", "running_mean", "running_var")


@given(
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.floats(1e-6, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_folding_is_exact(channels: int, kernel: int, epsilon: float, seed: int) -> None:
    """Convolution and batch norm in float64, by PyTorch, against the folded convolution."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)

    x, weight = draw(2, 3, 7, 5), draw(channels, 3, kernel, kernel)
    scale, shift, mean = (draw(channels) for _ in range(3))
    variance = draw(channels, low=0.0, high=4.0)
    normalised = torch.nn.functional.batch_norm(
        torch.nn.functional.conv2d(x, weight), mean, variance, scale, shift, eps=epsilon
    )
    parts = [part.numpy() for part in (weight, scale, shift, mean, variance)]
    folded, bias = (torch.from_numpy(part) for part in fold_batch_norm(*parts, epsilon=epsilon))
    assert folded.dtype == bias.dtype == torch.float64
    found = torch.nn.functional.conv2d(x, folded, bias)
    assert ((found - normalised).abs().max() / normalised.abs().max()).item() < 1e-12


def test_float32_is_folded_in_float64() -> None:
    """A variance of 1 with an epsilon that float32 would not see beside it."""
    one = np.ones(1, np.float32)
    weight, bias = fold_batch_norm(one, one, one, one, one, epsilon=1e-9)
    assert weight[0] == 1 / np.sqrt(1 + 1e-9) != 1
    assert bias[0] == 1 - weight[0]


@pytest.mark.parametrize(
    "arguments",
    [
        MobileNetArguments(1 / 32, 3),
        MobileNetArguments(0.05, 3, last_stride=1, activation="relu6", padding="same"),
        MobileNetArguments(0.04, 3, channel_rounding="minimum8", batch_norm_epsilon=1e-3),
    ],
    ids=repr,
)
def test_a_checkpoint_lowers_to_its_own_structure(arguments: MobileNetArguments) -> None:
    checkpoint = small_checkpoint(arguments=arguments)
    network = lower(checkpoint)
    assert [layer.to_dict() for layer in network.layers] == [
        layer.to_dict() for layer in layers(arguments)
    ]
    for name, value in network.description_fields().items():
        assert value == getattr(checkpoint, name), name
    high = 6.0 if arguments.activation == "relu6" else np.inf
    *convolutions, pool, dense = network.layers
    assert isinstance(pool, FloatPool)
    assert isinstance(dense, FloatLayer)
    assert dense.activation_range == (-np.inf, np.inf)
    np.testing.assert_array_equal(dense.weight, checkpoint.tensors["fc.weight"])
    assert {layer.activation_range for layer in convolutions} == {(0.0, high)}
    stem = convolutions[0]
    parts: list[NDArray[Any]] = [checkpoint.tensors[f"conv1.bn.{part}"] for part in NORM]
    folded, bias = fold_batch_norm(
        checkpoint.tensors["conv1.conv.weight"], *parts, epsilon=arguments.batch_norm_epsilon
    )
    np.testing.assert_array_equal(stem.weight, folded.astype(np.float32))
    np.testing.assert_array_equal(stem.bias, bias.astype(np.float32))


def test_a_live_model_lowers_as_its_checkpoint(fixed_model: MobileNet) -> None:
    names, preprocessing = [str(k) for k in range(10)], Preprocessing(32)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    network = lower_model(fixed_model, names, preprocessing)
    expected = reference.run(network, pixels)
    assert not (expected[0] == expected[1]).any()
    for changed in (fixed_model.train(), fixed_model.double()):
        again = lower_model(changed, names, preprocessing)
        np.testing.assert_array_equal(reference.run(again, pixels), expected)
    with torch.no_grad():
        fixed_model.fc.weight.neg_()
    np.testing.assert_array_equal(reference.run(network, pixels), expected)


def test_a_network_can_not_be_changed_unnoticed() -> None:
    layer = lower(small_checkpoint()).layers[0]
    assert isinstance(layer, FloatLayer)
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0] = 0


def test_weights_beyond_float32_are_named() -> None:
    checkpoint = small_checkpoint()
    tensors = dict(checkpoint.tensors)
    tensors["conv2.depthwise.1.weight"] = np.float32([3e38])
    tensors["conv2.depthwise.1.running_var"] = np.float32([0])
    with pytest.raises(NetworkError, match=r"conv2.depthwise.weight: holds values .* not finite"):
        lower(replace(checkpoint, tensors=tensors))


def test_a_model_that_diverged(fixed_model: MobileNet) -> None:
    with torch.no_grad():
        fixed_model.fc.bias[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"fc\.bias: holds values that are not finite"):
        lower_model(fixed_model, [str(k) for k in range(10)], Preprocessing(32))


def test_a_checkpoint_needs_no_torch(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.safetensors", small_checkpoint())
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from lucid import reference\n"
        "from lucid.checkpoint import read_checkpoint\n"
        "from lucid.lowering import lower\n"
        "network = lower(read_checkpoint(sys.argv[1]))\n"
        "print(reference.run(network, np.zeros((1, 9, 9, 3), np.uint8)).shape)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model.safetensors")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "(1, 3)\n"
