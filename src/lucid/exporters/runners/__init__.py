"""What runs a network's file in the runtime that it was made for, one module a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from lucid.images import Pixels

__all__ = ["Runner"]


@dataclass(frozen=True)
class Runner:
    """A runtime that is ready.

    Args:
        take: uint8 (N, H, W, C) -> what ``run`` takes; not part of the time.
        run: the call that is measured; what it gives has been computed when it returns.
        give: what ``run`` gave -> float32 logits (N, classes).
        facts: what to know about it, such as the version and what it limits itself to.
    """

    take: Callable[[Pixels], Any]
    run: Callable[[Any], Any]
    give: Callable[[Any], NDArray[float32]]
    facts: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, pixels: Pixels) -> NDArray[float32]:
        """uint8 (N, H, W, C) -> float32 logits (N, classes)."""
        return self.give(self.run(self.take(pixels)))
