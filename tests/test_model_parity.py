"""MobileNet computes what transformers' and timm's independent implementations compute.

Random weights, random batch-norm scales and shifts, measured batch-norm statistics. A stage differs
by at most the tolerance times its largest magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import assert_sensitive, difference, import_reference, settle_batch_norm
from torch import nn

from lucid.architecture import MobileNetArguments
from lucid.models import MobileNet

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}

# Even at every stage, odd at some, and a side that is smaller than the reduction.
inputs = pytest.mark.parametrize(
    ("size", "dtype"),
    [((64, 64), torch.float32), ((97, 131), torch.float32), ((33, 20), torch.float64)],
    ids=str,
)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy convolutions, batch norms and the classifier in order; the names differ."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    sources = [module for module in source.modules() if isinstance(module, kinds)]
    targets = [module for module in target.modules() if isinstance(module, kinds)]
    assert len(sources) == 27 + 27 + 1
    for a, b in zip(sources, targets, strict=True):
        assert isinstance(b, next(kind for kind in kinds if isinstance(a, kind)))
        b.load_state_dict(a.state_dict())


@torch.no_grad()
def assert_equal_stages(
    reference: nn.Module, stages: Mapping[str, nn.Module], model: MobileNet, images: torch.Tensor
) -> None:
    """Compare the logits and the output of every stage; ``stages`` are the reference's."""
    settle_batch_norm(reference, images)
    copy_weights(reference, model)
    model.eval()
    assert_sensitive(model, images, model.conv2.depthwise[0].weight)
    expected: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: expected.update({name: out}))
        for name, module in stages.items()
    ]
    logits = reference(images)
    for hook in hooks:
        hook.remove()
    found = model.features(images) | {"logits": model(images)}
    expected["logits"] = getattr(logits, "logits", logits)
    assert list(found) == list(expected)
    assert len(found) == 8
    differences = {name: difference(found[name], expected[name]) for name in found}
    assert max(differences.values()) < TOLERANCE[images.dtype], differences


@inputs
@pytest.mark.parametrize("tf_padding", [False, True])
@pytest.mark.parametrize(
    ("width", "activation"),
    [(1.0, "relu6"), (0.75, "relu6"), (0.5, "relu"), (0.25, "relu6"), (0.1, "relu6")],
)
def test_equals_transformers(width, activation, tf_padding, size, dtype):
    """Width 0.1 needs TF-Slim's least of 8 channels."""
    transformers = import_reference("transformers")
    torch.manual_seed(1)
    config = transformers.MobileNetV1Config(
        depth_multiplier=width,
        tf_padding=tf_padding,
        hidden_act=activation,
        layer_norm_eps=1e-3,
        num_labels=11,
    )
    reference = transformers.MobileNetV1ForImageClassification(config).to(dtype)
    model = MobileNet(
        width,
        11,
        last_stride=1,
        activation=activation,
        padding="same" if tf_padding else "symmetric",
        channel_rounding="minimum8",
        batch_norm_epsilon=1e-3,
    ).to(dtype)
    base = reference.mobilenet_v1
    blocks = {"conv2": 1, "conv3": 5, "conv4": 9, "conv5": 21, "conv6": 23, "conv7": 25}
    stages = {"conv1": base.conv_stem} | {name: base.layer[i] for name, i in blocks.items()}
    assert_equal_stages(reference, stages, model, torch.randn(3, 3, *size, dtype=dtype))


@inputs
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("name", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_equals_timm(name, width, padding, size, dtype):
    timm = import_reference("timm")
    torch.manual_seed(2)
    pad_type = "same" if padding == "same" else ""
    reference = timm.create_model(name, num_classes=11, pad_type=pad_type).to(dtype)
    model = MobileNet(
        width,
        11,
        last_stride=1,
        activation="relu6",
        padding=padding,
        channel_rounding="multiple8",
    ).to(dtype)
    blocks = reference.blocks
    stages = {"conv1": reference.bn1, "conv2": blocks[0], "conv3": blocks[1], "conv4": blocks[2]}
    stages |= {"conv5": blocks[3], "conv6": blocks[4][0], "conv7": blocks[4][1]}
    assert_equal_stages(reference, stages, model, torch.randn(3, 3, *size, dtype=dtype))


@given(st.floats(0.01, 16.0), st.sampled_from([32, 64, 128, 256, 512, 1024]))
def test_channels_round_as_timm(width, base):
    make_divisible = import_reference("timm").layers.make_divisible
    arguments = MobileNetArguments(width, channel_rounding="multiple8")
    assert arguments.channels(base) == make_divisible(width * base, 8, round_limit=0.9)
