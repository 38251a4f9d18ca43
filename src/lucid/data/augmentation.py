"""Augmentation of whole batches as tensors, on the device that trains.

Everything that moves pixels (crop, flip, shear, shift, rotation) is one affine map a sample and one
sampling of the batch; everything that changes colours runs once for all samples that drew it. Each
sample's draws come from a counter keyed by (seed, epoch, index of the sample, how often the epoch
had it before), so they depend on neither the batch that a sample is in nor on what ran before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lucid.data import colour

Policy = Literal["none", "trivial", "rand"]
POLICIES: tuple[Policy, ...] = ("none", "trivial", "rand")

GEOMETRIC = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPERATIONS = (*GEOMETRIC, *colour.OPERATIONS)

# Largest shear, shift (share of the side) and rotation (degrees).
# trivial: the wide space of TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158, Table 5).
# rand: RandAugment (Cubuk et al. 2019, arXiv:1909.13719) as torchvision sets it, at magnitude 9/30.
_LARGEST = {"trivial": (0.99, 32 / 224, 135.0), "rand": (0.3, 150 / 331, 30.0)}
_RAND_MAGNITUDE = 9 / 30
_OPERATIONS_A_SAMPLE = {"none": 0, "trivial": 1, "rand": 2}

# Howard 2013 and every recipe since: the crop's width over its height.
_CROP_RATIO = (3 / 4, 4 / 3)
# Zhong et al. 2017, arXiv:1708.04896.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 3.3)

_DRAWS = 24


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image.

    Args:
        crop_area: smallest share of the image's area that a random resized crop keeps.
        flip: mirror half of the images left to right.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 to 1.
        policy: ``"trivial"`` (TrivialAugment), ``"rand"`` (RandAugment) or ``"none"``.
        erasing: probability that a random rectangle is replaced by noise (random erasing).
        mixup: parameter of the Beta distribution of mixup's share; 0 is off.
        cutmix: the same for cutmix; with both, each batch draws one of the two.
        mix_share: share of the batches that are mixed at all.
    """

    crop_area: float = 0.25
    flip: bool = True
    color_jitter: float = 0.0
    policy: Policy = "trivial"
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 1.0


def draw(
    seed: int, epoch: int, indices: NDArray[np.integer], repeats: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), one row a sample: (N, draws).

    Args:
        indices: of the samples, (N,).
        repeats: how often the epoch had each of them before, (N,); never by default.
    """
    if repeats is None:
        repeats = np.zeros_like(indices)
    counters = ([0, epoch, *pair] for pair in zip(indices.tolist(), repeats.tolist(), strict=True))
    generators = (np.random.Generator(np.random.Philox(key=seed, counter=c)) for c in counters)
    return np.stack([generator.random(_DRAWS, dtype=np.float32) for generator in generators])


def augment(
    pixels: Tensor,
    sizes: Tensor,
    draws: Tensor,
    resolution: int,
    augmentation: Augmentation,
) -> Tensor:
    """Augment a batch of whole images, each squashed to a square.

    Args:
        pixels: uint8 (N, S, S, C).
        sizes: float (N, 2), width and height of each image before it was squashed.
        draws: float32 (N, draws) of ``draw``, on the device of ``pixels``.
        resolution: side of the result in pixels.
    Returns:
        float32 (N, C, resolution, resolution), 0 to 1.
    """
    column = iter(draws.T)
    maps = _crop_map(sizes, augmentation, [next(column) for _ in range(5)])
    colours: list[tuple[Tensor, Tensor]] = []
    for _ in range(_OPERATIONS_A_SAMPLE[augmentation.policy]):
        chosen, magnitude, sign = (next(column) for _ in range(3))
        operation = (chosen * len(OPERATIONS)).long()
        if augmentation.policy == "rand":
            magnitude = torch.full_like(magnitude, _RAND_MAGNITUDE)
        signed = torch.where(sign < 0.5, -magnitude, magnitude)
        maps = maps @ _operation_map(operation, signed, _LARGEST[augmentation.policy])
        colours.append((operation - len(GEOMETRIC), signed))

    images = _sample(pixels, maps, resolution)
    for operation, signed in colours:
        colour.apply(images, operation, signed)
    if augmentation.color_jitter:
        jitter = torch.stack([next(column) for _ in range(3)])
        images = colour.jitter(images, (jitter * 2 - 1) * augmentation.color_jitter)
    if augmentation.erasing:
        _erase(images, draws[:, -6:].T, augmentation.erasing)
    return images


def mix(
    images: Tensor, targets: Tensor, generator: np.random.Generator, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with another of the batch: mixup or cutmix.

    Sources: Zhang et al. 2017, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899.

    Args:
        images: float32 (N, C, H, W).
        targets: float32 (N, classes), probabilities.
        generator: of this batch.
    """
    kinds = [name for name in ("mixup", "cutmix") if getattr(augmentation, name)]
    if not kinds or generator.random() >= augmentation.mix_share:
        return images, targets
    kind = kinds[generator.integers(len(kinds))]
    alpha = getattr(augmentation, kind)
    share = float(generator.beta(alpha, alpha))
    if kind == "mixup":
        images = torch.lerp(images.roll(1, 0), images, share)
    else:
        images, share = _paste(images, share, generator)
    return images, torch.lerp(targets.roll(1, 0), targets, share)


