"""Near duplicates: copies are found, pictures that only look alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from photo_helpers import photo
from PIL import Image, ImageEnhance, ImageOps

from lucid.data import duplicates
from lucid.data.duplicates import (
    MAX_HASH_DISTANCE,
    MIN_AGREEMENT,
    SIDE,
    DisjointSets,
    Fingerprint,
    fingerprint,
    near_duplicate_groups,
)

SIZE = (320, 240)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((160, 120)),
    "squashed": lambda image: image.resize((200, 200)),
    "recompressed": recompressed,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "greyscale": ImageOps.grayscale,
    "trimmed": lambda image: image.crop((4, 3, 318, 236)),
    "framed": lambda image: ImageOps.expand(image, 3, "black"),
}


def prints(images: list[Image.Image]) -> list[Fingerprint]:
    found = [fingerprint(image) for image in images]
    assert None not in found
    return [print_ for print_ in found if print_ is not None]


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found(name):
    originals = [photo(seed, SIZE) for seed in range(20)]
    copies = [COPIES[name](image) for image in originals]
    groups = near_duplicate_groups(prints(originals + copies))
    assert groups == [[index, index + 20] for index in range(20)]


def test_different_pictures_are_not_joined():
    assert near_duplicate_groups(prints([photo(seed, SIZE) for seed in range(200)])) == []


def test_layout_alone_does_not_join():
    """As of two dandelions on green: the hash is close, the detail is not."""
    generator = np.random.default_rng(0)
    layout = generator.integers(40, 216, (8, 8), dtype=np.uint8)
    layout = np.asarray(Image.fromarray(layout).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    noise = generator.integers(-40, 41, (2, SIDE, SIDE))
    images = [Image.fromarray(np.clip(layout + one, 0, 255).astype(np.uint8)) for one in noise]
    first, second = prints(images)
    assert (first.hash != second.hash).sum() <= MAX_HASH_DISTANCE
    assert near_duplicate_groups([first, second]) == []


def test_flat_pictures_are_not_joined():
    """Two empty pages are no copies of each other, whatever the noise on them."""
    noise = np.random.default_rng(0).integers(250, 252, (4, *SIZE[::-1]), dtype=np.uint8)
    images = [Image.new("L", SIZE, 250), Image.new("L", SIZE, 251), *map(Image.fromarray, noise)]
    assert near_duplicate_groups(prints(images)) == []


def test_small_pictures_have_no_fingerprint():
    assert fingerprint(photo(0, (SIDE - 1, 100))) is None
    assert fingerprint(photo(0, (SIDE, SIDE))) is not None


def test_chains_are_one_group():
    images = [COPIES["darker"](photo(0, SIZE)), photo(0, SIZE), photo(1, SIZE)]
    images.append(COPIES["recompressed"](images[1]))
    assert near_duplicate_groups(prints(images)) == [[0, 1, 3]]


@pytest.mark.parametrize("count", [0, 1])
def test_no_pairs(count):
    assert near_duplicate_groups(prints([photo(0, SIZE)] * count)) == []


def test_tiles_find_what_all_pairs_give(monkeypatch):
    """Ties at both limits; tiles and chunks that the number of pictures does not fill."""
    monkeypatch.setattr(duplicates, "_TILE", (7, 13))
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 5)
    generator = np.random.default_rng(3)
    hashes = generator.random((60, 64)) < 0.5
    details = generator.integers(-90, 90, (60, SIDE * SIDE)).astype(np.int8)
    for index in range(0, 60, 3):  # each third resembles an earlier one in part
        original = generator.integers(0, index + 1)
        flips = generator.choice(64, generator.integers(0, 2 * MAX_HASH_DISTANCE), replace=False)
        hashes[index] = hashes[original]
        hashes[index, flips] ^= True
        kept = generator.random(SIDE * SIDE) < generator.uniform(0.4, 1)
        details[index, kept] = details[original, kept]
    vectors = details.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = DisjointSets(60)
    joined = 0
    for left in range(60):
        for right in range(left + 1, 60):
            close = (hashes[left] != hashes[right]).sum() <= MAX_HASH_DISTANCE
            if close and vectors[left] @ vectors[right] >= MIN_AGREEMENT:
                expected.join(left, right)
                joined += 1
    assert 5 < joined < 20
    pairs = [Fingerprint(*pair) for pair in zip(hashes, details, strict=True)]
    assert near_duplicate_groups(pairs) == expected.groups()


def test_disjoint_sets():
    sets = DisjointSets(6)
    for pair in [(5, 4), (1, 3), (4, 3), (1, 5)]:
        sets.join(*pair)
    assert sets.groups() == [[1, 3, 4, 5]]
    assert sets.roots().tolist() == [0, 1, 2, 1, 1, 1]
