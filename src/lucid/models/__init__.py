"""The models, and the names they are registered under."""

from __future__ import annotations

from lucid.errors import require

require("torch", extra="train")

from torch import nn  # noqa: E402  (after the check, so that its absence has a clear message)

from lucid.models.mobilenet import MobileNet, StageFeatures  # noqa: E402

__all__ = ["MobileNet", "StageFeatures", "model_name"]

_REGISTRY: dict[type[nn.Module], str] = {MobileNet: "mobilenet"}


def model_name(module: nn.Module) -> str | None:
    """The registered name of a model, such as ``"mobilenet"``; None for any other module."""
    return _REGISTRY.get(type(module))
