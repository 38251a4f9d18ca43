"""Work in threads, which is enough for pictures: decoding and resizing release Python's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def cores() -> int:
    """Processor cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ahead(
    function: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    threads: int | None = None,
    ahead: int = 64,
) -> Generator[_R]:
    """``map`` in threads and in order, at most ``ahead`` results before the consumer.

    Args:
        function: an exception it raises is raised in its turn.
        items: taken as they are needed, so there may be any number.
        threads: one for each core by default.
        ahead: finished or running calls that wait for the consumer.
    Yields:
        The results. What has not begun is cancelled when the generator is closed or an exception,
        Ctrl-C too, passes through it.
    """
    waiting: deque[Future[_R]] = deque()
    pool = ThreadPoolExecutor(threads or cores())
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
