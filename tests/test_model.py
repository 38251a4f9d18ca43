"""The model is the seed's, and behaves as a module should."""

from __future__ import annotations

import copy
import inspect
import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import assert_sensitive, difference, settle_batch_norm, valid_arguments
from torch import nn

import lucid.nn
from lucid.architecture import MobileNetArguments
from lucid.errors import ConfigError, LucidError, ShapeError
from lucid.models import MobileNet, StageFeatures, model_name

# Channels of each stage at width 1.0.
BASE = {"conv1": 32, "conv2": 64, "conv3": 128, "conv4": 256, "conv5": 512, "conv6": 1024}
BASE["conv7"] = 1024


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(7))


def types(module: nn.Module) -> list[type[nn.Module]]:
    return [type(child) for child in module.children()]


# what the seed says


def test_signature_is_the_seeds():
    parameters = inspect.signature(MobileNet).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["width_multiplier", "num_classes"]
    assert parameters["width_multiplier"].default is inspect.Parameter.empty
    assert parameters["num_classes"].default == 1000
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[2:])
    assert issubclass(MobileNet, torch.nn.Module)
    # The model's keywords and the stored arguments are one list.
    stored = inspect.signature(MobileNetArguments).parameters
    assert {k: p.default for k, p in stored.items()} == {
        k: p.default for k, p in parameters.items()
    }


def test_module_tree_is_the_seeds():
    model = MobileNet(1.0)
    blocks = {"conv3": 2, "conv4": 2, "conv5": 6}
    names = [*BASE, "avgpool", "fc"]
    assert [name for name, _ in model.named_children()] == names
    assert type(model.conv1) is lucid.nn.ConvBNReLU2d
    assert types(model.conv1) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    for name in names[1:-2]:
        stage = getattr(model, name)
        assert (type(stage) is nn.Sequential) == (name in blocks)
        sequence = list(stage) if name in blocks else [stage]
        assert len(sequence) == blocks.get(name, 1)
        for block in sequence:
            assert type(block).__name__ == "_Depthwise"
            assert [child for child, _ in block.named_children()] == ["depthwise", "pointwise"]
            for half in block.children():
                assert type(half) is nn.Sequential
                assert types(half) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert type(model.avgpool) is nn.AdaptiveAvgPool2d
    assert type(model.fc) is nn.Linear
    assert (model.fc.in_features, model.fc.out_features) == (1024, 1000)


def test_shapes_are_the_seeds():
    """Those that the seed's chart prints, for (1, 3, 224, 224)."""
    with torch.device("meta"):
        model = MobileNet(1.0).eval()
        image = torch.empty(1, 3, 224, 224)
    stated = {
        "conv1.conv": ((3, 224, 224), (32, 112, 112)),
        "conv3.0.depthwise": ((64, 112, 112), (64, 56, 56)),
        "conv6.depthwise.0": ((512, 14, 14), (512, 7, 7)),
        "avgpool": ((1024, 4, 4), (1024, 1, 1)),
        "fc": ((1024,), (1000,)),
    }
    found = {}
    for name in stated:
        model.get_submodule(name).register_forward_hook(
            lambda _m, i, o, name=name: found.update({name: (i[0].shape[1:], o.shape[1:])})
        )
    assert model(image).shape == (1, 1000)
    assert found == stated


@given(valid_arguments)
def test_convolutions_have_no_bias_and_batch_norms_the_epsilon(arguments):
    model = MobileNet.from_arguments(arguments)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == arguments.batch_norm_epsilon


def test_activation_and_padding_choose_the_modules():
    model = MobileNet(0.25, activation="relu6", padding="same")
    kinds = {type(module) for module in model.modules()}
    assert nn.ReLU6 in kinds
    assert nn.ReLU not in kinds
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    padded = [m for m in convolutions if m.stride == (2, 2)]
    assert {type(m) for m in padded} == {lucid.nn.Conv2dSame}
    assert {type(m) for m in convolutions if m not in padded} == {nn.Conv2d}


