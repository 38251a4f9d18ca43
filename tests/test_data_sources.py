"""Folders become data sets: splits, classes, labels, litter and what is wrong with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from photo_helpers import write_photo

from lucid.data import Dataset, open_data
from lucid.data.samples import natural_key
from lucid.errors import DataError


def labelled(dataset: Dataset) -> dict[str, str]:
    """Class name by file name."""
    return {
        dataset.name(sample.path): dataset.class_names[sample.label] for sample in dataset.samples
    }


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_class_folders(tiny_photos):
    dataset = open_data(tiny_photos)
    assert dataset.class_names == ("blue", "green", "red")
    assert len(dataset.samples) == 30
    assert dataset.splits == frozenset()
    assert dataset.stray == dataset.warnings == ()
    assert all(name.startswith(f"{label}/") for name, label in labelled(dataset).items())


def test_order_is_natural_and_of_names_alone(tmp_path):
    names = ["c10/b.jpg", "c2/10.jpg", "C3/1.jpg", "c2/9.JPG", "c2/deep/er/1.png"]
    dataset = open_data(touch(tmp_path, *names))
    assert dataset.class_names == ("c2", "C3", "c10")
    assert list(labelled(dataset)) == [
        "c2/9.JPG",
        "c2/10.jpg",
        "c2/deep/er/1.png",
        "C3/1.jpg",
        "c10/b.jpg",
    ]
    assert [sample.label for sample in dataset.samples] == [0, 0, 0, 1, 2]


def test_natural_key_takes_any_text():
    texts = ["", "7", "07", "7" * 6000, "a", "A", "a1", "a01", "²", "é"]
    assert sorted(sorted(texts, key=natural_key, reverse=True), key=natural_key) == sorted(
        texts, key=natural_key
    )
    assert natural_key("a9") < natural_key("a10") < natural_key("b1")


@pytest.mark.parametrize(
    ("train", "validation"),
    [("train", "val"), ("Train", "VALID"), ("training", "Validation")],
)
def test_split_folders(tmp_path, train, validation):
    touch(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/1.jpg")
    touch(tmp_path, f"{validation}/cat/2.jpg", f"{validation}/dog/2.jpg", "test/dog/3.jpg")
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert sorted((s.path.stem, s.split) for s in dataset.samples if s.label == 1) == [
        ("1", "train"),
        ("2", "validation"),
        ("3", "test"),
    ]
    assert dataset.warnings == ("no picture in test of the class 'cat'",)


def test_labels_do_not_shift_between_splits(tmp_path):
    """The class that train alone has comes first by name, so a numbering of its own would shift."""
    touch(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "train/cat/1.jpg")
    touch(tmp_path, "val/bee/2.jpg", "val/cat/2.jpg", "val/dog/2.jpg")
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert labelled(dataset)["val/bee/2.jpg"] == "bee"
    assert dataset.warnings == (
        "no picture in train of the class 'dog'",
        "no picture in validation of the class 'ant'",
    )


def test_empty_class_keeps_its_label(tmp_path):
    touch(tmp_path, "ant/1.jpg", "cat/1.jpg", "bee/readme.txt")
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert labelled(dataset)["cat/1.jpg"] == "cat"
    assert dataset.warnings == ("no picture of the class 'bee'",)
    assert dataset.stray == (tmp_path / "bee/readme.txt",)


def test_one_class_is_a_warning(tmp_path):
    dataset = open_data(touch(tmp_path, "cat/1.jpg", "cat/2.jpg"))
    assert dataset.class_names == ("cat",)
    assert dataset.warnings == ("there is only one class, 'cat'; a classifier needs at least two",)


def test_classes_that_differ_in_case(tmp_path):
    touch(tmp_path, "train/Cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg")
    dataset = open_data(tmp_path)
    assert "the classes 'Cat', 'cat' differ only in case; are they one?" in dataset.warnings


def test_stray_files_and_litter(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "loose.jpg", "README.md", "cat/notes.txt")
    touch(tmp_path, ".DS_Store", "cat/Thumbs.db", "dog/._1.jpg", "__MACOSX/cat/1.jpg", ".git/x.jpg")
    dataset = open_data(tmp_path)
    assert list(labelled(dataset)) == ["cat/1.jpg", "dog/1.jpg"]
    assert [dataset.name(path) for path in dataset.stray] == [
        "cat/notes.txt",
        "loose.jpg",
        "README.md",
    ]


def test_a_class_may_be_called_train(tmp_path):
    dataset = open_data(touch(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg"))
    assert dataset.class_names == ("bus", "car", "train")


def test_folder_beside_the_splits_is_named(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "annotations/1.xml")
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.warnings == ("beside the splits stands 'annotations', which isn't read",)


def test_split_beside_class_folders(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg")
    with pytest.raises(DataError, match="move those into a folder 'train'"):
        open_data(tmp_path)


@pytest.mark.parametrize("inside", ["cat/1.jpg dog/1.jpg", "train/cat/1.jpg train/dog/1.jpg"])
def test_wrapping_folder_is_entered(tmp_path, inside):
    touch(tmp_path / "pets", *inside.split())
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.root == tmp_path / "pets"


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "elsewhere", "2.jpg")
    root = touch(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg")
    (root / "cat/more").symlink_to(tmp_path / "elsewhere")
    (root / "cat/loop").symlink_to(root)
    (root / "dog/self").symlink_to(root / "dog")
    (root / "dog/broken.jpg").symlink_to("nowhere.jpg")
    dataset = open_data(root)
    assert labelled(dataset)["cat/more/2.jpg"] == "cat"
    assert labelled(dataset)["dog/1.jpg"] == "dog"
    assert root / "dog/broken.jpg" in dataset.stray


def test_folder_that_holds_nothing_but_itself(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(DataError, match="no pictures"):
        open_data(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_picture(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "cat/2.jpg")
    dataset = open_data(tmp_path)
    assert len(dataset.samples) == 2
    assert dataset.stray == (tmp_path / "cat/2.jpg",)


def test_class_names_are_one_unicode_form(tmp_path):
    """macOS writes é as two characters."""
    touch(tmp_path, "train/cafe\u0301/1.jpg", "train/tea/1.jpg")
    touch(tmp_path, "val/caf\u00e9/2.jpg", "val/tea/2.jpg")
    dataset = open_data(tmp_path)
    assert dataset.class_names == ("caf\u00e9", "tea")
    assert dataset.warnings == ()


@pytest.mark.parametrize("name", ["cat\n", "c\x1b[31mat", os.fsdecode(b"c\xff")])
def test_class_name_that_is_no_text(tmp_path, name):
    touch(tmp_path, f"x{name}x/1.jpg", "dog/1.jpg")
    with pytest.raises(DataError, match="is no plain text; rename it"):
        open_data(tmp_path)


def test_file_name_that_is_no_text(tmp_path):
    name = os.fsdecode(b"cat/\xff\n.jpg")
    dataset = open_data(touch(tmp_path, name, "dog/1.jpg"))
    assert [sample.path for sample in dataset.samples] == [tmp_path / name, tmp_path / "dog/1.jpg"]
    # The name is for files that take UTF-8 alone, such as checkpoints.
    assert r"cat/\udcff\n.jpg" in labelled(dataset)


def test_missing_folder_suggests_a_near_name(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match="no such file or folder; did you mean 'flowers'"):
        open_data(tmp_path / "flower")
    for nowhere in (tmp_path / "a/b/c", "x" * 5000, "nul\0"):
        with pytest.raises(DataError, match="no such file or folder"):
            open_data(nowhere)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "there are no pictures"),
        (("cat/a.txt", "dog/b.txt"), "there are no pictures"),
        (("1.jpg", "2.jpg"), "no class folder with pictures, only loose ones such as 1.jpg"),
        (("train/1.jpg", "val/2.jpg"), "no class folder with pictures"),
        (("a.csv", "b.csv"), "several manifests, 'a.csv', 'b.csv'"),
    ],
    ids=["empty", "no pictures", "no class folders", "splits without classes", "two manifests"],
)
def test_folders_that_are_no_data_set(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_file_that_is_no_data_set(tmp_path):
    picture = write_photo(tmp_path / "cat.jpg", 0)
    with pytest.raises(DataError, match="a single picture"):
        open_data(picture)
    with pytest.raises(DataError, match="is no data set"):
        open_data(touch(tmp_path, "notes.docx") / "notes.docx")


def test_unreadable_folder(tmp_path, monkeypatch):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if folder.name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"dog: this folder can't be read \(Permission denied\)"):
        open_data(tmp_path)


def test_name_survives_a_move(tiny_photos, tmp_path):
    moved = shutil.copytree(tiny_photos, tmp_path / "moved")
    assert labelled(open_data(moved)) == labelled(open_data(tiny_photos))
