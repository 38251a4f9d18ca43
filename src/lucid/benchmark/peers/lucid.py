"""lucid's own engine, which takes bytes and normalises them itself."""

from __future__ import annotations

from lucid.benchmark.peers import ISAS, Runner, Task
from lucid.engine import Engine, isas

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """The best kernels of this CPU within the candidate's limit."""
    work, candidate = task.workload, task.candidate
    within = None
    if candidate.isa is not None:
        allowed = ISAS[candidate.isa].kernels
        within = next(name for name in isas(candidate.precision) if name in allowed)
    engine = Engine(
        work.int8 if candidate.precision == "int8" else work.network,
        precision=candidate.precision,
        threads=candidate.threads,
        isa=within,
    )
    return Runner(lambda pixels: pixels, engine, lambda logits: logits, {"kernels": engine.isa})
