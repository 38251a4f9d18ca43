"""Keras models are imported as what Keras computes, with PyTorch as its backend."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_helpers import load, logits

from lucid.errors import CheckpointError
from lucid.importers import import_weights

os.environ["KERAS_BACKEND"] = "torch"
h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")

# Of Keras's own code under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

SIDE = 64


def images(side: int = SIDE, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    noise = generator.uniform(-0.5, 0.5, (3, side, side, channels))
    return (noise + np.linspace(-0.5, 0.5, 3).reshape(-1, 1, 1, 1)).astype(np.float32)


def randomise(model: Any, seed: int = 0) -> Any:
    """Weights and statistics under which the outputs depend on the image."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
        if name == "kernel":
            fan = np.prod(shape[:2]) * (1 if shape[-1] == 1 and len(shape) == 4 else shape[-2])
            values = generator.normal(0, np.sqrt(3 / fan), shape)
        elif name in ("gamma", "moving_variance"):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = generator.normal(0, 0.05, shape)
        variable.assign(values.astype(np.float32))
    return model


def run(model: Any, pictures: np.ndarray) -> np.ndarray:
    output = model(pictures, training=False)
    return output.detach().cpu().numpy()


def assert_equal(model: Any, path: Path, pictures: np.ndarray) -> Any:
    expected = run(model, pictures)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "all images look alike"
    checkpoint = import_weights(path)
    found = logits(checkpoint, pictures)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    return checkpoint


def applications(alpha: float = 0.25, **options: Any) -> Any:
    defaults = {
        "weights": None,
        "classes": 7,
        "input_shape": (SIDE, SIDE, 3),
        "classifier_activation": None,
    }
    return randomise(keras.applications.MobileNet(alpha=alpha, **(defaults | options)))


def save_legacy_weights(model: Any, path: Path) -> None:
    """As Keras Applications publishes them: the weights of an .h5 file without the model."""
    whole = path.with_name("whole.h5")
    model.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        group = source["model_weights"]
        for name in group:
            group.copy(name, target)
        for name, value in group.attrs.items():
            target.attrs[name] = value


@pytest.mark.parametrize("suffix", [".keras", ".h5", "weights"])
@pytest.mark.parametrize("alpha", [0.25, 0.35, 0.5, 0.75, 1.0])
def test_equals_keras_applications(alpha: float, suffix: str, tmp_path: Path) -> None:
    model = applications(alpha)
    if suffix == "weights":
        path = tmp_path / "any.name"
        save_legacy_weights(model, path)
    else:
        path = tmp_path / f"model{suffix}"
        model.save(path)
    checkpoint = assert_equal(model, path, images())
    assert checkpoint.arguments.width_multiplier == alpha
    assert checkpoint.arguments.padding == "same"
    assert checkpoint.arguments.batch_norm_epsilon == 1e-3
    assert checkpoint.preprocessing.resolution == (224 if suffix == "weights" else SIDE)
    assert checkpoint.provenance["assumed"] == ["mean", "std"]


@pytest.mark.parametrize("suffix", [".keras", ".h5", "weights"])
@pytest.mark.parametrize("pooling", [None, "avg"])
def test_without_top(pooling: str | None, suffix: str, tmp_path: Path) -> None:
    model = applications(include_top=False, pooling=pooling)
    path = tmp_path / f"model{suffix}"
    if suffix == "weights":
        save_legacy_weights(model, path)
    else:
        model.save(path)
    checkpoint = import_weights(path)
    assert checkpoint.class_names == ("no classifier",)
    import torch

    with torch.inference_mode():
        x = torch.from_numpy(images().transpose(0, 3, 1, 2).copy())
        found = load(checkpoint).features(x)["conv7"]
        found = found.mean(dim=(2, 3)) if pooling else found.permute(0, 2, 3, 1)
    expected = run(model, images())
    assert np.abs(found.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def own_model(*, nested: bool = False, **options: Any) -> Any:
    """A model that people write themselves: other names, biases, fused activations, a dense top."""
    channels = options.get("channels", 1)
    layers = keras.layers
    body = [layers.Conv2D(8, 3, strides=2, padding="same", use_bias=True)]
    for out, stride in zip(
        (16, 32, 32, 64, 64, *[128] * 6, 256, 256), (1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1), strict=True
    ):
        norm = layers.BatchNormalization(scale=False) if out == 64 else layers.BatchNormalization()
        body += [norm, layers.Activation("relu")]
        if stride == 2 and options.get("symmetric"):
            body += [layers.ZeroPadding2D(1)]
            body += [layers.DepthwiseConv2D(3, strides=stride, padding="valid")]
        else:
            body += [layers.DepthwiseConv2D(3, strides=stride, padding="same")]
        body += [layers.BatchNormalization(center=out != 32), layers.ReLU()]
        body += [layers.Conv2D(out, 1, use_bias=False)]
    body += [layers.BatchNormalization(), layers.ReLU()]
    inputs = [keras.Input((48, 48, channels)), *options.get("first", ())]
    top = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(5)]
    if nested:
        return randomise(keras.Sequential([*inputs, keras.Sequential(body), *top]))
    return randomise(keras.Sequential([*inputs, *body, *top]))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_equals_other_keras_models(nested: bool, suffix: str, tmp_path: Path) -> None:
    model = own_model(nested=nested)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    checkpoint = assert_equal(model, path, images(48, 1))
    assert checkpoint.preprocessing.color == "L"
    assert checkpoint.preprocessing.resolution == 48


