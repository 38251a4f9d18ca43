"""Threads change the speed and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lucid.parallel import cores, map_ahead


def test_results_come_in_order() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 7 == 0 else 0)
        return number * number

    assert list(map_ahead(slow_first, range(50), threads=4)) == [n * n for n in range(50)]
    assert list(map_ahead(slow_first, [])) == []
    assert cores() >= 1


def test_items_are_taken_only_as_far_as_asked() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10**9):
            taken.append(number)
            yield number

    results = map_ahead(str, items(), threads=2, ahead=5)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    assert len(taken) <= 3 + 5
    results.close()


def test_an_exception_comes_in_its_turn_and_stops_the_rest() -> None:
    started = []

    def fail_at_three(number: int) -> int:
        started.append(number)
        time.sleep(0.002)
        if number == 3:
            raise ValueError("three")
        return number

    results = map_ahead(fail_at_three, range(1000), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(started) < 100
    before = len(started)
    time.sleep(0.02)
    assert len(started) == before, "threads go on after the error"
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
