"""Colour operations on batches of images, float32 (N, C, H, W) from 0 to 1.

The operations are Pillow's (``ImageEnhance``, ``ImageOps``), which AutoAugment (Cubuk et al. 2018,
arXiv:1805.09501, Table 6) made common; magnitudes run from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# ITU-R 601-2, the weights of Pillow's conversion to grey.
_LUMA = (0.299, 0.587, 0.114)
# Wide space of TrivialAugment (arXiv:2103.10158, Table 5): factors from 0.01 to 1.99, 8 to 2 bits.
_LARGEST_CHANGE = 0.99
_FEWEST_BITS = 2


def apply(images: Tensor, operation: Tensor, magnitude: Tensor) -> None:
    """Give each sample the operation that it drew.

    Args:
        images: float32 (N, C, H, W), 0 to 1; changed in place.
        operation: int64 (N,), an index into ``OPERATIONS``; below 0 leaves the sample as it is.
        magnitude: float32 (N,), -1 to 1.
    """
    for number, function in enumerate(_FUNCTIONS.values()):
        chosen = torch.nonzero(operation == number).flatten()
        if len(chosen):
            result = function(images[chosen], magnitude[chosen].view(-1, 1, 1, 1))
            images[chosen] = result.clamp_(0, 1)


def jitter(images: Tensor, changes: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of each sample by ``changes`` (3, N)."""
    for function, change in zip((_brightness, _contrast, _color), changes, strict=True):
        images = function(images, change.view(-1, 1, 1, 1) / _LARGEST_CHANGE).clamp_(0, 1)
    return images


def _grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W)."""
    if images.shape[1] != len(_LUMA):
        return images.mean(1, keepdim=True)
    weights = torch.tensor(_LUMA, device=images.device).view(1, -1, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _enhance(images: Tensor, base: Tensor, magnitude: Tensor) -> Tensor:
    """Away from ``base`` for magnitudes above 0, towards it below."""
    return (images - base).mul_(1 + magnitude * _LARGEST_CHANGE).add_(base)


def _brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return images * (1 + magnitude * _LARGEST_CHANGE)


def _color(images: Tensor, magnitude: Tensor) -> Tensor:
    return _enhance(images, _grey(images), magnitude)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    return _enhance(images, _grey(images).mean((2, 3), keepdim=True), magnitude)


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Against Pillow's SMOOTH filter, whose centre weighs 5 of 13."""
    channels = images.shape[1]
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return _enhance(images, functional.conv2d(padded, kernel, groups=channels), magnitude)


def _posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    bits = (8 - (magnitude.abs() * (8 - _FEWEST_BITS)).round()).to(torch.float32)
    step = torch.exp2(8 - bits)
    return torch.floor(images * 255 / step) * step / 255


def _solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    return torch.where(images >= 1 - magnitude.abs(), 1 - images, images)


def _autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    del magnitude
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) / span.clamp(min=1 / 255), images)


def _equalize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Each channel's grey levels spread by their cumulative histogram."""
    del magnitude
    count, channels, height, width = images.shape
    levels = (images * 255).round().long().reshape(count * channels, -1)  # (N*C, H*W)
    plane = torch.arange(count * channels, device=images.device).unsqueeze(1) * 256
    histogram = torch.bincount((levels + plane).flatten(), minlength=count * channels * 256)
    histogram = histogram.view(-1, 256).to(torch.float32)
    below = histogram.cumsum(1) - histogram
    # The darkest level present becomes black, the brightest white.
    table = below / below.gather(1, levels.amax(1, keepdim=True)).clamp(min=1)
    return table.gather(1, levels).view(count, channels, height, width)


_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
OPERATIONS = tuple(_FUNCTIONS)