def test_a_new_top_on_keras_applications(tmp_path: Path) -> None:
    """As Keras's guide to transfer learning builds it: an inner model, with rescaling before."""
    base = applications(include_top=False)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(4, activation="softmax")(x)
    model = randomise(keras.Model(inputs, x))
    model.save(tmp_path / "model.keras")
    checkpoint = import_weights(tmp_path / "model.keras")
    assert checkpoint.preprocessing.mean == checkpoint.preprocessing.std == (0.5, 0.5, 0.5)
    assert checkpoint.provenance["assumed"] == []
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)
    pixels *= np.array([0.3, 0.6, 1], np.float32).reshape(-1, 1, 1, 1)
    found = logits(checkpoint, pixels / np.float32(127.5) - 1)
    found = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    expected = run(model, pixels)
    assert np.ptp(expected, axis=0).max() > 0.01
    assert np.abs(found - expected).max() < 1e-4


def test_symmetric_padding(tmp_path: Path) -> None:
    """The first convolution says SAME, the others pad symmetrically: no rule does both."""
    own_model(symmetric=True).save(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match="padding same, as in the layers before"):
        import_weights(tmp_path / "model.keras")


class TestRefusals:
    """What is no MobileNet-V1 is refused with the layer named."""

    def refused(self, model: Any, folder: Path, words: str) -> None:
        path = folder / "model.keras"
        model.save(path)
        with pytest.raises(CheckpointError, match=words) as caught:
            import_weights(path)
        assert str(path) in str(caught.value)

    def test_another_network(self, tmp_path: Path) -> None:
        model = keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(32, 32, 3))
        self.refused(model, tmp_path, "only networks that are a MobileNet-V1")

    def test_maximum_pooling(self, tmp_path: Path) -> None:
        model = applications(include_top=False, pooling="max")
        self.refused(model, tmp_path, r"'global_max_pooling2d.*' \(GlobalMaxPooling2D\)")

    def test_depth_multiplier(self, tmp_path: Path) -> None:
        self.refused(applications(depth_multiplier=2), tmp_path, r"layer 'conv_dw_1' \(Depthw")

    def test_sigmoid(self, tmp_path: Path) -> None:
        model = applications(classifier_activation="sigmoid")
        self.refused(model, tmp_path, "'predictions' .*softmax or no activation, found sigmoid")

    def test_a_missing_layer(self, tmp_path: Path) -> None:
        path = tmp_path / "model.h5"
        applications().save(path)
        with h5py.File(path, "a") as file:
            del file["model_weights/conv_pw_3_bn"]
        with pytest.raises(CheckpointError, match="layer 'conv_pw_3_bn': its weights are missing"):
            import_weights(path)

    @pytest.mark.parametrize("groups", [0, -1, None, "2", 2.0, [1], True])
    def test_groups(self, groups: Any, tmp_path: Path, whole: Path) -> None:
        path = tmp_path / "damaged.keras"
        change(whole, path, lambda layers: layers[1]["config"].update(groups=groups))
        with pytest.raises(CheckpointError, match="a number of groups"):
            import_weights(path)

    def test_weights_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "model.weights.h5"
        own_model().save_weights(path)
        with pytest.raises(CheckpointError, match="save the whole model"):
            import_weights(path)

    def test_weights_in_another_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.h5"
        applications().save(path)
        (tmp_path / "secret.bin").write_bytes(bytes(4 * 8))
        with h5py.File(path, "a") as file:
            name = next(iter(file["model_weights/conv1_bn"].attrs["weight_names"]))
            group = file["model_weights/conv1_bn"]
            del group[name]
            external = [(str(tmp_path / "secret.bin"), 0, 32)]
            group.create_dataset(name, (8,), "f4", external=external)
        with pytest.raises(CheckpointError, match="stand in another file"):
            import_weights(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in both formats."""
    folder = tmp_path_factory.mktemp("keras")
    model = own_model()
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    return folder


@settings(max_examples=40)
@given(name=st.sampled_from(["m.keras", "m.h5"]), share=st.floats(0, 1))
def test_truncated_files(
    name: str, share: float, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    content = (whole / name).read_bytes()
    path.write_bytes(content[: int(share * (len(content) - 1))])
    with pytest.raises(CheckpointError, match=r"copy it again|neither LiteRT, Keras"):
        import_weights(path)


configurations = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def change(whole: Path, path: Path, edit: Callable[[Any], None]) -> None:
    """Write the model again with other configurations of its layers."""
    with zipfile.ZipFile(whole / "m.keras") as archive:
        model = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    edit(model["config"]["layers"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", weights)


@settings(max_examples=60)
@given(layer=st.integers(0, 12), key=st.integers(0, 20), value=configurations)
def test_damaged_configurations(
    layer: int,
    key: int,
    value: Any,
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Any value of any layer's configuration: read, or refused with a CheckpointError."""

    def edit(layers: Any) -> None:
        config = layers[layer]["config"]
        config[sorted(config)[key % len(config)]] = value

    path = tmp_path_factory.getbasetemp() / "damaged.keras"
    change(whole, path, edit)
    with suppress(CheckpointError):
        import_weights(path)
