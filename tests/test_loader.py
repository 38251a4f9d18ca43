"""The order of training images, and batches that depend on their position alone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import coloured_squares

from lucid.data.augmentation import Augmentation
from lucid.data.cache import Squashed, open_cache
from lucid.data.loader import Batches, _repeats
from lucid.errors import DataError


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    folder = coloured_squares(tmp_path_factory.mktemp("data") / "squares", images=7)
    paths = sorted(folder.glob("*/*.png"))
    labels = np.repeat([0, 1, 2], 7)
    images = open_cache(paths, Squashed(16))
    return Batches(images, labels, 3, 4, 8, Augmentation(mixup=0.5), seed=3)


def test_an_epoch_uses_each_image_once_in_an_order_of_its_own(batches: Batches) -> None:
    orders = [batches.order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(21))
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[2], batches.order(2))
    assert batches.steps == 5


def test_an_epoch_can_begin_at_any_step(batches: Batches) -> None:
    whole = list(batches.epoch(1))
    assert len(whole) == 5
    assert whole[0][0].shape == (4, 3, 8, 8)
    for first in range(5):
        part = list(batches.epoch(1, first))
        assert len(part) == 5 - first
        for (images, targets), (expected, expected_targets) in zip(
            part, whole[first:], strict=True
        ):
            assert torch.equal(images, expected)
            assert torch.equal(targets, expected_targets)
    assert not torch.equal(whole[0][0], next(batches.epoch(2))[0])


def test_an_abandoned_epoch_leaves_no_thread(batches: Batches) -> None:
    epoch = batches.epoch(0)
    next(epoch)
    epoch.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "lucid-reader"]


def test_an_error_of_the_reader_reaches_the_trainer(batches: Batches, monkeypatch) -> None:
    def fails(_indices: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(batches.images, "take", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches.epoch(0))


def test_sampling_weights_balance_the_classes(batches: Batches) -> None:
    weights = np.array([1.0] * 7 + [5.0] * 7 + [1.0] * 7)
    balanced = Batches(
        batches.images, batches.labels, 3, 4, 8, Augmentation(), seed=0, weights=weights
    )
    drawn = np.concatenate([balanced.order(epoch) for epoch in range(200)])
    share = np.mean(batches.labels[drawn] == 1)
    assert abs(share - 5 / 7) < 0.03


def test_an_image_drawn_again_is_augmented_otherwise(batches: Batches) -> None:
    few = Batches(
        batches.images,
        batches.labels,
        3,
        4,
        8,
        Augmentation(),
        seed=0,
        weights=np.eye(21)[0] + 1e-12,  # always the first
    )
    assert set(few.order(0)) == {0}
    images = torch.cat([images for images, _ in few.epoch(0)])
    assert len(images.unique(dim=0)) == len(images) == 20


def test_repeats_count_what_stands_before() -> None:
    order = np.array([3, 1, 3, 3, 0, 1])
    assert _repeats(order).tolist() == [0, 0, 1, 2, 0, 1]


def test_an_image_that_has_gone_is_named_where_there_is_no_cache(tmp_path: Path) -> None:
    folder = coloured_squares(tmp_path / "squares", images=1)
    paths = sorted(folder.glob("*/*.png"))
    images = open_cache(paths, Squashed(16), folder=tmp_path / "cache", max_bytes=0)
    few = Batches(images, np.array([0, 1, 2]), 3, 3, 8, Augmentation(), seed=0)
    assert len(list(few.epoch(0))) == 1
    paths[1].unlink()
    with pytest.raises(DataError, match=rf"{paths[1].name}.*it could be read before"):
        next(few.epoch(0))


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    folder = coloured_squares(tmp_path / "squares", images=1)
    images = open_cache(sorted(Path(folder).glob("*/*.png")), Squashed(16))
    few = Batches(images, np.array([0, 1, 2]), 3, 64, 8, Augmentation(), seed=0)
    assert [len(targets) for _, targets in few.epoch(0)] == [3]
