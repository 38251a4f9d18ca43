"""Speed measured fairly: lucid and the runtimes that people would use instead, in turn."""

from __future__ import annotations

__all__: list[str] = []
