"""LiteRT files are imported as what LiteRT itself computes from them."""

from __future__ import annotations

import csv
import io
import tarfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from import_helpers import load, logits

from lucid.architecture import MobileNetArguments
from lucid.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lucid.cli import main
from lucid.errors import CheckpointError, ConfigError, DataError
from lucid.images import load as load_image
from lucid.images import normalise
from lucid.importers import import_weights

pytest.importorskip("ai_edge_litert")
from litert_helpers import dequantise, mobilenet, move_buffers_out, read, run, write

SMALL = MobileNetArguments(1 / 8, 3, activation="relu6", padding="same", last_stride=1)


def save(content: bytes, folder: Path) -> Path:
    path = folder / "network.tflite"
    path.write_bytes(content)
    return path


def images(side: int, channels: int = 3, count: int = 3) -> np.ndarray:
    """Random ones, each of another brightness."""
    generator = np.random.default_rng(side)
    noise = generator.uniform(-0.5, 0.5, (count, side, side, channels))
    brightness = np.linspace(-0.5, 0.5, count).reshape(-1, 1, 1, 1)
    return (noise + brightness).astype(np.float32)


@cache
def sample(folder: Path) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    return tuple(folder / row["file"] for row in rows), tuple(int(row["label"]) for row in rows)


@pytest.mark.parametrize(
    ("changes", "side", "options"),
    [
        ({}, 32, {}),
        ({"width_multiplier": 0.25, "num_classes": 7}, 96, {}),
        ({"width_multiplier": 0.1875, "num_classes": 1}, 96, {}),
        ({"width_multiplier": 0.35, "activation": "relu"}, 40, {}),
        ({"width_multiplier": 0.1, "channel_rounding": "minimum8"}, 33, {}),
        ({"width_multiplier": 0.3, "channel_rounding": "multiple8", "last_stride": 2}, 64, {}),
        ({"in_channels": 1}, 48, {}),
        ({"in_channels": 1, "width_multiplier": 0.25}, 96, {"depthwise_stem": True}),
        ({"in_channels": 3, "width_multiplier": 0.1875}, 32, {"depthwise_stem": True}),
        ({"padding": "symmetric"}, 32, {"padding": "symmetric"}),
        ({"padding": "same"}, 64, {"padding": "end"}),
    ],
    ids=str,
)
def test_equals_litert(
    changes: dict[str, Any], side: int, options: dict[str, Any], tmp_path: Path
) -> None:
    arguments = replace(SMALL, **changes)
    content = mobilenet(arguments, side, **options)
    checkpoint = import_weights(save(content, tmp_path))
    assert replace(checkpoint.arguments, batch_norm_epsilon=1e-5) == arguments
    assert checkpoint.preprocessing.resolution == side
    assert checkpoint.preprocessing.color == ("L" if arguments.in_channels == 1 else "RGB")
    pictures = images(side, arguments.in_channels)
    expected = run(content, pictures)
    found = logits(checkpoint, pictures)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "all images look alike"
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_channels_first(tmp_path: Path) -> None:
    """As litert-torch exports by default: the image is turned by the network itself."""
    content = mobilenet(SMALL, 32, order=(0, 2, 3, 1))
    pixels = images(32)
    expected = run(content, pixels.transpose(0, 3, 1, 2))
    assert np.ptp(expected, axis=0).max() > 0.01
    found = import_weights(save(content, tmp_path))
    assert np.abs(logits(found, pixels) - expected).max() < 1e-4
    with pytest.raises(CheckpointError, match=r"TRANSPOSE.*expected the order \(0, 2, 3, 1\)"):
        import_weights(save(mobilenet(SMALL, 32, order=(0, 3, 2, 1)), tmp_path))


def test_weights_behind_the_flatbuffer(tmp_path: Path) -> None:
    content = mobilenet(SMALL, 32)
    moved = move_buffers_out(content)
    assert np.array_equal(run(moved, images(32)), run(content, images(32)))
    assert all(buffer.data is None or len(buffer.data) <= 64 for buffer in read(moved).buffers)
    one, other = (import_weights(save(bytes_, tmp_path)) for bytes_ in (content, moved))
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor, other.tensors[name]), name


def test_backbone_gets_a_classifier_to_replace(tmp_path: Path) -> None:
    content = mobilenet(SMALL, 32, classifier=False)
    checkpoint = import_weights(save(content, tmp_path), labels=["a", "b", "c"])
    assert checkpoint.class_names == ("no classifier",)
    assert checkpoint.provenance["classifier"] is False
    assert not checkpoint.tensors["fc.weight"].any()
    pictures = images(32)
    with torch.inference_mode():
        x = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
        features = load(checkpoint).features(x)["conv7"].mean(dim=(2, 3)).numpy()
    assert np.abs(features - run(content, pictures)).max() < 1e-4 * features.max()


