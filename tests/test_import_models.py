"""``lucid.models.mobilenet`` builds what the weights are of, and loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from import_helpers import load
from model_helpers import difference, settle_batch_norm

from lucid.checkpoint import write_checkpoint
from lucid.errors import CheckpointError, ConfigError
from lucid.importers import import_weights
from lucid.models import MobileNet, mobilenet


def save(folder: Path, classes: int) -> tuple[Path, MobileNet, torch.Tensor]:
    """A checkpoint of a network that is none of the default ones, and what it was written from."""
    model = MobileNet(0.25, classes)
    images = torch.randn(3, 3, 48, 48)
    settle_batch_norm(model, images)
    torch.save(model.state_dict(), folder / "w.pth")
    return folder / "w.pth", model, images


def test_without_weights() -> None:
    assert mobilenet().arguments == MobileNet(1.0, 1000).arguments
    assert mobilenet(0.5, 7).arguments == MobileNet(0.5, 7).arguments


@torch.no_grad()
def test_with_weights(tmp_path: Path) -> None:
    path, model, images = save(tmp_path, 5)
    found = mobilenet(0.25, 5, weights=path)
    assert not found.training
    assert difference(found(images), model(images)) < 1e-6


@torch.no_grad()
def test_another_number_of_classes_keeps_the_backbone(tmp_path: Path) -> None:
    path, model, images = save(tmp_path, 5)
    found = mobilenet(0.25, 9, weights=path)
    assert found(images).shape == (3, 9)
    assert difference(found.features(images)["conv7"], model.features(images)["conv7"]) < 1e-6


@torch.no_grad()
def test_imagenet_without_its_background(tmp_path: Path) -> None:
    path, model, images = save(tmp_path, 1001)
    expected = model(images)
    assert difference(mobilenet(0.25, weights=path)(images), expected[:, 1:]) < 1e-6
    assert difference(mobilenet(0.25, 1001, weights=path)(images), expected) < 1e-6
    names = [f"class {number}" for number in range(1001)]
    write_checkpoint(tmp_path / "c.safetensors", import_weights(path, labels=names))
    found = mobilenet(0.25, weights=tmp_path / "c.safetensors")(images)
    assert difference(found, expected[:, 1:]) > 0.01, "its first class is no background"


def test_variant_of_the_weights(shared: Path) -> None:
    path = shared / "models" / "vww_96_float.tflite"
    model = mobilenet(0.25, 2, weights=path)
    assert model.arguments == import_weights(path).arguments
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert difference(model(images), load(import_weights(path))(images)) < 1e-6


def test_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"width_multiplier is 1\.0, but .* has 0\.25"):
        mobilenet(weights=save(tmp_path, 5)[0])
    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        mobilenet(weights=tmp_path / "missing.pth")
