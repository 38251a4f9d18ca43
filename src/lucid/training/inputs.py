"""From augmented images to what a model reads: the size, and the normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lucid.images import Preprocessing


class Normalisation:
    """(pixel - mean) / std of a model's preprocessing, on a device."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """float32 images (N, C, H, W), 0 to 1 -> normalised, in the memory format channels last."""
        normalised = images.sub(self._mean).div_(self._std)
        return normalised.contiguous(memory_format=torch.channels_last)


def resized(images: Tensor, side: int) -> Tensor:
    """Images (N, C, S, S) at another side; antialiased, as preprocessing resizes photos."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
