"""lucid: from a folder of photos to a MobileNet that runs on the device you have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lucid.errors import LucidError

if TYPE_CHECKING:
    from lucid.classifier import Classifier
    from lucid.engine import Engine
    from lucid.opening import load

__version__ = "0.1.0"

__all__ = ["Classifier", "Engine", "LucidError", "__version__", "load"]

# Loaded at first use, so that `import lucid` stays fast and works without torch.
_LAZY = {"Classifier": "lucid.classifier", "Engine": "lucid.engine", "load": "lucid.opening"}
_ROOMS = (
    "checkpoint",
    "data",
    "engine",
    "evaluation",
    "importers",
    "lowering",
    "models",
    "network",
    "nn",
    "quantization",
    "reference",
    "training",
    "visual",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"lucid.{name}")
    raise AttributeError(f"module 'lucid' has no attribute {name!r}")