class TestStatistics:
    """Batch norms that were folded away come back with statistics, and change nothing."""

    def test_are_those_of_the_calibration_images(self, tmp_path: Path, tiny_photos: Path) -> None:
        path = save(mobilenet(SMALL, 32), tmp_path)
        checkpoint = import_weights(path, calibrate=tiny_photos)
        assert checkpoint.provenance["batch_norm"] == "30 calibration images"
        pixels = np.stack(
            [
                load_image(file, checkpoint.preprocessing)
                for file in sorted(tiny_photos.rglob("*.png"))
            ]
        )
        x = torch.from_numpy(normalise(pixels, checkpoint.preprocessing))
        model = load(checkpoint)
        with torch.inference_mode():
            expected = model(x)
            found = model.train()(x)
        # A training batch of these images has the stored statistics, so it gives the same logits.
        assert (found - expected).abs().max() < 1e-3 * expected.abs().max()

    def test_without_images_are_near_those_of_photos(self, shared: Path, flowers: Path) -> None:
        """In training mode the first batch still tells the classes as in evaluation mode."""
        source = shared / "models" / "mobilenet_v1_0.25_128_quant.tflite"
        checkpoint = import_weights(source)
        assert checkpoint.provenance["batch_norm"] == "16 generated images"
        measured = import_weights(source, calibrate=flowers / "rose")
        names = [name for name in checkpoint.tensors if name.endswith("running_var")]
        ratios = np.concatenate(
            [
                np.log(checkpoint.tensors[n] + 1e-3) - np.log(measured.tensors[n] + 1e-3)
                for n in names
            ]
        )
        assert np.median(np.abs(ratios)) < np.log(3)

    def test_do_not_change_the_function(self, tmp_path: Path, tiny_photos: Path) -> None:
        content = mobilenet(SMALL, 32)
        path = save(content, tmp_path)
        expected = run(content, images(32))
        for calibrate in (None, tiny_photos):
            found = logits(import_weights(path, calibrate=calibrate), images(32))
            assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

    def test_are_the_same_every_time(self, tmp_path: Path) -> None:
        path = save(mobilenet(SMALL, 32), tmp_path)
        one, other = import_weights(path), import_weights(path)
        assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


