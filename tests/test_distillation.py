"""Learning from a teacher: what it sees, what it says, and that the student follows."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import settle_batch_norm
from training_helpers import COLOURS, QUICK, coloured_squares

from lucid.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lucid.errors import CheckpointError, ConfigError
from lucid.images import Preprocessing, normalise
from lucid.models import MobileNet
from lucid.training import Progress, train
from lucid.training.distillation import FeatureMatching, Teacher, distillation_loss
from lucid.training.recipe import FINE_TUNING, Recipe, default_recipe

CPU = torch.device("cpu")
NAMES = tuple(COLOURS)
SMALL = {"width": 0.25, "resolution": 32}


def checkpoint_of(model: MobileNet, **description: object) -> Checkpoint:
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    fields = {"class_names": NAMES, "preprocessing": Preprocessing(48)} | description
    return Checkpoint(arguments=model.arguments, tensors=tensors, **fields)


@pytest.fixture(scope="module")
def model() -> MobileNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = MobileNet(0.25, 3, activation="relu6", padding="same")
        settle_batch_norm(built, torch.randn(8, 3, 64, 64))
    return built


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def teacher(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    settings = {"width": 0.5, "resolution": 48}
    result = train(squares, **settings, out=out, recipe=QUICK | {"epochs": 20})
    assert result.top1 == 1.0
    return result.checkpoint


def test_teacher_is_the_model_with_its_own_preprocessing_and_the_students_order(model) -> None:
    preprocessing = Preprocessing(48, mean=(0.1, 0.4, 0.5), std=(0.3, 0.2, 0.25))
    checkpoint = checkpoint_of(model, preprocessing=preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
    order = (NAMES[2], NAMES[0], NAMES[1])
    teacher = Teacher(checkpoint, order, resolution=48, device=CPU, precision="float32")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    found = teacher(images.clone())
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(normalise(pixels, preprocessing)))
        last = model.features(torch.from_numpy(normalise(pixels, preprocessing)))["conv7"]
    assert expected.std(0).min() > 1e-2  # the logits do depend on the image
    torch.testing.assert_close(found.logits, expected[:, [2, 0, 1]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.features, last.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert not found.logits.requires_grad
    assert not found.features.requires_grad


def test_teacher_sees_its_own_resolution_and_leaves_the_images_alone(model) -> None:
    checkpoint = checkpoint_of(model)
    teacher = Teacher(checkpoint, NAMES, resolution=24, device=CPU, precision="float32")
    images = torch.rand(2, 3, 48, 48)
    before = images.clone()
    reduced = torch.nn.functional.interpolate(images, (24, 24), mode="bilinear", antialias=True)
    assert teacher(images).logits.equal(teacher(reduced).logits)
    assert images.equal(before)


def test_bfloat16_changes_the_answers_little(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucid.training.distillation._multiplies_bfloat16", lambda _: True)
    images = torch.rand(4, 3, 48, 48)
    answers = [
        Teacher(checkpoint_of(model), NAMES, resolution=48, device=CPU, precision=precision)(
            images
        ).logits
        for precision in ("float32", "auto")
    ]
    assert answers[1].dtype == torch.float32
    assert 0 < (answers[0] - answers[1]).abs().mean() < 0.3 * answers[0].std()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_loss_is_the_divergence_of_the_softened_answers(temperature: float) -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4).double() * 3
    p, q = ((logits / temperature).softmax(1) for logits in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), expected)
    assert distillation_loss(teacher + 7, teacher, temperature).abs() < 1e-12


def test_features_match_where_a_linear_map_of_them_points_the_same_way(model) -> None:
    """Neither a map that the projection can undo counts, nor scale, nor what all images share."""
    student = copy.deepcopy(model).eval()
    matching = FeatureMatching(student, 7)
    student(torch.rand(6, 3, 48, 48))
    features = matching._pooled.value.detach()
    expected = features @ matching.projection.weight.detach().T
    assert matching(3 * expected + torch.randn(7)) < 1e-5
    assert matching(-expected).item() == pytest.approx(2, abs=1e-5)
    value = matching(torch.randn(6, 7))
    assert 0.2 < value < 1.8
    value.backward()
    assert next(student.parameters()).grad.abs().max() > 0
    assert matching.projection.weight.grad.abs().max() > 0


def test_student_learns_from_the_teacher_alone(teacher: Path, tmp_path: Path) -> None:
    """Where two of the three labels are swapped, a weight of 1 leaves nothing of them."""
    spoilt = coloured_squares(tmp_path / "spoilt")
    (spoilt / "blue").rename(spoilt / "x")
    (spoilt / "green").rename(spoilt / "blue")
    (spoilt / "x").rename(spoilt / "green")
    recipe = QUICK | {"epochs": 25, "distillation_weight": 1.0}
    result = train(spoilt, **SMALL, teacher=teacher, out=tmp_path / "run", recipe=recipe)
    assert result.top1 == pytest.approx(1 / 3)


def test_run_records_the_teacher(squares: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = QUICK | {"epochs": 1, "distillation_temperature": 4.0}
    result = train(squares, **SMALL, teacher=teacher, out=tmp_path / "run", recipe=recipe)
    provenance = read_checkpoint(result.checkpoint).provenance
    assert len(provenance["teacher"]) == 64
    assert provenance["recipe"]["distillation_temperature"] == 4.0
    assert "distillation_temperature = 4.0" in (result.folder / "recipe.toml").read_text()


def test_patience_by_default() -> None:
    plain = default_recipe(has_weights=True, has_teacher=False)
    taught = default_recipe(has_weights=True, has_teacher=True)
    assert plain == Recipe(**FINE_TUNING)
    assert taught.epochs == 3 * plain.epochs
    assert taught.mixup > 0
    assert taught.learning_rate == plain.learning_rate


class Stops(Progress):
    """Stops a run behind its first epoch."""

    def epoch(self, row, epochs) -> None:
        del row, epochs
        raise RuntimeError("stopped")


def test_resumed_is_the_same_and_the_teacher_may_move(
    squares: Path, teacher: Path, tmp_path: Path
) -> None:
    settings = SMALL | {"recipe": QUICK | {"mixup": 1.0}}
    whole = train(squares, **settings, teacher=teacher, out=tmp_path / "whole")
    kept, moved = tmp_path / "teacher.safetensors", tmp_path / "moved.safetensors"
    kept.write_bytes(teacher.read_bytes())
    out = tmp_path / "stopped"
    with pytest.raises(RuntimeError, match="stopped"):
        train(squares, **settings, teacher=kept, out=out, progress=Stops())
    kept.rename(moved)
    with pytest.raises(ConfigError, match=r"teacher\.safetensors: can't read"):
        train(squares, out=out, resume=True)
    kept.write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="no longer the teacher"):
        train(squares, out=out, resume=True)
    with pytest.raises(ConfigError, match=r"teacher is .* the run to resume has"):
        train(squares, out=out, teacher=kept, resume=True)
    result = train(squares, out=out, teacher=moved, resume=True)
    assert result.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_what_can_not_teach_is_refused_before_anything_is_written(
    model, squares: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def refused(checkpoint: Checkpoint, expected: str) -> None:
        path = tmp_path / "teacher.safetensors"
        write_checkpoint(path, checkpoint)
        with pytest.raises(ConfigError, match=expected):
            train(squares, **SMALL, teacher=path, out=out, recipe=QUICK)
        assert not out.exists()

    other = checkpoint_of(model, class_names=("amber", "blue", "grass"))
    refused(other, r"the teacher lacks 'green', the data lacks 'grass'; train the teacher")
    grey = MobileNet(0.25, 3, in_channels=1)
    grey_pictures = replace(Preprocessing(32), color="L", mean=(0.5,), std=(0.5,))
    refused(checkpoint_of(grey, preprocessing=grey_pictures), "reads L pictures, the student RGB")
    with pytest.raises(CheckpointError, match="none"):
        train(squares, **SMALL, teacher=tmp_path / "none", out=out, recipe=QUICK)
    for key, value in (("distillation_temperature", 0), ("distillation_weight", 1.5)):
        with pytest.raises(ConfigError, match=key):
            Recipe(**{key: value})
