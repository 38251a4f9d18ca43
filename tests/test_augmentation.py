"""Augmentation against Pillow, whose operations it names, and against what each one promises."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from lucid.data import augmentation as module
from lucid.data import colour
from lucid.data.augmentation import GEOMETRIC, Augmentation, augment, draw, mix
from lucid.data.contact_sheet import contact_sheet

OFF = Augmentation(crop_area=1.0, flip=False, policy="none")


def photos(count: int = 4, side: int = 24, seed: int = 0) -> np.ndarray:
    """Colourful images with some grain and no symmetry, uint8 (N, S, S, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(i).resize((side, side))) for i in small])
    grain = rng.integers(-20, 21, smooth.shape)
    return (smooth.astype(int) + grain).clip(0, 255).astype(np.uint8)


def run(pixels: np.ndarray, options: Augmentation, resolution: int = 24, epoch: int = 0):
    sizes = torch.full((len(pixels), 2), 100.0)
    draws = torch.from_numpy(draw(0, epoch, np.arange(len(pixels))))
    return augment(torch.from_numpy(pixels), sizes, draws, resolution, options)


def planes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255


def test_nothing_asked_for_changes_nothing() -> None:
    pixels = photos()
    assert torch.allclose(run(pixels, OFF), planes(pixels), atol=1e-5)


def test_pictures_differ_enough_for_the_tests_to_see() -> None:
    first, second = planes(photos())[:2]
    assert (first - second).abs().mean() > 0.1
    assert (first - first.flip(2)).abs().mean() > 0.05


def test_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    pixels = photos(200, 6)
    result = run(pixels, Augmentation(crop_area=1.0, policy="none"), 6)
    original = planes(pixels)
    mirrored = [
        torch.allclose(r, o.flip(2), atol=1e-5) for r, o in zip(result, original, strict=True)
    ]
    kept = [torch.allclose(r, o, atol=1e-5) for r, o in zip(result, original, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("size", [(100, 100), (300, 100), (64, 200)], ids=str)
def test_crop_keeps_the_area_and_the_ratio_it_draws(size: tuple[int, int]) -> None:
    sizes = torch.tensor([size] * 500, dtype=torch.float32)
    draws = list(torch.from_numpy(draw(0, 0, np.arange(500))).T[:5])
    options = Augmentation(crop_area=0.3, flip=False)
    maps = module._crop_map(sizes, options, draws)
    width, height = maps[:, 0, 0] * size[0], maps[:, 1, 1] * size[1]
    assert (maps[:, 0, 0] + maps[:, 0, 2].abs() <= 1 + 1e-6).all()
    assert (maps[:, 1, 1] + maps[:, 1, 2].abs() <= 1 + 1e-6).all()
    area = width * height / (size[0] * size[1])
    assert area.min() >= 0.3 - 1e-5
    assert area.max() > 0.95
    # A crop as wide or high as the image had to give up its ratio.
    inside = (maps[:, 0, 0] < 0.999) & (maps[:, 1, 1] < 0.999)
    ratio = (width / height)[inside]
    assert len(ratio) > 10
    assert ratio.min() >= 3 / 4 - 1e-4
    assert ratio.max() <= 4 / 3 + 1e-4


def test_rotation_turns_as_numpy_does() -> None:
    pixels = photos(1)
    operation = torch.tensor([GEOMETRIC.index("rotate")])
    maps = module._operation_map(operation, torch.ones(1), (0.0, 0.0, 90.0))
    turned = module._sample(torch.from_numpy(pixels), maps, 24)
    expected = planes(np.rot90(pixels, axes=(1, 2)).copy())
    assert torch.allclose(turned, expected, atol=1e-4)


def test_translation_shifts_by_whole_pixels() -> None:
    pixels = photos(1)
    operation = torch.tensor([GEOMETRIC.index("translate_x")])
    maps = module._operation_map(operation, torch.ones(1), (0.0, 6 / 24, 0.0))
    shifted = module._sample(torch.from_numpy(pixels), maps, 24)
    assert torch.allclose(shifted[..., :18], planes(pixels)[..., 6:], atol=1e-4)


# Pillow rounds to whole grey levels on the way; ours does not.
@pytest.mark.parametrize("magnitude", [-0.8, -0.3, 0.4, 0.9])
@pytest.mark.parametrize(
    ("name", "enhance", "levels"),
    [
        ("brightness", ImageEnhance.Brightness, 1.01),
        ("color", ImageEnhance.Color, 2.01),
        ("contrast", ImageEnhance.Contrast, 2.01),
        ("sharpness", ImageEnhance.Sharpness, 2.01),
    ],
)
def test_enhancement_equals_pillow(name, enhance, levels: float, magnitude: float) -> None:
    pixels = photos()
    images = planes(pixels)
    operation = torch.full((4,), colour.OPERATIONS.index(name))
    colour.apply(images, operation, torch.full((4,), magnitude))
    expected = [enhance(Image.fromarray(p)).enhance(1 + magnitude * 0.99) for p in pixels]
    expected = planes(np.stack([np.asarray(image) for image in expected]))
    assert (expected - planes(pixels)).abs().max() > 5 / 255
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert ((images - expected)[inner].abs() * 255).max() <= levels


@pytest.mark.parametrize(
    ("name", "magnitude", "pillow", "levels"),
    [
        ("posterize", 0.5, lambda image: ImageOps.posterize(image, 5), 0.01),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 2), 0.01),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128), 0.01),
        ("autocontrast", 0.5, ImageOps.autocontrast, 1.01),
        ("equalize", 0.5, ImageOps.equalize, 5.01),  # Pillow divides whole numbers
    ],
)
def test_tone_operation_equals_pillow(name: str, magnitude: float, pillow, levels: float) -> None:
    pixels = photos(side=128, seed=3)
    images = planes(pixels)
    operation = torch.full((4,), colour.OPERATIONS.index(name))
    colour.apply(images, operation, torch.full((4,), magnitude))
    expected = planes(np.stack([np.asarray(pillow(Image.fromarray(p))) for p in pixels]))
    assert (expected - planes(pixels)).abs().max() > 6 / 255
    assert ((images - expected).abs() * 255).max() <= levels


