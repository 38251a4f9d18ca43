"""From an int8 network to C99 for microcontrollers: no library, no heap, memory known before."""

from __future__ import annotations

__all__: list[str] = []
