"""Whether an exported file gives the answers of the reference, in the runtime that it is made for.

What is allowed, of the largest difference of a logit:

- float32: 1e-4, or a hundred-thousandth of the range of all logits where that is more; compared
  with the reference in float64, so that all of the difference is the runtime's.
- float16: 5% of the range.
- int8: none where the runtime's arithmetic gives the reference's bits; else the runtime's own share
  of the range, up to 10%, since one byte rounded otherwise moves many logits a little.

And at least 99.5% of the images get the reference's class; of less than 200, all but one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.benchmark.samples import photo_like
from lucid.errors import DataError
from lucid.exporters.exported import Exported
from lucid.exporters.formats import Precision, Runtime
from lucid.exporters.runners import Runner
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Network

__all__ = ["LEAST_AGREEMENT", "Examples", "Verification", "examples", "sample_pixels", "verify"]

LEAST_AGREEMENT = 0.995
_ABSOLUTE = {"float32": 1e-4, "float16": 0.0}
_OF_RANGE = {"float32": 1e-5, "float16": 0.05}

_PICTURES = 16
_BATCH = 16
_TIMED_SECONDS = 0.3
_LEAST_CALLS = 5

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """Images and what the reference answers for them.

    Args:
        pixels: uint8 (N, H, W, C).
        logits: (N, classes): float64 of a float network, float32 of an int8 one.
        labels: (N,), the classes; None where they are not known.
    """

    pixels: Pixels
    logits: Floats
    labels: NDArray[np.int64] | None = None

    @property
    def top1(self) -> float | None:
        """Share of images that the reference classifies as their labels say."""
        return _top1(self.logits, self.labels)

    @property
    def range(self) -> float:
        """From the smallest to the largest logit, 0 among them."""
        return float(self.logits.max(initial=0) - self.logits.min(initial=0))


@dataclass(frozen=True)
class Verification:
    """What a runtime answers, beside the reference.

    Args:
        runtime: its name.
        version: of it.
        images: how many.
        difference: the largest one of a logit.
        limit: that it may be.
        agreement: share of images with the reference's class.
        top1: share of right classes, None without labels.
        reference_top1: likewise of the reference.
        seconds: of a call with one image on one thread, the median; None where the time says
            nothing about the device.
        failure: what is wrong, in words; empty if nothing is.
    """

    runtime: str
    version: str
    images: int
    difference: float
    limit: float
    agreement: float
    top1: float | None
    reference_top1: float | None
    seconds: float | None
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the answers are those of the reference, as exactly as is asked for."""
        return not self.failure

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as JSON values."""
        return asdict(self)


def sample_pixels(side: int, channels: int) -> Pixels:
    """A handful of pictures like photos, the same every time: uint8 (N, side, side, channels)."""
    return photo_like(_PICTURES, side, side, channels=channels, seed=3)


def examples(
    network: FloatNetwork | Int8Network,
    pixels: Pixels,
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    track: Callable[[Iterable[Pixels]], Iterable[Pixels]] = iter,
) -> Examples:
    """Compute what the reference answers.

    Args:
        pixels: uint8 (N, H, W, C), at least one.
        labels: (N,), the classes; None where they are not known.
        track: wraps the batches while they are worked through, for a progress bar.
    Raises:
        DataError: there is no image.
        ShapeError: as ``lucid.reference.run``.
    """
    if not len(pixels):
        raise DataError("a verification needs at least one image, got none")
    dtype = np.float64 if isinstance(network, FloatNetwork) else np.float32
    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    logits = np.concatenate(
        [reference.run(network, batch, dtype=dtype) for batch in track(batches)]
    )
    return Examples(pixels, logits, None if labels is None else np.asarray(labels, np.int64))


def verify(
    exported: Exported,
    expected: Examples,
    *,
    track: Callable[[Iterable[Pixels]], Iterable[Pixels]] = iter,
) -> tuple[Verification, ...]:
    """Run a format's files in each of its runtimes, on one thread, an image at a time.

    A runtime that is not required and not installed is left out. A file that takes any number of
    images is run on several too.

    Args:
        expected: of the exported network, with its resolution.
        track: wraps the images while they are worked through, for a progress bar.
    Raises:
        MissingDependencyError: a package of a runtime is not installed; the extra is named.
    """
    found = []
    with exported.temporary() as path:
        for runtime in exported.format.runtimes:
            if exported.precision not in runtime.precisions:
                continue
            if not runtime.required and runtime.missing():
                continue
            try:
                runner = runtime.prepare(path)
                found.append(_compare(exported, expected, runtime, runner, track))
            except ImportError:
                raise
            except Exception as error:  # any runtime's own
                found.append(_refused(runtime, expected, error))
    return tuple(found)


def _compare(
    exported: Exported,
    expected: Examples,
    runtime: Runtime,
    runner: Runner,
    track: Callable[[Iterable[Pixels]], Iterable[Pixels]],
) -> Verification:
    singles = list(expected.pixels[:, np.newaxis])
    logits = np.concatenate([runner(image) for image in track(singles)])
    if logits.shape != expected.logits.shape:
        raise ValueError(f"gives {logits.shape}, expected {expected.logits.shape}")
    if exported.format.dynamic_batch:
        batch = expected.pixels[:3]
        logits = np.concatenate([logits, runner(batch)])
    wanted = expected.logits[np.r_[: len(singles), : len(logits) - len(singles)]]
    difference = float(np.abs(logits - wanted).max())
    agreement = float((logits.argmax(axis=1) == wanted.argmax(axis=1))[: len(singles)].mean())
    limit = _limit(runtime, exported.precision, expected.range)
    return Verification(
        runtime=runtime.title,
        version=runner.facts.get("version", ""),
        images=len(singles),
        difference=difference,
        limit=limit,
        agreement=agreement,
        top1=_top1(logits[: len(singles)], expected.labels),
        reference_top1=expected.top1,
        seconds=_time(runner, singles) if runtime.is_timed else None,
        failure=_failure(difference, limit, agreement, len(singles)),
    )


def _limit(runtime: Runtime, precision: Precision, range_: float) -> float:
    if precision == "int8":
        return runtime.int8_share * range_
    return max(_ABSOLUTE[precision], _OF_RANGE[precision] * range_)


def _failure(difference: float, limit: float, agreement: float, images: int) -> str:
    if not difference <= limit:  # a NaN fails too
        return f"a logit differs by {difference:.2g} from the reference's, more than {limit:.2g}"
    if round(images * (1 - agreement)) > max(1, int(images * (1 - LEAST_AGREEMENT) + 1e-9)):
        return f"{agreement:.2%} of {images:,} images get the reference's class"
    return ""


def _refused(runtime: Runtime, expected: Examples, error: Exception) -> Verification:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return Verification(
        runtime=runtime.title,
        version="",
        images=len(expected.pixels),
        difference=float("inf"),
        limit=0.0,
        agreement=0.0,
        top1=None,
        reference_top1=expected.top1,
        seconds=None,
        failure=f"does not run the file: {reason}",
    )


def _time(runner: Runner, singles: Sequence[Pixels]) -> float:
    """Median seconds of a call, of a few tenths of a second of them."""
    ready = [runner.take(image) for image in singles[:8]]
    times: list[float] = []
    while len(times) < _LEAST_CALLS or sum(times) < _TIMED_SECONDS:
        start = time.perf_counter()
        runner.run(ready[len(times) % len(ready)])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _top1(logits: Floats, labels: NDArray[np.int64] | None) -> float | None:
    return None if labels is None else float((logits.argmax(axis=1) == labels).mean())
