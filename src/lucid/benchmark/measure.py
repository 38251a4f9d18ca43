"""Candidates measured in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.benchmark.peers import Candidate, Precision, Task, Workload, best_kernels
from lucid.benchmark.samples import photo_like
from lucid.benchmark.worker import Worker, WorkerError
from lucid.engine import measure_peak
from lucid.errors import LucidError
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Network
from lucid.quantization import measure_ranges, quantise

__all__ = ["Comparison", "Measurement", "compare", "workload"]

_INPUTS = 8  # different batches, so that no branch or cache learns one image by heart


@dataclass(frozen=True)
class Measurement:
    """What was found out about a candidate.

    Args:
        candidate: it.
        facts: as its ``Runner`` says.
        preparation: seconds, from nothing to the first result.
        turns: the median seconds of a call in each round.
        agreement: share of the pictures whose largest logit is that of the reference in float32.
        difference: the largest one of a logit to the reference's.
        multiply_adds: of a call.
        peak: multiply-adds a second that the machine's threads could do at most with the best
            instruction for this precision within the candidate's limit; None if not known.
    """

    candidate: Candidate
    facts: Mapping[str, str]
    preparation: float
    turns: tuple[float, ...]
    agreement: float
    difference: float
    multiply_adds: int = 0
    peak: float | None = None

    @property
    def seconds(self) -> float:
        """Of a call: the median over the rounds."""
        return statistics.median(self.turns)

    @property
    def share(self) -> float | None:
        """Of the peak that it reached."""
        return None if self.peak is None else self.multiply_adds / self.seconds / self.peak

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            **asdict(self.candidate),
            "seconds": self.seconds,
            "turns": list(self.turns),
            "preparation_seconds": self.preparation,
            "agreement": self.agreement,
            "largest_difference": self.difference,
            "multiply_adds": self.multiply_adds,
            "peak": self.peak,
            "share": self.share,
            "facts": dict(self.facts),
        }

    def times_as_fast_as(self, other: Measurement) -> float:
        """The median over the rounds, each compared with the same round of the other."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


@dataclass(frozen=True)
class Comparison:
    """All that was measured, in the order asked for, and why others were not."""

    measurements: tuple[Measurement, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        measurements = [one.to_json() for one in self.measurements]
        return {"measurements": measurements, "failures": dict(self.failures)}

    def fastest(self, accept: Callable[[Candidate], bool]) -> Measurement | None:
        """The fastest of the accepted ones."""
        found = [one for one in self.measurements if accept(one.candidate)]
        return min(found, key=lambda one: one.seconds, default=None)


def workload(
    network: FloatNetwork,
    calibration: Pixels,
    *,
    int8: Int8Network | None = None,
    batch: int = 1,
) -> Workload:
    """What all candidates get; sizes are those of the calibration images, uint8 (N, H, W, C).

    Args:
        int8: the same network; made from the calibration images when left out.
        batch: images in a call.
    """
    ranges = measure_ranges(network, calibration[:, None])
    logits = reference.run(network, calibration)
    height, width = calibration.shape[1:3]
    return Workload(
        network=network,
        int8=int8 or quantise(network, ranges),
        batch=batch,
        size=(height, width),
        calibration=calibration,
        ranges=ranges,
        largest_logit=float(np.abs(logits).max()),
    )


def compare(
    work: Workload,
    candidates: Sequence[Candidate],
    photos: Pixels,
    *,
    rounds: int = 15,
    seconds: float = 0.2,
    track: Callable[[Sequence[Candidate]], Iterable[Candidate]] = iter,
) -> Comparison:
    """Prepare every candidate in a process of its own, then measure them in turn.

    Args:
        work: what they run.
        photos: uint8 (N, H, W, C), on which their answers are compared with the reference's.
        rounds: in each of which every candidate has a turn.
        seconds: of a turn, about.
        track: wraps the candidates while they are prepared, which takes longest.
    """
    shape = (_INPUTS, work.batch, *work.calibration.shape[1:])
    images = photo_like(_INPUTS * work.batch, *work.size, channels=shape[-1], seed=1).reshape(shape)
    photos = photos[: len(photos) // work.batch * work.batch]
    expected = _reference(work.network, photos)
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        workers: list[Worker] = []
        answers: list[NDArray[np.float32]] = []
        for candidate in track(candidates):
            try:
                worker = Worker.start(Task(work, candidate), images)
                stack.callback(worker.close)
                answers.append(worker.logits(photos))
                workers.append(worker)
            except WorkerError as error:
                failures[str(candidate)] = str(error)
        turns: list[list[float]] = [[] for _ in workers]
        peaks = _Peaks()
        for number in range(rounds):
            # Nobody always runs behind the same one.
            order = np.random.default_rng(number).permutation(len(workers))
            for index in order:
                turns[index].append(float(np.median(workers[index].turn(seconds))))
            peaks.measure([worker.candidate for worker in workers])
    found = tuple(
        Measurement(
            candidate=worker.candidate,
            facts=worker.facts,
            preparation=worker.seconds,
            turns=tuple(times),
            agreement=float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean()),
            difference=float(np.abs(logits - expected).max()),
            multiply_adds=work.multiply_adds,
            peak=peaks.of(worker.candidate),
        )
        for worker, times, logits in zip(workers, turns, answers, strict=True)
    )
    return Comparison(found, failures)


class _Peaks:
    """What one thread of the machine could do, measured again and again; the most counts."""

    def __init__(self) -> None:
        self._found: dict[tuple[Precision, str | None], float] = {}

    def measure(self, candidates: Iterable[Candidate]) -> None:
        """Once for each precision and limit of the candidates."""
        for precision, isa in {(one.precision, one.isa) for one in candidates}:
            with suppress(LucidError):  # other runtimes may know what the engine does not
                peak = measure_peak(precision, best_kernels(precision, isa))
                if peak is not None:
                    before = self._found.get((precision, isa), 0.0)
                    self._found[precision, isa] = max(before, peak.multiply_adds)

    def of(self, candidate: Candidate) -> float | None:
        """Multiply-adds a second that the candidate's threads could do; None if not known."""
        one = self._found.get((candidate.precision, candidate.isa))
        return None if one is None else one * candidate.threads


def _reference(network: FloatNetwork, photos: Pixels) -> NDArray[np.float32]:
    return np.concatenate([reference.run(network, photo[None]) for photo in photos])
