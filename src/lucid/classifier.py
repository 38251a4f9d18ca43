"""A checkpoint's model, run by PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from lucid import images
from lucid.checkpoint import Checkpoint
from lucid.description import JSON
from lucid.errors import ConfigError
from lucid.images import Preprocessing
from lucid.models import MobileNet  # before torch: it says what to install when that is missing
from lucid.prediction import Predictor

import torch  # isort: skip

__all__ = ["Classifier"]


class Classifier(Predictor):
    """A PyTorch model together with its class names and its preprocessing.

    Args:
        model: put into evaluation mode; runs on the device where it is.
        class_names: one for each of the model's classes.
        preprocessing: what is done to a picture before the model sees it.
        checkpoint: the file's content, where the model came from one.
    Raises:
        ConfigError: the number of class names is not the model's number of classes, or the
            preprocessing gives another number of channels than the model takes.
    """

    def __init__(
        self,
        model: MobileNet,
        class_names: Iterable[str],
        preprocessing: Preprocessing,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(class_names, preprocessing)
        self.model = model.eval()
        self.checkpoint = checkpoint
        arguments = model.arguments
        if len(self.class_names) != arguments.num_classes:
            raise ConfigError(
                f"the model has {arguments.num_classes} classes, got {len(self.class_names)} names"
            )
        if preprocessing.channels != arguments.in_channels:
            raise ConfigError(
                f"the model takes {arguments.in_channels} channels, "
                f"{preprocessing.color} pictures have {preprocessing.channels}"
            )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Classifier:
        """The classifier that a checkpoint holds, on the CPU."""
        # On the meta device nothing is allocated or initialised, and no random number is drawn.
        with torch.device("meta"):
            model = MobileNet.from_arguments(checkpoint.arguments)
        # Copied, since the reader's arrays may share the file's memory.
        tensors = {name: torch.tensor(array) for name, array in checkpoint.tensors.items()}
        model.load_state_dict(tensors, assign=True)
        return cls(model, checkpoint.class_names, checkpoint.preprocessing, checkpoint)

    @property
    def provenance(self) -> Mapping[str, JSON]:
        """Where the model came from; empty where it came from no checkpoint."""
        return self.checkpoint.provenance if self.checkpoint else {}

    @property
    def title(self) -> str:
        """What the model is, in a few words."""
        return f"MobileNet, width multiplier {self.model.arguments.width_multiplier:g}"

    @property
    def map_side(self) -> int:
        """Cells along each side of a class-activation map; one cell alone shows no place."""
        return -(-self.preprocessing.resolution // self.model.stages[-1].reduction)

    def _logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.model(self._input(pixels)).float().cpu().numpy()
        return logits

    def _maps(self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            weights = self.model.fc.weight[torch.from_numpy(classes)]  # (N, c)
            features = list(self.model.features(self._input(pixels)).values())[-1]  # (N, c, h, w)
            maps: NDArray[np.float32] = (
                torch.einsum("nchw,nc->nhw", features, weights).float().cpu().numpy()
            )
        return maps

    def _input(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (N, H, W, C) -> float32 (N, C, H, W), normalised, on the model's device."""
        normalised = images.normalise(pixels, self.preprocessing)
        return torch.from_numpy(normalised).to(self.model.fc.weight)
