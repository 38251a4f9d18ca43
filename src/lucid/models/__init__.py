"""The models, and the names they are registered under."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lucid import nn  # first: it says what to install when torch is missing
from lucid.errors import ConfigError
from lucid.importers import BACKGROUND, import_weights
from lucid.models.mobilenet import MobileNet, StageFeatures

import torch  # isort: skip

__all__ = ["MODELS", "MobileNet", "StageFeatures", "mobilenet", "model_name"]

# By registered name.
MODELS: dict[str, type[MobileNet]] = {"mobilenet": MobileNet}


def model_name(module: nn.Module) -> str | None:
    """The registered name of a model, such as ``"mobilenet"``; None for any other module."""
    return next((name for name, model in MODELS.items() if type(module) is model), None)


# It stands before the module of this name, which can still be imported from.
def mobilenet(
    width_multiplier: float = 1.0, num_classes: int = 1000, *, weights: str | Path | None = None
) -> MobileNet:
    """A MobileNet, with published weights if they are given.

    With ``weights`` the model has the arguments of its source, in evaluation mode. Where
    ``num_classes`` is another than there, the backbone stays and the classifier is new; but of 1001
    classes whose first is the background, 1000 are the others, with their weights.

    Args:
        width_multiplier: above 0, at most 16.
        num_classes: 1 to 1,000,000.
        weights: what ``lucid.importers.import_weights`` takes, such as the name
            ``"timm/mobilenetv1_100.ra4_e3600_r224_in1k"``.
    Raises:
        ConfigError: an argument is out of range, or the width is not that of the weights.
        CheckpointError: the weights can't be read or are of no MobileNet-V1.
    """
    if weights is None:
        return MobileNet(width_multiplier, num_classes)
    checkpoint = import_weights(weights)
    width = checkpoint.arguments.width_multiplier
    if width != width_multiplier:
        raise ConfigError(
            f"width_multiplier is {width_multiplier}, but {weights} has {width}; give that"
        )
    tensors = {name: torch.tensor(array) for name, array in checkpoint.tensors.items()}
    arguments = checkpoint.arguments
    if (num_classes, arguments.num_classes) == (1000, 1001) and (
        checkpoint.class_names[0] == BACKGROUND
    ):
        arguments = replace(arguments, num_classes=1000)
        for name in ("fc.weight", "fc.bias"):
            tensors[name] = tensors[name][1:].clone()
    model = MobileNet.from_arguments(arguments)
    model.load_state_dict(tensors)
    model.eval()
    return model if num_classes == arguments.num_classes else model.replace_classifier(num_classes)
