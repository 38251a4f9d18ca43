"""Pictures of where in an image the evidence for a class is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucid.errors import require

__all__ = ["enlarge", "overlay"]

# Rises evenly in lightness, so that it also reads in print and for the colour-blind.
_COLORS = "inferno"
_OPACITY = 0.6
_SHOWN_SIDE = 224


def enlarge(pixels: NDArray[np.uint8]) -> Image.Image:
    """The image that the model saw, RGB, small ones enlarged by a whole factor.

    Args:
        pixels: uint8 (H, W, C), C 1 or 3.
    """
    height, width = pixels.shape[:2]
    factor = -(-_SHOWN_SIDE // max(height, width))
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")
    return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)


def overlay(pixels: NDArray[np.uint8], activation: NDArray[np.float32]) -> Image.Image:
    """A class-activation map laid over the image that the model saw.

    Bright is where the evidence for the class is strongest, dark where it is weakest; the scale
    reaches from the map's lowest value to its highest, as in Zhou et al. 2016 (arXiv:1512.04150).
    A map without differences is shown as strongest nowhere.

    Args:
        pixels: uint8 (H, W, C), C 1 or 3.
        activation: float32 (h, w), enlarged with bilinear interpolation.
    Returns:
        RGB, of the size of ``enlarge(pixels)``.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    picture = enlarge(pixels)
    span = float(activation.max() - activation.min())
    relative = (activation - activation.min()) / (span or 1.0)  # (h, w), 0 to 1
    spread = Image.fromarray(relative.astype(np.float32)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    colors = require("matplotlib", extra="train").colormaps[_COLORS]
    heat = Image.fromarray(colors(np.asarray(spread), bytes=True)[:, :, :3])
    # Grey below, so that every colour that one sees belongs to the map.
    return Image.blend(picture.convert("L").convert("RGB"), heat, _OPACITY)
