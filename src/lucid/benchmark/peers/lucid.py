"""lucid's own engine, which takes bytes and normalises them itself."""

from __future__ import annotations

from lucid.benchmark.peers import Runner, Task
from lucid.engine import Engine

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """The engine as ``lucid.Engine`` gives it; LUCID_ISA holds."""
    work, candidate = task.workload, task.candidate
    engine = Engine(
        work.int8 if candidate.precision == "int8" else work.network,
        precision=candidate.precision,
        threads=candidate.threads,
    )
    return Runner(lambda pixels: pixels, engine, lambda logits: logits, {"kernels": engine.isa})
