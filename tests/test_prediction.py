"""From a checkpoint file to labels: the same numbers whatever the way the pictures come."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prediction_helpers import PREPROCESSING, RESOLUTION, write_colour_checkpoint
from training_helpers import COLOURS, coloured_squares

import lucid
from lucid import images
from lucid.classifier import Classifier
from lucid.errors import CheckpointError, ConfigError, ShapeError
from lucid.models import MobileNet
from lucid.prediction import BATCH, Prediction, softmax


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("squares") / "data", images=6)


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    return write_colour_checkpoint(data.parent / "model.safetensors", data)


@pytest.fixture(scope="module")
def classifier(checkpoint: Path) -> Classifier:
    return lucid.load(checkpoint, "torch")


@pytest.fixture(scope="module")
def paths(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))


def pixels(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, RESOLUTION, RESOLUTION, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- loading ---------------------------------------------------------------------------------


def test_load_gives_what_was_written(classifier: Classifier) -> None:
    assert classifier.class_names == ("amber", "blue", "green")
    assert classifier.preprocessing == PREPROCESSING
    assert classifier.checkpoint is not None
    assert not classifier.model.training
    for name, tensor in classifier.model.state_dict().items():
        assert np.array_equal(tensor.numpy(), classifier.checkpoint.tensors[name]), name


def test_load_leaves_the_random_state_alone(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    lucid.load(checkpoint, "torch")
    assert torch.equal(before, torch.get_rng_state())


def test_loaded_weights_can_be_trained_on(checkpoint: Path) -> None:
    model = lucid.load(checkpoint).model
    model(torch.zeros(1, 3, RESOLUTION, RESOLUTION)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weights": Trap()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="pickle"):
        lucid.load(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        lucid.load(tmp_path / "nowhere.safetensors")


def test_names_and_channels_must_fit_the_model() -> None:
    model = MobileNet(0.25, 3)
    with pytest.raises(ConfigError, match="3 classes, got 2 names"):
        Classifier(model, ["a", "b"], PREPROCESSING)
    with pytest.raises(ConfigError, match="takes 3 channels, L pictures have 1"):
        Classifier(model, ["a", "b", "c"], images.Preprocessing(RESOLUTION, color="L"))


# --- logits ----------------------------------------------------------------------------------


def test_logits_are_the_models(classifier: Classifier) -> None:
    batch = pixels(5)
    with torch.no_grad():
        expected = classifier.model(torch.from_numpy(images.normalise(batch, PREPROCESSING)))
    found = classifier(batch)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.numpy())
    assert np.ptp(found, axis=0).min() > 0.1, "different images must have different logits"


@pytest.mark.parametrize("count", [1, BATCH, 2 * BATCH + 3])
def test_company_does_not_change_an_answer(classifier: Classifier, count: int) -> None:
    """Beyond rounding: PyTorch sums in another order for another batch size."""
    batch = pixels(count)
    together = classifier(batch)
    for index in {0, count // 2, count - 1}:
        alone = classifier(batch[index])
        assert alone.shape == (3,)
        assert np.abs(alone - together[index]).max() < 2e-5 * np.abs(together).max()


def test_the_same_images_give_the_same_bits(classifier: Classifier) -> None:
    assert np.array_equal(classifier(pixels(9)), classifier(pixels(9)))


def test_no_images_no_logits(classifier: Classifier) -> None:
    assert classifier(pixels(0)).shape == (0, 3)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ("a.jpg", r"NumPy array.*got str; predict\(\) takes a list of files"),
        (pixels(2).astype(np.float32), "float32.*as they are, 0 to 255"),
        (pixels(2).transpose(0, 3, 1, 2), r"\(2, 3, 32, 32\); channels come first"),
        (pixels(2)[:, :16], "resizes pictures of any size"),
        (pixels(2)[..., :1], r"\(2, 32, 32, 1\)"),
        (pixels(2)[0, 0], r"\(32, 3\)"),
    ],
    ids=["path", "float", "channels first", "side", "channels", "rank"],
)
def test_wrong_shapes_get_a_hint(classifier: Classifier, batch: np.ndarray, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        classifier(batch)


# --- predictions -----------------------------------------------------------------------------


def test_classes_are_told_apart(classifier: Classifier, paths: list[Path]) -> None:
    for path, prediction in zip(paths, classifier.predict(paths), strict=True):
        assert prediction.source == str(path)
        assert prediction.labels[0][0] == path.parent.name
        assert len(prediction.labels) == 3  # all classes, where there are fewer than five
        probabilities = [probability for _, probability in prediction.labels]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)


def test_every_kind_of_source_gives_the_same(classifier: Classifier, paths: list[Path]) -> None:
    path = paths[0]
    image = Image.open(path)
    with path.open("rb") as stream:
        sources = [path, str(path), path.read_bytes(), stream, image, np.asarray(image)]
        predictions = classifier.predict(sources)
    names = [str(path), str(path), "image 3", str(path), "image 5", "image 6"]
    assert [one.source for one in predictions] == names
    for one in predictions[1:]:
        assert [label for label, _ in one.labels] == [label for label, _ in predictions[0].labels]
        assert one.labels[0][1] == pytest.approx(predictions[0].labels[0][1], abs=1e-5)


def test_grey_arrays_and_a_batch_of_arrays(classifier: Classifier) -> None:
    batch = pixels(3)
    assert len(classifier.predict(batch)) == 3
    grey = batch[0, :, :, 0]
    flat, deep = classifier.predict([grey, grey[:, :, np.newaxis]])
    assert flat.labels == deep.labels


def test_damage_is_reported_and_the_rest_predicted(
    classifier: Classifier, paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "short.png").write_bytes(paths[0].read_bytes()[:200])
    broken = [tmp_path / "text.jpg", tmp_path / "short.png", tmp_path / "none.jpg"]
    lazy = Image.open(io.BytesIO(paths[0].read_bytes()[:200]))
    mixed = [broken[0], *paths, broken[1], broken[2], lazy]
    predictions = classifier.predict(mixed)
    alone = classifier.predict(paths)
    for found, expected in zip(predictions[1 : len(paths) + 1], alone, strict=True):
        assert found.source == expected.source
        assert [name for name, _ in found.labels] == [name for name, _ in expected.labels]
    for index, name in ((0, "text.jpg"), (-3, "short.png"), (-2, "none.jpg"), (-1, "image 22")):
        assert predictions[index].labels == ()
        assert name in (predictions[index].error or "")


def test_top_is_how_many_labels(classifier: Classifier, paths: list[Path]) -> None:
    assert len(classifier.predict(paths[:1], top=2)[0].labels) == 2
    for top in (0, 1.5, "all"):
        with pytest.raises(ConfigError, match="top must be a whole number from 1"):
            classifier.predict(paths, top=top)


def test_no_sources_no_predictions(classifier: Classifier) -> None:
    assert classifier.predict([]) == []


@pytest.mark.parametrize("lone", ["a.jpg", Path("a.jpg"), b"bytes", io.BytesIO(), pixels(1)[0]])
def test_one_image_must_stand_in_a_list(classifier: Classifier, lone: object) -> None:
    with pytest.raises(ConfigError, match="put the image into one"):
        classifier.predict(lone)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [pixels(1)[0] / 255, np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)],
    ids=["float", "channels", "empty"],
)
def test_an_array_that_is_no_image(classifier: Classifier, array: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="an image must be uint8"):
        classifier.predict([array])


def test_pictures_are_decoded_only_a_little_ahead(classifier: Classifier) -> None:
    """A million paths must not become a million pictures in memory."""
    taken = 0

    def sources():
        nonlocal taken
        for one in pixels(10 * BATCH):
            taken += 1
            yield one

    answers = classifier.classify(sources())
    next(answers)
    assert taken <= 4 * BATCH
    answers.close()  # type: ignore[attr-defined]
    assert taken <= 4 * BATCH


def test_equal_classes_come_in_their_own_order(classifier: Classifier) -> None:
    model = MobileNet.from_arguments(classifier.model.arguments)
    torch.nn.init.zeros_(model.fc.weight)
    torch.nn.init.zeros_(model.fc.bias)
    prediction = Classifier(model, classifier.class_names, PREPROCESSING).predict(pixels(1))[0]
    third = pytest.approx(1 / 3)
    assert prediction == Prediction(
        "image 1", tuple((c, third) for c in ("amber", "blue", "green"))
    )


def test_softmax_survives_large_logits() -> None:
    found = softmax(np.array([[1000.0, 1000.0, -1000.0]], np.float32))
    assert found.tolist() == [[0.5, 0.5, 0.0]]


# --- class-activation maps -------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [32, 50, 96])
def test_the_map_explains_the_logit_exactly(classifier: Classifier, resolution: int) -> None:
    """arXiv:1512.04150: the mean of the map of class c, plus its bias, is the logit of c."""
    scaled = images.Preprocessing(resolution)
    classifier = Classifier(classifier.model, classifier.class_names, scaled)
    batch = np.random.default_rng(1).integers(
        0, 256, (6, resolution, resolution, 3), dtype=np.uint8
    )
    classes = np.array([0, 1, 2, 2, 1, 0])
    maps = classifier.class_activation_map(batch, classes)
    side = -(-resolution // 32)
    assert maps.shape == (6, side, side)
    assert classifier.map_side == side
    bias = classifier.model.fc.bias.detach().numpy()[classes]
    logits = classifier(batch)[np.arange(6), classes]
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, logits, rtol=1e-4, atol=1e-4)
    assert np.ptp(logits) > 0.1


@pytest.mark.parametrize(
    "classes",
    [[0, 1, 2], [[0, 1]], [0, 3], [-1, 0], [0.0, 1.0], ["amber", "blue"], 0],
    ids=str,
)
def test_the_map_needs_a_class_for_each_image(classifier: Classifier, classes: object) -> None:
    with pytest.raises(ShapeError, match=r"one class, 0 to 2, for each of 2 images, got"):
        classifier.class_activation_map(pixels(2), np.array(classes))


def test_the_map_finds_the_place(classifier: Classifier) -> None:
    """Half of the picture amber, half blue: the evidence for each is in its own half."""
    wide = Classifier(classifier.model, classifier.class_names, images.Preprocessing(128))
    noise = np.random.default_rng(2).normal(0, 60, (128, 128, 3))
    is_left = (np.arange(128) < 64)[:, np.newaxis]
    colours = np.where(is_left, COLOURS["amber"], COLOURS["blue"])  # (128, 3)
    picture = (colours + noise).clip(0, 255).astype(np.uint8)
    amber, blue = wide.class_activation_map(np.stack([picture, picture]), np.array([0, 1]))
    assert amber[:, :2].mean() > amber[:, 2:].mean()
    assert blue[:, :2].mean() < blue[:, 2:].mean()
