"""From an int8 network to C99 for microcontrollers: no library, no heap, memory known before."""

from __future__ import annotations

from lucid.exporters.c.export import CExport, to_c
from lucid.exporters.c.plan import Plan, make_plan

__all__ = ["CExport", "Plan", "make_plan", "to_c"]
