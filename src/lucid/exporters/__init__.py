"""From a network to the file formats that other runtimes read; one module a format."""

from __future__ import annotations

__all__: list[str] = []
