"""The models, and the names they are registered under."""

from __future__ import annotations

from lucid import nn  # first: it says what to install when torch is missing
from lucid.models.mobilenet import MobileNet, StageFeatures

__all__ = ["MODELS", "MobileNet", "StageFeatures", "model_name"]

# By registered name.
MODELS: dict[str, type[MobileNet]] = {"mobilenet": MobileNet}


def model_name(module: nn.Module) -> str | None:
    """The registered name of a model, such as ``"mobilenet"``; None for any other module."""
    return next((name for name, model in MODELS.items() if type(module) is model), None)
