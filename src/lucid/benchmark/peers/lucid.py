"""lucid's own engine, which takes bytes and normalises them itself."""

from __future__ import annotations

from lucid.benchmark.peers import Runner, Task, best_kernels
from lucid.engine import Engine

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """The best kernels of this CPU within the candidate's limit."""
    work, candidate = task.workload, task.candidate
    engine = Engine(
        work.int8 if candidate.precision == "int8" else work.network,
        precision=candidate.precision,
        threads=candidate.threads,
        isa=best_kernels(candidate.precision, candidate.isa),
    )
    return Runner(lambda pixels: pixels, engine, lambda logits: logits, {"kernels": engine.isa})
