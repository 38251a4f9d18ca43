"""PyTorch compiled by Inductor: weights frozen, kernels chosen by measuring."""

from __future__ import annotations

from typing import Any

from lucid.benchmark.peers import Runner, Task
from lucid.benchmark.peers.torch import module, runner
from lucid.errors import require

__all__ = ["prepare"]


def prepare(task: Task) -> Runner:
    """Compiled at the first call, which takes a minute and a C++ compiler."""
    torch = require("torch", extra="benchmark")
    config: Any = require("torch._inductor.config", extra="benchmark")
    config.freezing = True
    dtype = getattr(torch, task.candidate.precision)
    model = (
        module(task.workload.network, task.workload.size)
        .to(dtype)
        .to(memory_format=torch.channels_last)
    )
    return runner(task, torch.compile(model, mode="max-autotune"))
