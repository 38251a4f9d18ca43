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
    near_duplicates,
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
    originals = [photo(seed, SIZE) for seed in range(60)]
    copies = [COPIES[name](image) for image in originals[:12]]
    groups = near_duplicates(prints(originals + copies)).groups
    assert groups == [[index, index + 60] for index in range(12)]


def test_different_pictures_are_not_joined():
    assert near_duplicates(prints([photo(seed, SIZE) for seed in range(200)])).groups == []


def test_layout_alone_does_not_join():
    """As of two dandelions on green: the hash is close, the detail is not."""
    generator = np.random.default_rng(0)
    layout = generator.integers(40, 216, (8, 8), dtype=np.uint8)
    layout = np.asarray(Image.fromarray(layout).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    noise = generator.integers(-40, 41, (2, SIDE, SIDE))
    images = [Image.fromarray(np.clip(layout + one, 0, 255).astype(np.uint8)) for one in noise]
    first, second = prints(images)
    assert (first.hash != second.hash).sum() <= MAX_HASH_DISTANCE
    assert near_duplicates([first, second]).groups == []


def test_flat_pictures_are_not_joined():
    """Two empty pages are no copies of each other, whatever the noise on them."""
    noise = np.random.default_rng(0).integers(250, 252, (4, *SIZE[::-1]), dtype=np.uint8)
    images = [Image.new("L", SIZE, 250), Image.new("L", SIZE, 251), *map(Image.fromarray, noise)]
    assert near_duplicates(prints(images)).groups == []


def test_small_pictures_have_no_fingerprint():
    assert fingerprint(photo(0, (SIDE - 1, 100))) is None
    assert fingerprint(photo(0, (SIDE, SIDE))) is not None


def test_chains_are_one_group():
    images = [COPIES["darker"](photo(0, SIZE)), photo(0, SIZE), photo(1, SIZE)]
    images.append(COPIES["recompressed"](images[1]))
    assert near_duplicates(prints(images)).groups == [[0, 1, 3]]


@pytest.mark.parametrize("count", [0, 1])
def test_no_pairs(count):
    assert near_duplicates(prints([photo(0, SIZE)] * count)) == ([], True)


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
    assert near_duplicates(pairs).groups == expected.groups()


def test_look_alikes_are_no_duplicates():
    """Parts before one camera: what they share says nothing, and what differs is small."""
    scene = photo(0, SIZE)
    parts = [Image.blend(scene, photo(seed, SIZE), 0.2 + seed / 150) for seed in range(1, 61)]
    assert near_duplicates(prints(parts)) == ([], False)


def test_films_are_groups():
    """Frames of five scenes: a fifth of all pairs are near duplicates, and stay found."""
    frames = []
    for scene in range(5):
        for number in range(10):
            frame = photo(scene, SIZE)
            frame.paste("red", (20 * number, 100, 20 * number + 15, 115))
            frames.append(frame)
    groups = near_duplicates(prints(frames)).groups
    assert groups == [list(range(10 * scene, 10 * scene + 10)) for scene in range(5)]


def test_disjoint_sets():
    sets = DisjointSets(6)
    for pair in [(5, 4), (1, 3), (4, 3), (1, 5)]:
        sets.join(*pair)
    assert sets.groups() == [[1, 3, 4, 5]]
    assert sets.roots().tolist() == [0, 1, 2, 1, 1, 1]
