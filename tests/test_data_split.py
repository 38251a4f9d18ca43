"""The split: stratified, the same everywhere, duplicates on one side."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.data import Dataset, Sample, Split, split
from lucid.data.samples import Record, SplitName, build_dataset
from lucid.errors import ConfigError, DataError

ROOT = Path("/data")


def dataset(counts: dict[str, int], given: SplitName | None = None) -> Dataset:
    """So many samples a class; nothing is on the disk."""
    records = [
        Record(ROOT / name / f"{number}.jpg", name, given)
        for name, count in counts.items()
        for number in range(count)
    ]
    return build_dataset(ROOT, ROOT, records)


def counts(data: Dataset, indices: tuple[int, ...]) -> dict[str, int]:
    labels = [data.class_names[data.samples[index].label] for index in indices]
    return {name: labels.count(name) for name in data.class_names}


def test_shares_of_the_classes():
    data = dataset({"a": 100, "b": 10, "c": 3, "d": 2})
    sides = split(data)
    assert counts(data, sides.validation) == {"a": 20, "b": 2, "c": 1, "d": 1}
    assert sorted(sides.train + sides.validation) == list(range(115))
    assert sides.warnings == ()


def test_other_share():
    data = dataset({"a": 100, "b": 10})
    assert counts(data, split(data, validation_fraction=0.5).validation) == {"a": 50, "b": 5}
    assert counts(data, split(data, validation_fraction=0.99).train) == {"a": 1, "b": 1}


def test_the_very_split_is_pinned():
    """On any machine, with any version of NumPy; it changes no more once results are published."""
    data = dataset({"a": 10, "b": 5})
    names = split(data, seed=0).to_dict(data)["validation"]
    assert names == ["a/4.jpg", "a/5.jpg", "b/1.jpg"]


def test_seed():
    data = dataset({"a": 100, "b": 100})
    assert split(data, seed=1) == split(data, seed=1)
    assert split(data, seed=1).validation != split(data, seed=2).validation


def test_order_of_files_and_place_of_the_folder_do_not_matter():
    data = dataset({"a": 50, "b": 20})
    shuffled = list(data.samples)
    random.Random(0).shuffle(shuffled)
    moved = [
        Sample(Path("/elsewhere") / sample.path.relative_to(ROOT), sample.label)
        for sample in shuffled
    ]
    other = replace(data, root=Path("/elsewhere"), samples=tuple(moved))
    expected = split(data).to_dict(data)
    assert {side: sorted(names) for side, names in split(other).to_dict(other).items()} == {
        side: sorted(names) for side, names in expected.items()
    }


def test_a_picture_more_moves_few_others():
    before = dataset({"a": 100, "b": 100})
    after = dataset({"a": 101, "b": 100})
    sides = [set(split(data).to_dict(data)["validation"]) for data in (before, after)]
    assert len(sides[0] ^ sides[1]) <= 2


def test_groups_stay_on_one_side():
    data = dataset({"a": 40, "b": 40})
    groups = [(0, 1, 2), (3, 43), (10, 11, 12, 13, 14, 15, 16)]
    for seed in range(20):
        sides = split(data, groups, seed=seed)
        for group in groups:
            assert set(group) <= set(sides.train) or set(group) <= set(sides.validation)
        assert counts(data, sides.validation) == {"a": 8, "b": 8}


def test_group_above_the_target_reaches_validation_when_nothing_else_can():
    data = dataset({"a": 9, "b": 10})
    sides = split(data, [(0, 1, 2), (3, 4, 5), (6, 7, 8)])
    assert counts(data, sides.validation) == {"a": 3, "b": 2}
    assert sides.warnings == ()


def test_class_of_copies_is_divided_with_a_warning():
    data = dataset({"a": 5, "b": 10})
    sides = split(data, [(0, 1, 2, 3, 4)])
    assert counts(data, sides.validation) == {"a": 1, "b": 2}
    assert "class 'a' are all duplicates of one another" in sides.warnings[0]


def test_class_with_one_picture_is_trained_on():
    data = dataset({"a": 10, "b": 1, "c": 10})
    sides = split(data)
    assert counts(data, sides.train)["b"] == 1
    assert sides.warnings == ("with a single picture, trained on but not validated: 'b'",)


def test_unusable_pictures_are_on_neither_side():
    data = dataset({"a": 10, "b": 10})
    usable = [index for index in range(20) if index not in (3, 12)]
    sides = split(data, [(3, 4, 5)], usable=usable)
    assert sorted(sides.train + sides.validation) == usable


def given_splits(**splits: list[str]) -> Dataset:
    records = [
        Record(ROOT / side / name, name[0], side)  # type: ignore[arg-type]
        for side, names in splits.items()
        for name in names
    ]
    return build_dataset(ROOT, ROOT, records)


def test_class_of_which_nothing_usable_is_left_is_named():
    whole = dataset({"ant": 4, "bee": 4, "cow": 4})
    usable = [i for i, sample in enumerate(whole.samples) if sample.label != 1]
    assert split(whole, usable=usable).warnings == (
        "no usable picture to train on is left of the class 'bee'",
    )
    sides = given_splits(train=["a1", "b1", "c1"], validation=["a2", "b2", "c2"])
    usable = [i for i, s in enumerate(sides.samples) if s.split == "train" or s.label == 0]
    assert split(sides, usable=usable).warnings == (
        "no usable picture to validate on is left of the classes 'b', 'c'",
    )


def test_given_split_is_kept():
    data = given_splits(train=["a1", "a2", "b1"], validation=["a3", "b2"], test=["a4", "b3"])
    assert split(data, seed=5).to_dict(data) == {
        "train": ["train/a1", "train/a2", "train/b1"],
        "validation": ["validation/a3", "validation/b2"],
    }


def test_given_train_and_test_leaves_test_alone():
    data = given_splits(train=[f"{c}{n}" for c in "ab" for n in range(10)], test=["a1", "b1"])
    sides = split(data)
    names = sides.to_dict(data)
    assert len(names["train"]) == 16
    assert len(names["validation"]) == 4
    assert not any(name.startswith("test") for side in names.values() for name in side)


def test_training_pictures_with_a_held_out_copy_are_left_out():
    data = given_splits(train=["a1", "a2", "a3", "b1", "b2"], validation=["a4", "b3"], test=["b4"])
    names = [data.name(sample.path) for sample in data.samples]
    groups = [
        [names.index("train/a1"), names.index("train/a2"), names.index("validation/a4")],
        [names.index("train/b2"), names.index("test/b4")],
    ]
    sides = split(data, groups)
    assert sides.to_dict(data)["train"] == ["train/a3", "train/b1"]
    assert sides.warnings == (
        "left out 3 training pictures with a duplicate in validation or test",
    )


@pytest.mark.parametrize(
    ("data", "usable", "message"),
    [
        (dataset({"a": 10}), None, "at least 2 classes, found 'a'"),
        (dataset({"a": 10, "b": 10}), range(10), "at least 2 classes, found 'a'"),
        (dataset({"a": 10, "b": 10}), [], "at least 2 classes, found none"),
        (dataset({"a": 10, "b": 10}, "test"), None, "at least 2 classes, found none"),
        (dataset({"a": 1, "b": 1}), None, "no picture is left to validate on"),
    ],
)
def test_what_cannot_be_divided(data, usable, message):
    with pytest.raises(DataError, match=message):
        split(data, usable=usable)


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 0.5},
        {"validation_fraction": 0},
        {"validation_fraction": 1},
        {"validation_fraction": float("nan")},
        {"validation_fraction": "half"},
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        split(dataset({"a": 5, "b": 5}), **arguments)


def test_stored_split_comes_back(tmp_path):
    data = dataset({"a": 10, "b": 10})
    sides = split(data)
    moved = replace(
        data,
        root=tmp_path,
        samples=tuple(
            replace(sample, path=tmp_path / sample.path.relative_to(ROOT))
            for sample in data.samples
        ),
    )
    assert Split.from_dict(sides.to_dict(data), moved) == sides


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a list of names called 'train'"),
        ([], "a list of names called 'train'"),
        ({"train": "a/1.jpg", "validation": []}, "a list of names called 'train'"),
        ({"train": [], "validation": [1]}, "a list of names called 'validation'"),
        ({"train": ["a/99.jpg"], "validation": []}, "1 picture of the split not found"),
        ({"train": ["a/1.jpg"], "validation": ["a/1.jpg"]}, "names a picture twice"),
    ],
)
def test_stored_split_is_checked(values, message):
    with pytest.raises(DataError, match=message):
        Split.from_dict(values, dataset({"a": 3, "b": 3}))


@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    fraction=st.floats(0.01, 0.99),
    draw=st.randoms(use_true_random=False),
)
def test_any_groups(sizes, seed, fraction, draw):
    """Each picture is on one side, each class on both; a group parts only with a warning."""
    data = dataset({f"class{number}": size for number, size in enumerate(sizes)})
    indices = list(range(len(data.samples)))
    draw.shuffle(indices)
    groups = []
    while indices:
        size = draw.choice([1, 1, 1, 2, 3, 10])
        groups.append(indices[:size])
        del indices[:size]
    sides = split(data, groups, seed=seed, validation_fraction=fraction)
    assert sorted(sides.train + sides.validation) == list(range(len(data.samples)))
    assert all(counts(data, sides.train).values())
    assert all(counts(data, sides.validation).values())
    if not sides.warnings:
        for group in groups:
            assert len({index in sides.validation for index in group}) == 1