@given(st.floats(1 / 32, 1.0))
@settings(max_examples=20)
def test_channels_are_truncated(width):
    model = MobileNet(width, 3)
    found = {stage.name: stage.channels for stage in model.stages}
    assert found == {name: int(width * base) for name, base in BASE.items()}


# what it does


@pytest.mark.parametrize("width", [1 / 32, 0.1, 1.25, 2.0])
def test_any_width_learns(width):
    model = MobileNet(width, 3, dropout=0.2)
    logits = model(torch.randn(2, 3, 40, 33))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_gradients_reach_every_parameter(fixed_model):
    model = fixed_model.train()
    logits = model(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    nn.functional.cross_entropy(logits, torch.arange(8)).backward()
    still = [name for name, p in model.named_parameters() if not p.grad.abs().max() > 0]
    assert still == []


def test_fixed_model_is_sensitive(fixed_model, images):
    """What the comparisons below, and those of other tests, rest on."""
    assert_sensitive(fixed_model, images, fixed_model.conv2.depthwise[0].weight)


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("size", [(224, 224), (97, 131), (1, 1)], ids=str)
@torch.no_grad()
def test_features_are_those_of_the_forward_pass(last_stride, size):
    model = MobileNet(0.25, 7, last_stride=last_stride).eval()
    seen: dict[str, torch.Tensor] = {}
    for name in BASE:
        getattr(model, name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out})
        )
    images = torch.randn(2, 3, *size)
    logits = model(images)
    expected = dict(seen)
    found = model.features(images)
    assert list(found) == list(BASE)
    assert all(torch.equal(found[name], expected[name]) for name in BASE)
    assert difference(model.fc(found["conv7"].mean((2, 3))), logits) < 1e-5
    for stage in model.stages:
        sides = tuple(-(-side // stage.reduction) for side in size)
        assert found[stage.name].shape == (2, stage.channels, *sides)


def test_stages_state_channels_and_reduction():
    assert MobileNet(1.0).stages == (
        StageFeatures("conv1", 32, 2),
        StageFeatures("conv2", 64, 2),
        StageFeatures("conv3", 128, 4),
        StageFeatures("conv4", 256, 8),
        StageFeatures("conv5", 512, 16),
        StageFeatures("conv6", 1024, 32),
        StageFeatures("conv7", 1024, 64),
    )
    assert MobileNet(1.0, last_stride=1).stages[-1].reduction == 32


def test_dropout_acts_in_training_only(images):
    model = settle_batch_norm(MobileNet(0.25, 7, dropout=0.5), images)
    assert list(model.state_dict()) == list(MobileNet(0.25, 7).state_dict())
    assert torch.equal(model(images), model(images))
    # Only the classifier's input is dropped, so batch norms stay as they are in this comparison.
    model.training = True
    assert difference(model(images), model(images)) > 0.01
    plain = settle_batch_norm(MobileNet(0.25, 7), images)
    plain.training = True
    assert torch.equal(plain(images), plain(images))


# changing and rebuilding it


def test_replace_classifier_keeps_the_backbone(fixed_model):
    before = {name: tensor.clone() for name, tensor in fixed_model.state_dict().items()}
    returned = fixed_model.replace_classifier(3)
    assert returned is fixed_model
    assert fixed_model.arguments.num_classes == 3
    after = fixed_model.state_dict()
    assert list(after) == list(before)
    for name in before:
        if not name.startswith("fc."):
            assert torch.equal(before[name], after[name])
    assert fixed_model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    rebuilt = MobileNet.from_arguments(fixed_model.arguments)
    rebuilt.load_state_dict(after)


def test_replace_classifier_keeps_dtype_and_refuses_no_classes(fixed_model):
    classifier = fixed_model.double().fc
    with pytest.raises(ConfigError, match="num_classes must be a whole number from 1"):
        fixed_model.replace_classifier(0)
    assert fixed_model.fc is classifier
    assert fixed_model.replace_classifier(4).fc.weight.dtype == torch.float64


@given(valid_arguments)
@settings(max_examples=20)
def test_arguments_and_state_rebuild_the_model(arguments):
    images = torch.randn(4, arguments.in_channels, 33, 40)
    model = settle_batch_norm(MobileNet.from_arguments(arguments), images)
    assert model.arguments == arguments
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    rebuilt = MobileNet.from_arguments(MobileNetArguments.from_dict(model.arguments.to_dict()))
    rebuilt.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(rebuilt.eval()(images), model(images))


def test_copy_stands_alone(fixed_model, images):
    twin = copy.deepcopy(fixed_model)
    expected = fixed_model(images)
    assert torch.equal(twin(images), expected)
    with torch.no_grad():
        twin.fc.bias.add_(1.0)
    twin.replace_classifier(2)
    assert fixed_model.arguments.num_classes == 10
    assert torch.equal(fixed_model(images), expected)


@torch.no_grad()
def test_channels_last_gives_the_same(fixed_model, images):
    expected = fixed_model(images)
    model = fixed_model.to(memory_format=torch.channels_last)
    found = model(images.to(memory_format=torch.channels_last))
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@torch.no_grad()
def test_exports_with_a_dynamic_batch(padding, images):
    model = settle_batch_norm(MobileNet(0.25, 7, padding=padding, dropout=0.5), images)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    for count in (1, 3):
        assert difference(program.module()(images[:count]), model(images[:count])) < 1e-5


@torch.no_grad()
def test_autocast_takes_float32_images(fixed_model, images):
    with torch.autocast("cpu", torch.bfloat16):
        logits = fixed_model(images)
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_no_images_give_no_logits(fixed_model):
    assert fixed_model(torch.empty(0, 3, 32, 32)).shape == (0, 10)


# what it refuses


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 32, 32), "(N, 3, H, W), got (3, 32, 32); add the batch dimension"),
        (torch.zeros(32, 32), "(N, 3, H, W), got (32, 32)"),
        (torch.zeros(1, 1, 3, 32, 32), "(N, 3, H, W), got (1, 1, 3, 32, 32)"),
        (torch.zeros(2, 32, 32, 3), "got (2, 32, 32, 3); channels are last: permute"),
        (torch.zeros(2, 1, 32, 32), "got (2, 1, 32, 32); for such images build .*in_channels=1"),
        (torch.zeros(2, 3, 0, 32), "at least 1x1 pixels, got (2, 3, 0, 32)"),
        (torch.zeros(2, 3, 32, 0), "at least 1x1 pixels, got (2, 3, 32, 0)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "normalised .* got torch.uint8; convert"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.bool), "normalised .* got torch.bool; convert"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.complex64), "got torch.complex64; convert"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.float64), "got torch.float64; .*to(torch.float32)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.float16), "got torch.float16; .*to(torch.float32)"),
    ],
    ids=lambda value: f"{value.dtype}{tuple(value.shape)}" if torch.is_tensor(value) else "",
)
@pytest.mark.parametrize("call", ["forward", "features"])
def test_bad_images_are_named(fixed_model, images, said, call):
    pattern = ".*".join(re.escape(part) for part in said.split(".*"))
    with pytest.raises(ShapeError, match=pattern) as caught:
        getattr(fixed_model, call)(images)
    assert isinstance(caught.value, LucidError)
    assert "\n" not in str(caught.value)


def test_other_types_follow_the_weights(fixed_model):
    model = fixed_model.double()
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ShapeError, match=r"got torch\.float32.*x\.to\(torch\.float64\)"):
        model(torch.zeros(1, 3, 32, 32))


def test_printed_model_shows_its_arguments():
    model = MobileNet(0.5, 10, activation="relu6")
    assert model.extra_repr() == "width_multiplier=0.5, num_classes=10, activation='relu6'"
    # A width that only this rounding takes.
    model = MobileNet(0.01, channel_rounding="minimum8")
    shown = "width_multiplier=0.01, num_classes=1000, channel_rounding='minimum8'"
    assert model.extra_repr() == shown
    assert shown in repr(model)


def test_registered_name(fixed_model):
    assert model_name(fixed_model) == "mobilenet"
    assert model_name(fixed_model.conv1) is None
