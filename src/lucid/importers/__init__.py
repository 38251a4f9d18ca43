"""Published MobileNet-V1 weights, whatever wrote them, as checkpoints of lucid."""

from __future__ import annotations

from lucid.importers.labels import BACKGROUND
from lucid.importers.sources import Source, find_source
from lucid.importers.weights import import_weights

__all__ = ["BACKGROUND", "Source", "find_source", "import_weights"]
