"""A picture of what augmentation does, so that an eye can check it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lucid.data.augmentation import Augmentation, augment, draw, mix
from lucid.files import atomic_path

_OFF = Augmentation(crop_area=1.0, flip=False, policy="none")
_ROWS: dict[str, Augmentation] = {
    "as it is": _OFF,
    "random resized crop": Augmentation(flip=False, policy="none"),
    "flip": Augmentation(crop_area=1.0, policy="none"),
    "colour jitter": Augmentation(1.0, flip=False, color_jitter=0.4, policy="none"),
    "TrivialAugment": Augmentation(crop_area=1.0, flip=False),
    "RandAugment": Augmentation(crop_area=1.0, flip=False, policy="rand"),
    "random erasing": Augmentation(1.0, flip=False, policy="none", erasing=1.0),
    "mixup": Augmentation(1.0, flip=False, policy="none", mixup=1.0),
    "cutmix": Augmentation(1.0, flip=False, policy="none", cutmix=1.0),
}
_MARGIN = 8
_TITLE = 22


def contact_sheet(
    pixels: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    resolution: int,
    path: str | Path,
    *,
    seed: int = 0,
) -> None:
    """Draw a row of images for each kind of augmentation.

    Args:
        pixels: uint8 (N, S, S, 3), whole images squashed to squares, one a column.
        sizes: int32 (N, 2), width and height before.
        resolution: side of each augmented image in pixels.
        path: of the picture; its suffix chooses the format.
        seed: of the augmentation.
    Raises:
        OutputError: the folder can't be written.
    """
    count = len(pixels)
    height = len(_ROWS) * (resolution + _TITLE + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (count * (resolution + _MARGIN) + _MARGIN, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    top = _MARGIN
    for number, (title, augmentation) in enumerate(_ROWS.items()):
        pen.text((_MARGIN, top), title, "black", font)
        draws = torch.from_numpy(draw(seed, number, np.arange(count)))
        images = augment(
            torch.from_numpy(pixels), torch.from_numpy(sizes), draws, resolution, augmentation
        )
        generator = np.random.default_rng([seed, number])
        images, _ = mix(images, torch.eye(count), generator, augmentation)
        shown = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        for column, image in enumerate(shown):
            left = _MARGIN + column * (resolution + _MARGIN)
            sheet.paste(Image.fromarray(image), (left, top + _TITLE))
        top += resolution + _TITLE + _MARGIN
    with atomic_path(path) as temporary:
        sheet.save(temporary)
