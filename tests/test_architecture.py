"""Arguments refuse what can't be built, and name it; shapes are those of the live model."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import valid_arguments

from lucid.architecture import MobileNetArguments, convolutions, tensor_shapes
from lucid.errors import ConfigError, LucidError
from lucid.models import MobileNet


@given(valid_arguments)
def test_tensor_shapes_are_the_state_dict(arguments):
    state = MobileNet.from_arguments(arguments).state_dict()
    assert list(tensor_shapes(arguments).items()) == [(k, tuple(v.shape)) for k, v in state.items()]
    integers = {name for name, tensor in state.items() if tensor.dtype != torch.float32}
    assert integers == {name for name in state if name.endswith("num_batches_tracked")}
    assert all(state[name].dtype == torch.int64 for name in integers)


@given(valid_arguments)
def test_convolutions_are_the_modules(arguments):
    model = MobileNet.from_arguments(arguments)
    modules = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    records = list(convolutions(arguments))
    assert len(records) == (28 if arguments.head_channels else 27)
    for record, module in zip(records, modules, strict=True):
        holder = model.get_submodule(record.name)
        assert next(holder.children()) is module
        assert record.weight_shape == tuple(module.weight.shape)
        assert (record.in_channels, record.out_channels) == (
            module.in_channels,
            module.out_channels,
        )
        assert (record.kernel, record.kernel) == module.kernel_size
        assert (record.stride, record.stride) == module.stride
        assert record.groups == module.groups


@given(valid_arguments)
def test_arguments_survive_json(arguments):
    assert MobileNetArguments.from_dict(json.loads(json.dumps(arguments.to_dict()))) == arguments


@given(st.floats(1 / 32, 16.0), st.sampled_from([32, 64, 128, 256, 512, 1024]))
def test_channels_of_the_two_plain_rules(width, base):
    assert MobileNetArguments(width).channels(base) == int(width * base) >= 1
    slim = MobileNetArguments(width, channel_rounding="minimum8")
    assert slim.channels(base) == max(int(width * base), 8)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("width_multiplier", 0, "above 0 and at most 16"),
        ("width_multiplier", -1, "above 0 and at most 16"),
        ("width_multiplier", float("nan"), "above 0 and at most 16"),
        ("width_multiplier", float("inf"), "above 0 and at most 16"),
        ("width_multiplier", 10**400, "above 0 and at most 16"),
        ("width_multiplier", 16.1, "above 0 and at most 16"),
        ("width_multiplier", "wide", "above 0 and at most 16"),
        ("width_multiplier", True, "above 0 and at most 16"),
        ("width_multiplier", None, "above 0 and at most 16"),
        ("width_multiplier", 0.03, "at least one channel, that is 1/32 or more"),
        ("num_classes", 0, "whole number from 1 to 1000000"),
        ("num_classes", -5, "whole number from 1 to 1000000"),
        ("num_classes", 1_000_001, "whole number from 1 to 1000000"),
        ("num_classes", 2.0, "whole number from 1 to 1000000"),
        ("num_classes", True, "whole number from 1 to 1000000"),
        ("num_classes", "ten", "whole number from 1 to 1000000"),
        ("last_stride", 3, "whole number from 1 to 2"),
        ("head_channels", -1, "whole number from 0 to 65536"),
        ("activation", "relu7", "one of relu, relu6"),
        ("padding", "SAME", "one of symmetric, same"),
        ("channel_rounding", ["truncate"], "one of truncate, minimum8, multiple8"),
        ("in_channels", 0, "whole number from 1 to 1024"),
        ("batch_norm_epsilon", 0.0, "above 0 and at most 1"),
        ("dropout", 1.0, "from 0 to below 1"),
    ],
)
def test_bad_arguments_are_named(name, value, expected):
    """From Python and from a checkpoint alike, before anything is allocated."""
    values = {"width_multiplier": 0.25, name: value}
    for build in (MobileNetArguments, MobileNet):
        with pytest.raises(ConfigError) as caught:
            build(**values)
        message = str(caught.value)
        assert name in message
        assert expected in message
        assert f"got {value!r}" in message or value == 10**400
        assert len(message) < 200
    with pytest.raises(LucidError):
        MobileNetArguments.from_dict(values)


def test_unknown_argument_gets_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"'width_multiplyer'; did you mean 'width_multiplier'"):
        MobileNetArguments.from_dict({"width_multiplyer": 1.0})


def test_width_is_needed():
    with pytest.raises(ConfigError, match="needs the argument 'width_multiplier'"):
        MobileNetArguments.from_dict({"num_classes": 5})
