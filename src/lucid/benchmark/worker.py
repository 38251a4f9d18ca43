"""One process a candidate: libraries, their thread pools and their variables stay apart."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.benchmark.peers import PEERS, Candidate, Task
from lucid.errors import LucidError
from lucid.images import Pixels

__all__ = ["Worker", "WorkerError"]

_WARM = 0.25  # of a turn's seconds, unmeasured before it
_LEAST_CALLS = 3


class WorkerError(LucidError):
    """A runtime could not be prepared or failed."""


@dataclass
class Worker:
    """A process that holds one candidate ready and runs it when it is its turn.

    ``facts`` is what ``Runner`` says, ``seconds`` how long it took to prepare.
    """

    candidate: Candidate
    facts: Mapping[str, str]
    seconds: float
    _process: Any
    _pipe: Connection

    @classmethod
    def start(cls, task: Task, images: Pixels) -> Worker:
        """Start the process and wait until it is ready to run on ``images`` (N, batch, H, W, C).

        Raises:
            WorkerError: the runtime refused; the message is its own.
        """
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, task.candidate.environment()))
        process.start()
        theirs.close()
        worker = cls(task.candidate, {}, 0.0, process, ours)
        try:
            worker.facts, worker.seconds = worker._ask("prepare", task, images)
        except BaseException:
            worker.close()
            raise
        return worker

    def turn(self, seconds: float) -> NDArray[np.float64]:
        """Seconds that each call took, of at least three calls in about ``seconds``."""
        times: NDArray[np.float64] = self._ask("turn", seconds)
        return times

    def logits(self, images: Pixels) -> NDArray[np.float32]:
        """float32 (N, classes) of images (N, H, W, C); N is a multiple of the batch."""
        found: NDArray[np.float32] = self._ask("logits", images)
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, *question: Any) -> Any:
        try:
            self._pipe.send(question)
            failed, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join(5)
            raise WorkerError(
                f"{self.candidate}: its process ended, exit code {self._process.exitcode}"
            ) from error
        if failed:
            raise WorkerError(f"{self.candidate}: {answer}")
        return answer


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """What the process does: answer questions until the pipe is closed."""
    os.environ.update(environment)  # before the runtime's libraries are loaded
    if not os.environ.get("LUCID_DEBUG"):
        quiet = os.open(os.devnull, os.O_WRONLY)  # runtimes are talkative, each in its own way
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
    state: dict[str, Any] = {}
    while True:
        try:
            name, *arguments = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = (False, _ANSWERS[name](state, *arguments))
        except Exception as error:
            if os.environ.get("LUCID_DEBUG"):
                traceback.print_exc()
            answer = (True, _first_line(error))
        pipe.send(answer)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _prepare(state: dict[str, Any], task: Task, images: Pixels) -> tuple[Mapping[str, str], float]:
    started = time.perf_counter()
    state["runner"] = runner = PEERS[task.candidate.peer].prepare(task)
    state["batch"] = task.workload.batch
    state["inputs"] = inputs = [runner.take(batch) for batch in images]
    runner.give(runner.run(inputs[0]))  # what compiles at the first call does it now
    gc.collect()
    gc.freeze()
    gc.disable()
    return runner.facts, time.perf_counter() - started


def _turn(state: dict[str, Any], seconds: float) -> NDArray[np.float64]:
    run, inputs = state["runner"].run, state["inputs"]
    clock = time.perf_counter
    warm_until = clock() + _WARM * seconds
    call = 0
    while call == 0 or clock() < warm_until:
        run(inputs[call % len(inputs)])
        call += 1
    times: list[float] = []
    until = clock() + seconds
    while len(times) < _LEAST_CALLS or clock() < until:
        one = inputs[call % len(inputs)]
        started = clock()
        run(one)
        times.append(clock() - started)
        call += 1
    return np.array(times)


def _logits(state: dict[str, Any], images: Pixels) -> NDArray[np.float32]:
    runner, batch = state["runner"], state["batch"]
    found = [
        np.array(runner.give(runner.run(runner.take(images[first : first + batch]))))
        for first in range(0, len(images), batch)
    ]
    return np.concatenate(found)


_ANSWERS: Mapping[str, Callable[..., Any]] = {"prepare": _prepare, "turn": _turn, "logits": _logits}
