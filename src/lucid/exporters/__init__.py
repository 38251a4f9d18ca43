"""From a network to the formats that devices run; one module a format, and a table of them."""

from __future__ import annotations

from lucid.exporters.exported import Exported, export
from lucid.exporters.formats import FORMATS, Format
from lucid.exporters.verification import Examples, Verification, examples, verify

__all__ = [
    "FORMATS",
    "Examples",
    "Exported",
    "Format",
    "Verification",
    "examples",
    "export",
    "verify",
]
