"""Where the time of one image goes, layer by layer, beside what the machine could do at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lucid.engine import Engine, Precision, measure_bandwidth, measure_peak
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Network

__all__ = ["BANDWIDTH_SIZES", "Profile", "Step", "bandwidths", "profile"]

# Bytes: of today's processors the first fit a core's L1 cache, the next its L2, the last no cache
# that it has for itself.
BANDWIDTH_SIZES = (16 << 10, 256 << 10, 128 << 20)


@dataclass(frozen=True)
class Step:
    """What the engine runs in one go: a layer, or two.

    Args:
        name: of its layers.
        kind: ``stem``, ``depthwise``, ``pointwise``, ``pool`` or ``dense``; two with ``+`` between.
        seconds: for one image.
        multiply_adds: of it.
        bytes: of weights and of the activations that are read and written.
    """

    name: str
    kind: str
    seconds: float
    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Profile:
    """The steps of a network in one precision, on one thread.

    Args:
        precision: of the engine.
        isa: the instruction set of its kernels.
        instruction: by which they are bound; None where no peak is known.
        peak: multiply-adds a second that it could do.
        steps: in order.
    """

    precision: str
    isa: str
    instruction: str | None
    peak: float | None
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def share(self) -> float | None:
        """Of the peak that all steps together reached."""
        if self.peak is None:
            return None
        return sum(step.multiply_adds for step in self.steps) / self.seconds / self.peak

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Profile:
        """What ``to_json`` gave."""
        return cls(**{**value, "steps": tuple(Step(**step) for step in value["steps"])})


def profile(
    network: FloatNetwork | Int8Network,
    precision: Precision,
    pixels: Pixels,
    *,
    isa: str | None = None,
    repetitions: int = 100,
    rounds: int = 5,
) -> Profile:
    """Time each step, and measure the peak between the rounds.

    A step's time is the least of the rounds' medians, and the peak the largest: what else the
    machine does only ever slows them down.

    Args:
        network: a float network, or one of int8 for that precision.
        precision: as in ``lucid.Engine``.
        pixels: uint8 (H, W, C), one image.
        isa: as in ``lucid.Engine``.
        repetitions: of the image in a round.
        rounds: at least 1.
    """
    engine = Engine(network, precision, isa=isa)
    kinds = {layer.name: layer.kind for layer in network.layers}
    found = [engine.profile(pixels, repetitions) for _ in range(rounds)]
    steps = tuple(
        Step(
            name=" + ".join(same[0].layers),
            kind=" + ".join(kinds[name] for name in same[0].layers),
            seconds=min(step.seconds for step in same),
            multiply_adds=same[0].multiply_adds,
            bytes=same[0].weight_bytes + same[0].activation_bytes,
        )
        for same in zip(*found, strict=True)
    )
    peaks = [steps[0].peak for steps in found if steps[0].peak is not None]
    named = measure_peak(precision, engine.isa)
    return Profile(
        precision=precision,
        isa=engine.isa,
        instruction=None if named is None else named.instruction,
        peak=max(peaks, default=None),
        steps=steps,
    )


def bandwidths(sizes: Sequence[int] = BANDWIDTH_SIZES) -> dict[int, float]:
    """Bytes a second that one thread loads from arrays of so many bytes, where that is known."""
    found = {size: measure_bandwidth(size, seconds=0.1) for size in sizes}
    return {size: rate for size, rate in found.items() if rate is not None}
