"""Measuring a classifier on labelled photos, and the page that tells of it."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_helpers import write_colour_checkpoint
from training_helpers import coloured_squares

import lucid
from lucid.checkpoint import Checkpoint
from lucid.classifier import Classifier
from lucid.data.sources import open_data
from lucid.errors import DataError
from lucid.evaluation import plots
from lucid.evaluation.explanation import enlarge, overlay
from lucid.evaluation.measurement import Evaluation, evaluate, select
from lucid.evaluation.metrics import classification_metrics
from lucid.evaluation.report import read_log, report
from lucid.images import Preprocessing

LOG = (
    "epoch,train_loss,train_top1,validation_loss,validation_top1,learning_rate\n"
    "1,1.5,0.4,1.2,0.5,0.1\n2,1.0,0.6,0.9,0.7,0.05\n"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("squares") / "data", images=6)


@pytest.fixture(scope="module")
def classifier(data: Path) -> Classifier:
    return lucid.load(write_colour_checkpoint(data.parent / "model.safetensors", data), "torch")


@pytest.fixture(scope="module")
def finer(classifier: Classifier) -> Classifier:
    """The same classifier at a resolution whose class-activation maps have 2 x 2 cells."""
    return Classifier(classifier.model, classifier.class_names, Preprocessing(64))


def remembering(classifier: Classifier, names: object) -> Classifier:
    """The same classifier from a checkpoint that remembers these names as its validation part."""
    assert isinstance(classifier.checkpoint, Checkpoint)
    checkpoint = replace(classifier.checkpoint, provenance={"validation": names})
    return Classifier(
        classifier.model, classifier.class_names, classifier.preprocessing, checkpoint
    )


# --- what is measured ------------------------------------------------------------------------


def test_without_a_split_all_is_measured(classifier: Classifier, data: Path) -> None:
    selection = select(open_data(data), classifier)
    assert len(selection.samples) == 18
    assert selection.description == "all of the data"


def test_the_validation_part_of_the_training_run_is_remembered(
    classifier: Classifier, data: Path
) -> None:
    names = ["amber/0.png", "blue/1.png", "green/5.png"]
    selection = select(open_data(data), remembering(classifier, names))
    assert [f"{s.path.parent.name}/{s.path.name}" for s in selection.samples] == names
    assert (
        selection.description == "the validation part of the data, as the checkpoint remembers it"
    )
    train = select(open_data(data), remembering(classifier, names), "train")
    assert len(train.samples) == 15
    assert len(select(open_data(data), remembering(classifier, names), "all").samples) == 18


def test_a_remembered_picture_may_have_gone(classifier: Classifier, data: Path) -> None:
    """Falling back to all of the data would measure what training has seen."""
    names = ["amber/0.png", "blue/1.png", "green/gone.png"]
    selection = select(open_data(data), remembering(classifier, names))
    assert len(selection.samples) == 2


@pytest.mark.parametrize(
    "names", [["rose/1.jpg", "tulip/2.jpg", "amber/0.png"], [], "amber/0.png", [[1], None], None]
)
def test_other_data_is_measured_whole(classifier: Classifier, data: Path, names: object) -> None:
    selection = select(open_data(data), remembering(classifier, names))
    assert selection.description == "all of the data"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val"), "validation"),
        (("train", "test"), "test"),
        (("train", "valid", "test"), "test"),
        (("train",), "all"),
    ],
)
def test_the_datas_own_split_comes_first(
    classifier: Classifier, data: Path, tmp_path: Path, folders: tuple[str, ...], expected: str
) -> None:
    for folder in folders:
        shutil.copytree(data, tmp_path / folder)
    names = ["train/amber/0.png"] if "val" in folders else []
    selection = select(open_data(tmp_path), remembering(classifier, names))
    assert selection.description.startswith("all" if expected == "all" else f"the {expected} part")
    assert len(selection.samples) == 18
    assert "remembers" not in selection.description


def test_a_part_that_is_not_there_is_an_error(
    classifier: Classifier, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no test part; it is not split"):
        select(open_data(data), classifier, "test")
    shutil.copytree(data, tmp_path / "train")
    shutil.copytree(data, tmp_path / "val")
    with pytest.raises(DataError, match="no test part; its parts are train, validation"):
        select(open_data(tmp_path), classifier, "test")


def test_classes_are_matched_by_name_not_by_position(
    classifier: Classifier, data: Path, tmp_path: Path
) -> None:
    """Without amber, blue is the data's class 0 but stays the classifier's class 1."""
    shutil.copytree(data / "blue", tmp_path / "blue")
    shutil.copytree(data / "green", tmp_path / "green")
    selection = select(open_data(tmp_path), classifier)
    assert {sample.label for sample in selection.samples} == {1, 2}
    assert selection.unseen_classes == ("amber",)
    assert evaluate(classifier, selection.samples).metrics.top1.value == 1


def test_a_class_that_the_checkpoint_lacks_is_named(
    classifier: Classifier, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "green").rename(tmp_path / "data" / "greem")
    with pytest.raises(
        DataError,
        match=r"does not know the data's classes 'greem'; did you mean 'green'\?.*'amber'",
    ):
        select(open_data(tmp_path / "data"), classifier)


# --- the measurement -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The squares with two in wrong folders, one damaged, and one of no picture at all."""
    folder = tmp_path_factory.mktemp("mixed") / "data"
    shutil.copytree(data, folder)
    (folder / "amber" / "0.png").rename(folder / "blue" / "stray & <b>.png")
    (folder / "green" / "0.png").rename(folder / "amber" / "stray.png")
    (folder / "blue" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (folder / "green" / "notes.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def evaluation(classifier: Classifier, mixed: Path) -> Evaluation:
    return evaluate(classifier, select(open_data(mixed), classifier).samples)


def test_mistakes_and_damage_are_found(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    assert metrics.images == 17
    assert metrics.confusion.tolist() == [[5, 0, 1], [1, 5, 0], [0, 0, 5]]
    assert {one.path.name: (one.true, one.predicted) for one in evaluation.mistakes} == {
        "stray & <b>.png": ("blue", "amber"),
        "stray.png": ("amber", "green"),
    }
    assert all(one.true_probability < one.predicted_probability for one in evaluation.mistakes)
    first, second = evaluation.mistakes
    assert first.true_probability <= second.true_probability
    assert [re.search(r"[0\w]+\.\w+", m).group() for m in evaluation.unreadable] == [
        "0.png",
        "notes.jpg",
    ]


def test_only_the_worst_mistakes_are_kept(classifier: Classifier, mixed: Path) -> None:
    samples = select(open_data(mixed), classifier).samples
    assert len(evaluate(classifier, samples, mistakes=1).mistakes) == 1


def test_nothing_readable_is_an_error(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "amber").mkdir()
    (tmp_path / "amber" / "1.jpg").write_text("no picture")
    samples = select(open_data(tmp_path), classifier).samples
    with pytest.raises(DataError, match=r"none of the 1 images could be read; .*1\.jpg"):
        evaluate(classifier, samples)


# --- the page --------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything(
    evaluation: Evaluation, finer: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    text = report(
        evaluation,
        finer,
        title="Evaluation of model.safetensors",
        description="17 images.",
        log=read_log(tmp_path / "log.csv"),
    )
    page = Page(text)
    assert page.open == []
    for words in (
        "88.2%",  # 15 of 17
        "95% interval 65.7% to 96.7%",
        "Worst mistakes",
        "The map has 2 x 2 cells.",
        "Which class is taken for which",
        "Calibration",
        "Training",
        "could not be read",
        "notes.jpg",
    ):
        assert words in page.text, words
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    assert sum(tag == "img" for tag, _ in page.tags) == 4  # two mistakes, each with its map


def test_the_page_needs_nothing_else(evaluation: Evaluation, classifier: Classifier) -> None:
    """It must open the same on a colleague's machine without a network."""
    text = report(evaluation, classifier, title="t", description="d")
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
    assert "url(http" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_names_stay_names(evaluation: Evaluation, classifier: Classifier) -> None:
    """A class or file may be called like markup."""
    evil = "<script>alert(1)</script> $\\frac$"
    metrics = evaluation.metrics
    classes = tuple(replace(one, name=f"{evil}{one.name}") for one in metrics.classes)
    hostile = replace(evaluation, metrics=replace(metrics, classes=classes))
    text = report(hostile, classifier, title=evil, description=evil)
    assert "<script" not in text
    assert "stray & <b>.png" not in text
    assert "stray &amp; &lt;b&gt;.png" in text
    assert evil in Page(text).text


def test_the_same_evaluation_gives_the_same_page(
    evaluation: Evaluation, classifier: Classifier
) -> None:
    first, second = (report(evaluation, classifier, title="t", description="d") for _ in range(2))
    assert first == second


def test_a_page_without_mistakes(classifier: Classifier, data: Path) -> None:
    evaluation = evaluate(classifier, select(open_data(data), classifier).samples)
    assert evaluation.mistakes == ()
    text = report(evaluation, classifier, title="t", description="d")
    assert "Worst mistakes" not in text
    assert "100.0%" in text


def test_a_map_of_one_cell_is_not_drawn(evaluation: Evaluation, classifier: Classifier) -> None:
    page = Page(report(evaluation, classifier, title="t", description="d"))
    assert "at resolution 32 the class-activation map is a single cell" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 2  # the mistakes alone


def test_a_mistake_may_have_gone_since(
    classifier: Classifier, finer: Classifier, mixed: Path, tmp_path: Path
) -> None:
    shutil.copytree(mixed, tmp_path / "data")
    evaluation = evaluate(classifier, select(open_data(tmp_path / "data"), classifier).samples)
    assert len(evaluation.mistakes) == 2
    evaluation.mistakes[0].path.unlink()
    text = report(evaluation, finer, title="t", description="d")
    assert sum(tag == "img" for tag, _ in Page(text).tags) == 2


# --- log, pictures, drawings -----------------------------------------------------------------


def test_no_log_no_curves(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == []


@pytest.mark.parametrize(
    "content",
    [
        b"epoch,train_loss\n1,2\n",
        LOG.encode() + b"3,x,0,0,0,0\n",
        LOG.encode() + b"3\n",
        b"\xff\xfe1",
    ],
    ids=["columns", "no number", "short row", "no text"],
)
def test_a_foreign_log_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"log\.csv: no training log"):
        read_log(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("side", "channels", "shown"), [(32, 1, 224), (100, 3, 300), (224, 3, 224)]
)
def test_small_pictures_are_enlarged_by_a_whole_factor(
    side: int, channels: int, shown: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, channels), dtype=np.uint8)
    image = enlarge(pixels)
    assert image.size == (shown, shown)
    assert image.mode == "RGB"
    step = shown // side
    assert np.array_equal(
        np.asarray(image)[::step, ::step], np.broadcast_to(pixels, (side, side, 3))
    )


def test_the_overlay_is_brightest_where_the_evidence_is() -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    activation = np.array([[0.0, 1.0], [2.0, 5.0]], np.float32)
    grey = np.asarray(overlay(pixels, activation).convert("L"), np.float32)
    quarters = [grey[:80, :80].mean(), grey[:80, -80:].mean(), grey[-80:, :80].mean()]
    assert [*quarters, grey[-80:, -80:].mean()] == sorted([*quarters, grey[-80:, -80:].mean()])
    assert np.ptp(grey) > 60


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_a_map_of_one_value_gives_one_colour(value: float) -> None:
    pixels = np.full((32, 32, 1), 90, np.uint8)
    image = overlay(pixels, np.full((1, 1), value, np.float32))
    assert len(image.getcolors() or []) == 1


@pytest.mark.parametrize("classes", [1, 2, 25, 26, 450])
def test_the_confusion_matrix_of_any_number_of_classes(classes: int) -> None:
    matrix = np.eye(classes, dtype=np.int64) * 7
    names = [f"name {index} $x$ <&> 名" for index in range(classes)]
    text = plots.to_svg(plots.confusion(matrix, names))
    assert ("name 0 $x$" in text) == (classes <= 25)
    assert "currentColor" in text
    assert len(text) < 400_000


def test_curves_of_one_epoch_show() -> None:
    row = {"epoch": 1, "train_loss": 1.0, "validation_loss": 2.0}
    figure = plots.curves([row | {"train_top1": 0.5, "validation_top1": 0.4}])
    lines = [line for axes in figure.axes for line in axes.lines]
    assert len(lines) == 4
    assert all(line.get_marker() == "o" for line in lines)


def test_curves_are_those_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    figure = plots.curves(read_log(tmp_path / "log.csv"))
    found = [line.get_ydata().tolist() for axes in figure.axes for line in axes.lines]
    assert found == [[1.5, 1.0], [1.2, 0.9], [0.4, 0.6], [0.5, 0.7]]
    figure.savefig(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (840, 320)


def test_a_first_epoch_does_not_flatten_the_loss_of_the_others() -> None:
    row = {"train_loss": 1.0, "train_top1": 0.5, "validation_top1": 0.4}
    losses = [800.0, *(2.0 - epoch / 20 for epoch in range(1, 20)), math.nan]
    rows = [row | {"epoch": n, "validation_loss": loss} for n, loss in enumerate(losses, start=1)]
    assert plots.curves(rows).axes[0].get_ylim()[1] == pytest.approx(1.05 * 1.9)


def test_calibration_draws_every_bin() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    metrics = classification_metrics(probabilities, np.array([0, 1, 1]), ["a", "b"])
    upper, lower = plots.calibration(metrics.calibration).axes
    assert [bar.get_height() for bar in lower.patches if bar.get_height()] == [1, 1, 1]
    assert sum(bar.get_height() for bar in upper.patches) == 2