@settings(deadline=None)
@given(
    policy=st.sampled_from(["none", "trivial", "rand"]),
    jitter=st.floats(0, 1),
    erasing=st.floats(0, 1),
    side=st.integers(2, 20),
    resolution=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    epoch=st.integers(0, 1000),
)
def test_every_augmentation_gives_images_from_0_to_1(
    policy, jitter: float, erasing: float, side: int, resolution: int, channels: int, epoch: int
) -> None:
    pixels = photos(5, side)[..., :channels]
    options = Augmentation(policy=policy, color_jitter=jitter, erasing=erasing)
    images = run(np.ascontiguousarray(pixels), options, resolution, epoch)
    assert images.shape == (5, channels, resolution, resolution)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1 + 1e-6


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    pixels = photos(16)
    options = Augmentation(color_jitter=0.3, erasing=0.5, policy="rand")
    whole = run(pixels, options)
    draws = torch.from_numpy(draw(0, 0, np.array([9, 2])))
    chosen = torch.from_numpy(pixels[[9, 2]])
    part = augment(chosen, torch.full((2, 2), 100.0), draws, 24, options)
    assert torch.allclose(part, whole[[9, 2]], atol=1e-6)
    assert not torch.allclose(part[0], part[1], atol=0.01)


def test_draws_depend_on_seed_epoch_and_index() -> None:
    indices = np.arange(50)
    rows = [draw(0, 0, indices), draw(1, 0, indices), draw(0, 1, indices)]
    assert len(np.unique(np.concatenate(rows).round(6))) > 0.99 * np.concatenate(rows).size
    assert np.array_equal(draw(0, 0, indices[::-1]), rows[0][::-1])


def test_erasing_replaces_a_rectangle_of_the_stated_area() -> None:
    pixels = photos(64, 32)
    erased = run(pixels, Augmentation(1.0, flip=False, policy="none", erasing=1.0), 32)
    changed = (erased - planes(pixels)).abs().amax(1) > 1e-3  # (N, 32, 32)
    share = changed.float().mean((1, 2))
    assert (share > 0.01).all()
    assert share.max() < 0.4
    assert 0.05 < share.mean() < 0.25


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_targets_say_what_the_images_hold(kind: str) -> None:
    count = 6
    images = torch.eye(count).view(count, count, 1, 1).expand(count, count, 20, 20).contiguous()
    options = Augmentation(**{kind: 1.0})
    shares = []
    for seed in range(20):
        mixed, targets = mix(images, torch.eye(count), np.random.default_rng(seed), options)
        assert torch.allclose(mixed.mean((2, 3)), targets, atol=1e-5)
        assert torch.allclose(targets.sum(1), torch.ones(count))
        shares.append(float(targets[0].max()))
    assert len(set(shares)) > 10
    assert math.isclose(float(images.sum()), count * 400)  # the input is left as it was


def test_mix_share_is_the_share_of_mixed_batches() -> None:
    images, options = torch.rand(4, 3, 8, 8), Augmentation(mixup=1.0, mix_share=0.25)
    outcomes = [
        mix(images, torch.eye(4), np.random.default_rng(seed), options)[0] is not images
        for seed in range(400)
    ]
    assert 60 < sum(outcomes) < 140


def test_contact_sheet_is_a_picture(tmp_path: Path) -> None:
    sizes = np.full((4, 2), 100, np.int32)
    contact_sheet(photos(), sizes, 24, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 24
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 1000