def _paste(images: Tensor, share: float, generator: np.random.Generator) -> tuple[Tensor, float]:
    """Replace a rectangle by the neighbour's; the share kept is that of its pixels."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    x, y = generator.random(2)
    left, right = (round(np.clip(x + s * side / 2, 0, 1) * width) for s in (-1, 1))
    top, bottom = (round(np.clip(y + s * side / 2, 0, 1) * height) for s in (-1, 1))
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    return pasted, 1 - (right - left) * (bottom - top) / (width * height)


def _crop_map(sizes: Tensor, augmentation: Augmentation, draws: list[Tensor]) -> Tensor:
    """Map output coordinates (-1 to 1) to those of the squashed image: a random resized crop.

    Szegedy et al. 2014, arXiv:1409.4842, section 6; (N, 3, 3).
    """
    area, ratio, x, y, mirror = draws
    width, height = sizes.to(torch.float32).T
    area = augmentation.crop_area + area * (1 - augmentation.crop_area)
    low, high = map(math.log, _CROP_RATIO)
    # Relative to the image's own ratio; bounded so that the crop fits and keeps its area. The
    # source draws again instead, and falls back to a centred crop.
    ratio = torch.exp(low + ratio * (high - low)) * height / width
    ratio = ratio.clamp(min=area, max=1 / area)
    share_x = torch.sqrt(area * ratio).clamp(max=1)
    share_y = torch.sqrt(area / ratio).clamp(max=1)
    direction = torch.where(mirror < 0.5, -1.0, 1.0) if augmentation.flip else 1.0

    maps = torch.zeros(len(sizes), 3, 3, device=sizes.device)
    maps[:, 0, 0] = share_x * direction
    maps[:, 0, 2] = (x * 2 - 1) * (1 - share_x)
    maps[:, 1, 1] = share_y
    maps[:, 1, 2] = (y * 2 - 1) * (1 - share_y)
    maps[:, 2, 2] = 1
    return maps


def _operation_map(
    operation: Tensor, signed: Tensor, largest: tuple[float, float, float]
) -> Tensor:
    """The geometric operation that each sample drew, as a map of output coordinates: (N, 3, 3)."""
    shear, shift, degrees = largest
    zero = torch.zeros_like(signed)

    def drawn(name: str, value: Tensor) -> Tensor:
        return torch.where(operation == GEOMETRIC.index(name), value, zero)

    angle = drawn("rotate", signed * math.radians(degrees))
    maps = torch.zeros(len(signed), 3, 3, device=signed.device)
    maps[:, 0, 0] = torch.cos(angle)
    maps[:, 0, 1] = drawn("shear_x", signed * shear) - torch.sin(angle)
    maps[:, 0, 2] = drawn("translate_x", signed * shift * 2)
    maps[:, 1, 0] = drawn("shear_y", signed * shear) + torch.sin(angle)
    maps[:, 1, 1] = torch.cos(angle)
    maps[:, 1, 2] = drawn("translate_y", signed * shift * 2)
    maps[:, 2, 2] = 1
    return maps


def _sample(pixels: Tensor, maps: Tensor, resolution: int) -> Tensor:
    """Bilinear samples of the batch; outside an image its mirror image: (N, C, R, R), 0 to 1."""
    images = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    count, channels = images.shape[:2]
    grid = functional.affine_grid(
        maps[:, :2], [count, channels, resolution, resolution], align_corners=False
    )
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _erase(images: Tensor, draws: Tensor, probability: float) -> None:
    """Replace a rectangle of the samples that drew it by noise, in place."""
    chosen, area, ratio, x, y, seed = draws
    height, width = images.shape[2:]
    low, high = _ERASED_AREA
    share = low + area * (high - low)
    low, high = map(math.log, _ERASED_RATIO)
    ratio = torch.exp(low + ratio * (high - low))
    share_x = torch.sqrt(share * ratio).clamp(max=1)
    share_y = torch.sqrt(share / ratio).clamp(max=1)
    for index in torch.nonzero(chosen < probability).flatten().tolist():
        columns = max(1, int(share_x[index] * width))
        rows = max(1, int(share_y[index] * height))
        left = int(x[index] * (width - columns + 1))
        top = int(y[index] * (height - rows + 1))
        generator = torch.Generator().manual_seed(int(seed[index] * 2**24))
        noise = torch.rand(images.shape[1], rows, columns, generator=generator)
        images[index, :, top : top + rows, left : left + columns] = noise.to(images.device)
