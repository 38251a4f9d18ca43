"""Weights of PyTorch libraries are imported as what those libraries compute."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from import_helpers import load
from model_helpers import assert_sensitive, difference, import_reference, settle_batch_norm
from safetensors.torch import save_file

from lucid.checkpoint import write_checkpoint
from lucid.errors import CheckpointError
from lucid.importers import import_weights
from lucid.models import MobileNet

WIDTHS = (0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.25)


def settled(model: torch.nn.Module, side: int = 64) -> tuple[Any, torch.Tensor]:
    images = torch.randn(3, 3, side, side)
    return settle_batch_norm(model, images), images


@torch.no_grad()
def assert_equal(reference: Any, path: Path, images: torch.Tensor, filters: Any) -> Any:
    """The imported model's logits are the reference's; returns the checkpoint."""
    assert_sensitive(reference, images, filters)
    expected = reference(images)
    checkpoint = import_weights(path)
    found = load(checkpoint)(images)
    assert difference(found, getattr(expected, "logits", expected)) < 1e-5
    return checkpoint


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["mobilenetv1_100", "mobilenetv1_125"])
def test_equals_timm(name: str, suffix: str, tmp_path: Path) -> None:
    timm = import_reference("timm")
    reference, images = settled(timm.create_model(name, num_classes=11))
    path = tmp_path / f"any{suffix}"
    state = reference.state_dict()
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        save_file(state, path)
    checkpoint = assert_equal(reference, path, images, reference.blocks[0][0].conv_dw.weight)
    data = reference.default_cfg
    preprocessing = checkpoint.preprocessing
    assert preprocessing.mean == data["mean"]
    assert preprocessing.std == data["std"]
    assert preprocessing.interpolation == data["interpolation"]
    assert preprocessing.resolution == data["input_size"][-1]


def test_timm_folder_has_its_own_preprocessing(tmp_path: Path) -> None:
    timm = import_reference("timm")
    reference, images = settled(timm.create_model("mobilenetv1_100", num_classes=2))
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    stated = {
        "input_size": [3, 192, 192],
        "crop_pct": 0.95,
        "interpolation": "bilinear",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "label_names": ["cat", "dog"],
    }
    config = {"architecture": "mobilenetv1_100", "pretrained_cfg": stated}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = assert_equal(reference, tmp_path, images, reference.blocks[0][0].conv_dw.weight)
    assert checkpoint.class_names == ("cat", "dog")
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.resolution, preprocessing.crop_fraction) == (192, 0.95)
    assert (preprocessing.mean, preprocessing.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert preprocessing.interpolation == "bilinear"


def test_timm_without_classifier(tmp_path: Path) -> None:
    timm = import_reference("timm")
    reference, images = settled(timm.create_model("mobilenetv1_100", num_classes=0))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    checkpoint = import_weights(tmp_path / "w.pth")
    assert checkpoint.class_names == ("no classifier",)
    with torch.no_grad():
        found = load(checkpoint).features(images)["conv7"]
        assert difference(found, reference.forward_features(images)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    """Read as torch reads them, without torch."""
    state = MobileNet(0.1, 3).to(dtype).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    tensors = import_weights(tmp_path / "w.safetensors").tensors
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensors[name], tensor.float().numpy(), err_msg=name)
    state["fc.weight"] = torch.zeros(3, 102, dtype=torch.float8_e5m2)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor fc\.weight: expected plain numbers, .*F8"):
        import_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_timm_with_a_head(width: float, tmp_path: Path) -> None:
    """mobilenetv1_100h has one more pointwise layer before the pool, of 1024 channels or more."""
    timm = import_reference("timm")
    network = timm.models.efficientnet._gen_mobilenet_v1(
        "mobilenetv1_100h", width, head_conv=True, num_classes=12
    )
    reference, images = settled(network)
    save_file(reference.state_dict(), tmp_path / "w.safetensors")
    filters = reference.blocks[0][0].conv_dw.weight
    checkpoint = assert_equal(reference, tmp_path / "w.safetensors", images, filters)
    assert checkpoint.arguments.head_channels == 1024
    assert checkpoint.arguments.width_multiplier == width
    with torch.no_grad():
        found = load(checkpoint).features(images)["head"]
        assert difference(found, reference.forward_features(images)) < 1e-5


def test_a_head_of_another_kind_is_refused(tmp_path: Path) -> None:
    timm = import_reference("timm")
    state = timm.create_model("mobilenetv1_100h").state_dict()
    state["conv_head.weight"] = torch.zeros(1024, 1024, 3, 3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"layer conv_head: .* kernel \(1, 1\).*\(3, 3\)"):
        import_weights(tmp_path / "w.safetensors")


def transformers_model(**changes: Any) -> Any:
    transformers = import_reference("transformers")
    config = transformers.MobileNetV1Config(num_labels=changes.pop("classes", 11), **changes)
    return transformers.MobileNetV1ForImageClassification(config)


@pytest.mark.parametrize("tf_padding", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_transformers(width: float, tf_padding: bool, tmp_path: Path) -> None:
    model = transformers_model(
        depth_multiplier=width, tf_padding=tf_padding, image_size=160, layer_norm_eps=2e-3
    )
    reference, images = settled(model, side=49)
    reference.save_pretrained(tmp_path)
    filters = reference.mobilenet_v1.layer[0].convolution.weight
    checkpoint = assert_equal(reference, tmp_path, images, filters)
    assert checkpoint.arguments.batch_norm_epsilon == 2e-3
    assert checkpoint.preprocessing.resolution == 160
    assert checkpoint.provenance["assumed"] == ["mean", "std"]


def test_transformers_with_background(tmp_path: Path) -> None:
    model = transformers_model(classes=1001, depth_multiplier=0.25, hidden_act="relu")
    model.config.id2label = {i: "background" if i == 0 else f"thing {i}" for i in range(1001)}
    reference, images = settled(model)
    reference.save_pretrained(tmp_path)
    preprocessor = {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    filters = reference.mobilenet_v1.layer[0].convolution.weight
    checkpoint = assert_equal(reference, tmp_path, images, filters)
    assert checkpoint.class_names[:3] == ("background", "thing 1", "thing 2")
    assert checkpoint.class_names[-1] == "thing 1000"
    assert checkpoint.provenance["assumed"] == []
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.resolution, preprocessing.crop_fraction) == (224, 0.875)


def test_transformers_without_classifier(tmp_path: Path) -> None:
    model = transformers_model(depth_multiplier=0.25).mobilenet_v1
    reference, images = settled(model)
    reference.save_pretrained(tmp_path)
    with torch.no_grad():
        found = load(import_weights(tmp_path)).features(images)["conv7"]
        assert difference(found, reference(images).last_hidden_state) < 1e-5


def test_transformers_activation_is_refused(tmp_path: Path) -> None:
    transformers_model(hidden_act="gelu", depth_multiplier=0.25).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"conv_stem.*activation relu or relu6, found gelu"):
        import_weights(tmp_path)


@pytest.mark.parametrize("width", WIDTHS)
def test_equals_our_own_state_dict(width: float, tmp_path: Path) -> None:
    reference, images = settled(MobileNet(width, 5))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    filters = reference.conv2.depthwise[0].weight
    checkpoint = assert_equal(reference, tmp_path / "w.pth", images, filters)
    assert checkpoint.arguments.channels(1024) == reference.arguments.channels(1024)
    assert checkpoint.provenance["assumed"] == ["mean", "std"]


def test_a_checkpoint_stays_what_it_is(tmp_path: Path) -> None:
    torch.save(MobileNet(0.25, 2).state_dict(), tmp_path / "w.pth")
    first = import_weights(tmp_path / "w.pth", labels=["a", "b"], resolution=96)
    write_checkpoint(tmp_path / "c.safetensors", first)
    again = import_weights(tmp_path / "c.safetensors")
    assert (again.class_names, again.preprocessing) == (first.class_names, first.preprocessing)
    assert again.provenance == first.provenance
    other = import_weights(tmp_path / "c.safetensors", labels=["x", "y"], resolution=64)
    assert other.class_names == ("x", "y")
    assert other.preprocessing.resolution == 64
    assert all(np.array_equal(other.tensors[k], first.tensors[k]) for k in first.tensors)


class TestRefusals:
    """Bad input is one CheckpointError."""

    def refused(self, content: Any, folder: Path, words: str) -> None:
        path = folder / "w.pth"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words) as caught:
            import_weights(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_code_in_a_pickle_is_not_run(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "was run"),)

        content = {"conv1.conv.weight": Harmful()}
        self.refused(content, tmp_path, r"nothing but weights, .* \(it calls posix\.mkdir\)")
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            (tmp_path / "bare.pth").write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(CheckpointError, match="nothing but weights"):
                import_weights(tmp_path / "bare.pth")
        assert not (tmp_path / "was run").exists()

    def test_a_whole_module(self, tmp_path: Path) -> None:
        self.refused(MobileNet(0.25, 2), tmp_path, r"save model\.state_dict\(\)")

    def test_no_state_dict(self, tmp_path: Path) -> None:
        self.refused([1, 2], tmp_path, "expected a state dict, found list")
        self.refused({"a": 1}, tmp_path, "expected tensors only, found 'a'")
        self.refused({}, tmp_path, "first tensor is 'none'")

    def test_another_network(self, tmp_path: Path) -> None:
        self.refused({"features.0.weight": torch.ones(1)}, tmp_path, "'features.0.weight'")

    def test_missing_and_surplus_tensors(self, tmp_path: Path) -> None:
        state = MobileNet(0.25, 2).state_dict()
        surplus = {**state, "extra.weight": torch.ones(3)}
        self.refused(surplus, tmp_path, "layer extra: pytorch's network has this layer")
        del state["conv4.1.pointwise.1.running_mean"]
        self.refused(state, tmp_path, r"tensor conv4\.1\.pointwise\.1\.running_mean is missing")

    def test_wrong_shapes(self, tmp_path: Path) -> None:
        state = MobileNet(0.25, 2).state_dict()
        name = "conv4.1.pointwise.0.weight"
        self.refused({**state, name: torch.ones(3)}, tmp_path, f"{name}: expected 4 dimensions")
        wide = {**state, name: torch.ones(64, 65, 1, 1)}
        self.refused(wide, tmp_path, r"layer conv4\.1\.pointwise\.0: expected .*65")
        infinite = {**state, "fc.bias": torch.tensor([0.0, torch.nan])}
        self.refused(infinite, tmp_path, "fc.bias: holds values that are not finite")

    def test_transformers_without_its_config(self, tmp_path: Path) -> None:
        transformers_model(depth_multiplier=0.25).save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="give the folder"):
            import_weights(tmp_path / "model.safetensors")
        (tmp_path / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"config\.json: can't be opened"):
            import_weights(tmp_path)

    def test_folder_without_weights(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="holds none of"):
            import_weights(tmp_path)


def test_pytorch_is_loaded_only_where_it_is_needed(tmp_path: Path) -> None:
    """It takes seconds, and most files can be refused or read without."""
    state = MobileNet(0.1, 3).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    del state["fc.bias"]
    save_file(state, tmp_path / "lacking.safetensors")
    (tmp_path / "none.tflite").write_bytes(b"no network")
    code = f"""
import sys
from lucid.errors import CheckpointError
from lucid.importers import import_weights
import_weights({str(tmp_path / "model.safetensors")!r})
for name in ("lacking.safetensors", "none.tflite"):
    try:
        import_weights({str(tmp_path)!r} + "/" + name)
    except CheckpointError:
        pass
    else:
        sys.exit(f"{{name}} is not refused")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=60)
@given(
    key=st.sampled_from(["id2label", "tf_padding", "hidden_act", "layer_norm_eps", "image_size"]),
    value=json_values,
    preprocessor=st.dictionaries(
        st.sampled_from(["size", "crop_size", "image_mean", "image_std", "resample"]), json_values
    ),
)
def test_damaged_configurations(
    key: str, value: Any, preprocessor: Any, small_folder: Path
) -> None:
    config = {"model_type": "mobilenet_v1", key: value}
    (small_folder / "config.json").write_text(json.dumps(config))
    (small_folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    try:
        import_weights(small_folder)
    except CheckpointError:
        return


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    transformers_model(depth_multiplier=0.1, classes=2).save_pretrained(folder)
    return folder