class TestRealFiles:
    """Files that others have published."""

    @pytest.fixture
    def models(self, shared: Path) -> Path:
        return shared / "models"

    @pytest.fixture
    def photos(self, shared: Path) -> Path:
        return shared / "data" / "imagenet-sample"

    def test_imagenet(self, models: Path, photos: Path) -> None:
        path = models / "mobilenet_v1_0.25_128_quant.tflite"
        checkpoint = import_weights(path)
        assert checkpoint.class_names[:2] == ("background", "tench, Tinca tinca")
        assert len(checkpoint.class_names) == 1001
        assert checkpoint.provenance["assumed"] == []
        preprocessing = checkpoint.preprocessing
        assert preprocessing.mean == preprocessing.std == (128 / 255,) * 3
        files, labels = sample(photos)
        pixels = np.stack([load_image(file, preprocessing) for file in files])
        found = logits(checkpoint, normalise(pixels, preprocessing).transpose(0, 2, 3, 1))
        order = np.argsort(-found, axis=1)
        truth = np.array(labels)[:, None] + 1  # after the background
        assert (order[:, :1] == truth).sum() >= 97
        assert (order[:, :5] == truth).sum() >= 149

        reference = dequantise(path.read_bytes())
        tensor = read(reference).subgraphs[0].operators[-1].inputs[0]
        inputs = ((pixels.astype(np.float32) - 128) / 128)[::10]
        expected = run(reference, inputs, tensor)
        assert np.abs(found[::10] - expected).max() < 1e-3

    def test_labels_beside_the_file(self, models: Path) -> None:
        path = models / "mobilenet_v1_0.25_128_quant.tflite"
        checkpoint = import_weights(path, labels=models / "imagenet_labels.txt")
        assert checkpoint.class_names == import_weights(path).class_names
        assert "crane (518)" in checkpoint.class_names

    @pytest.mark.parametrize("name", ["vww_96_float.tflite", "vww_96_int8.tflite"])
    def test_visual_wake_words(self, name: str, models: Path, photos: Path) -> None:
        content = (models / name).read_bytes()
        options = {} if "int8" in name else {"mean": (0, 0, 0), "std": (1, 1, 1)}
        checkpoint = import_weights(models / name, labels=["no person", "person"], **options)
        assert checkpoint.preprocessing.mean == (0, 0, 0)
        assert checkpoint.preprocessing.std == (1, 1, 1)
        pixels = np.stack(
            [load_image(file, checkpoint.preprocessing) for file in sample(photos)[0]]
        )
        found = logits(checkpoint, pixels / np.float32(255))
        probabilities = torch.from_numpy(found).softmax(dim=1).numpy()
        reference = dequantise(content) if "int8" in name else content
        expected = run(reference, pixels / np.float32(255))
        assert np.ptp(expected) > 0.5
        assert np.abs(probabilities - expected).max() < 1e-4

    def test_embedding_extractor(self, models: Path, photos: Path) -> None:
        path = models / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
        checkpoint = import_weights(path)
        assert checkpoint.arguments.width_multiplier == 1.0
        pixels = np.stack([load_image(f, checkpoint.preprocessing) for f in sample(photos)[0][:2]])
        x = torch.from_numpy(normalise(pixels, checkpoint.preprocessing))
        with torch.inference_mode():
            found = load(checkpoint).features(x)["conv7"].mean(dim=(2, 3)).numpy()
        expected = run(dequantise(path.read_bytes()), (pixels.astype(np.float32) - 128) / 128)
        assert np.abs(found - expected).max() < 1e-3
        assert np.abs(found[0] - found[1]).max() > 0.1


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class TestSlimArchives:
    """TF-Slim's hosted archives hold the network beside checkpoints of TensorFlow."""

    def test_the_network_inside_is_read(self, tmp_path: Path) -> None:
        content = mobilenet(SMALL, 32)
        path = tmp_path / "mobilenet.tgz"
        path.write_bytes(archive({"./m.ckpt.meta": b"x", "./m.tflite": content, "./m.pb": b"y"}))
        expected = import_weights(save(content, tmp_path))
        found = import_weights(path)
        assert found.arguments == expected.arguments
        assert all(np.array_equal(found.tensors[n], expected.tensors[n]) for n in found.tensors)

    @pytest.mark.parametrize(
        ("members", "words"),
        [
            ({"m.pb": b"y"}, "no .tflite file in the archive"),
            ({"a.tflite": b"x", "b.tflite": b"y"}, "several .tflite files"),
            ({"a.tflite": b"x"}, "neither LiteRT"),
        ],
        ids=["none", "several", "damaged"],
    )
    def test_refused(self, members: dict[str, bytes], words: str, tmp_path: Path) -> None:
        path = tmp_path / "mobilenet.tgz"
        path.write_bytes(archive(members))
        with pytest.raises(CheckpointError, match=words):
            import_weights(path)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
    def test_truncated(self, share: float, tmp_path: Path) -> None:
        content = archive({"m.tflite": mobilenet(SMALL, 32)})
        path = tmp_path / "mobilenet.tgz"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match="no whole"):
            import_weights(path)


