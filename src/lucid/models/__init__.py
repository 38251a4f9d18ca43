"""The models, and the names they are registered under."""

from __future__ import annotations

from lucid import nn  # first: it says what to install when torch is missing
from lucid.models.mobilenet import MobileNet, StageFeatures

__all__ = ["MobileNet", "StageFeatures", "model_name"]

_REGISTRY: dict[type[nn.Module], str] = {MobileNet: "mobilenet"}


def model_name(module: nn.Module) -> str | None:
    """The registered name of a model, such as ``"mobilenet"``; None for any other module."""
    return _REGISTRY.get(type(module))
