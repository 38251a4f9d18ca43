"""What tests of importers share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lucid.checkpoint import Checkpoint
from lucid.models import MobileNet


def load(checkpoint: Checkpoint) -> MobileNet:
    """The checkpoint's model in evaluation mode."""
    model = MobileNet.from_arguments(checkpoint.arguments)
    model.load_state_dict({name: torch.tensor(a) for name, a in checkpoint.tensors.items()})
    return model.eval()


def logits(checkpoint: Checkpoint, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of normalised images (N, H, W, C)."""
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return load(checkpoint)(x).numpy()