class TestRefusals:
    """What is no MobileNet-V1 is refused with the layer named."""

    def refused(self, content: bytes, folder: Path, words: str, **options: Any) -> None:
        with pytest.raises(CheckpointError, match=words) as caught:
            import_weights(save(content, folder), **options)
        assert str(caught.value).startswith(str(folder / "network.tflite"))

    def test_another_operator(self, tmp_path: Path) -> None:
        model = read(mobilenet(SMALL, 32))
        codes = model.operatorCodes
        code = next(code for code in codes if code.builtinCode == 1)
        code.builtinCode = code.deprecatedBuiltinCode = 17
        self.refused(write(model), tmp_path, r"layer 27 \(MAX_POOL_2D 'layer27'\): expected one of")

    def test_a_branch(self, tmp_path: Path) -> None:
        model = read(mobilenet(SMALL, 32))
        operators = model.subgraphs[0].operators
        operators[5].inputs[0] = operators[3].outputs[0]
        self.refused(
            write(model), tmp_path, r"expected one layer to read it, found layer 4 .* and layer 5"
        )

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("strideH", 1, "one stride"),
            ("dilationWFactor", 2, "no dilation"),
            ("padding", 1, "padding that keeps the size, found VALID"),
            ("fusedActivationFunction", 4, "activation relu or relu6, found tanh"),
            ("fusedActivationFunction", 0, "activation relu or relu6, found none"),
            ("fusedActivationFunction", 1, "activation relu6, as before, found relu"),
        ],
    )
    def test_an_option(self, field: str, value: int, words: str, tmp_path: Path) -> None:
        model = read(mobilenet(SMALL, 32))
        setattr(model.subgraphs[0].operators[7].builtinOptions, field, value)
        self.refused(write(model), tmp_path, rf"layer 7 \(DEPTHWISE_CONV_2D 'layer7'\).*{words}")

    def test_a_missing_layer(self, tmp_path: Path) -> None:
        model = read(mobilenet(SMALL, 32))
        operators = model.subgraphs[0].operators
        operators[13].inputs[0] = operators[11].inputs[0]
        del operators[11:13]
        self.refused(write(model), tmp_path, "layer 11 .*expected .* stride 2, found .* stride 1")

    def test_end_padding_on_odd_sides(self, tmp_path: Path) -> None:
        """Bottom and right only is SAME for even sides; no rule of lucid does it for odd ones."""
        content = mobilenet(SMALL, 64, padding="end")
        self.refused(content, tmp_path, "layer 15 .*end on 9 pixels.*resolution 72", resolution=72)

    @pytest.mark.parametrize("length", [0, 3, 8, 100, 5000])
    def test_truncated(self, length: int, tmp_path: Path) -> None:
        self.refused(mobilenet(SMALL, 32)[:length], tmp_path, ".")

    def test_labels(self, tmp_path: Path) -> None:
        content = mobilenet(SMALL, 32)
        self.refused(content, tmp_path, "2 class names for 3 outputs", labels=["a", "b"])
        with pytest.raises(CheckpointError, match="missing"):
            import_weights(save(content, tmp_path), labels=tmp_path / "missing.txt")

    def test_calibration_folder_without_pictures(self, tmp_path: Path) -> None:
        path = save(mobilenet(SMALL, 32), tmp_path)
        with pytest.raises(DataError, match="no calibration image"):
            import_weights(path, calibrate=tmp_path)
        (tmp_path / "broken.jpg").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"no calibration image.*broken\.jpg"):
            import_weights(path, calibrate=tmp_path)

    def test_options_out_of_range(self, tmp_path: Path) -> None:
        path = save(mobilenet(SMALL, 32), tmp_path)
        with pytest.raises(ConfigError, match="resolution"):
            import_weights(path, resolution=0)
        with pytest.raises(ConfigError, match="mean"):
            import_weights(path, mean=[0.5])


@cache
def _valid() -> bytes:
    return mobilenet(replace(SMALL, width_multiplier=1 / 32), 32)


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=12)),
        min_size=1,
        max_size=4,
    ),
    part=st.sampled_from(["start", "end", "all"]),
)
def test_damaged_files(
    edits: list[tuple[float, int, bytes]], part: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes changed, taken out and put in: read, or refused with a CheckpointError."""
    content = bytearray(_valid())
    size = len(content)
    low, high = {"start": (0, 4000), "end": (size - 20_000, size), "all": (0, size)}[part]
    for share, removed, inserted in edits:
        position = int(low + share * (high - low))
        content[position : position + removed] = inserted
    path = save(bytes(content), tmp_path_factory.getbasetemp())
    with suppress(CheckpointError):
        assert isinstance(import_weights(path), Checkpoint)


def test_command(tmp_path: Path) -> None:
    path = save(mobilenet(SMALL, 32), tmp_path)
    out = tmp_path / "model.safetensors"
    result = CliRunner().invoke(main, ["import", str(path), "--out", str(out), "--std", "1,1,1"])
    assert result.exit_code == 0, result.output
    assert "width 0.125, resolution 32, 3 classes" in result.stdout
    assert "--mean 0.5,0.5,0.5" in result.stderr
    assert "--std" not in result.stderr
    assert read_checkpoint(out).preprocessing.std == (1, 1, 1)


def test_command_revises_a_checkpoint(tmp_path: Path) -> None:
    """One that lucid trained says less of its origin than one that it imported."""
    path, out = tmp_path / "trained.safetensors", tmp_path / "out.safetensors"
    trained = import_weights(save(mobilenet(SMALL, 32), tmp_path))
    write_checkpoint(path, replace(trained, provenance={"recipe": {}}))
    result = CliRunner().invoke(main, ["import", str(path), "--out", str(out), "--mean", "0,0,0"])
    assert result.exit_code == 0, result.output
    assert read_checkpoint(out).preprocessing.mean == (0, 0, 0)


def test_command_keeps_its_source(tmp_path: Path) -> None:
    path = save(mobilenet(SMALL, 32), tmp_path)
    content = path.read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    for source, out in ((path, path), (tmp_path, tmp_path / "model.safetensors")):
        result = CliRunner().invoke(main, ["import", str(source), "--out", str(out)])
        assert result.exit_code == 2
        assert "would replace what it is made from" in result.stderr
        assert out.read_bytes() == content


def test_command_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    path = save(mobilenet(SMALL, 32)[:5000], tmp_path)
    out = tmp_path / "model.safetensors"
    result = CliRunner().invoke(main, ["import", str(path), "--out", str(out)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]
