"""Keeping freed memory in the process while it trains on a CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3) of glibc: numbers of the parameters, the values that malloc starts with, and the
# largest threshold that it accepts on 64 bits.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_DEFAULT_THRESHOLD = 128 * 1024
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_NEVER_TRIM = 2**31 - 1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within the block, malloc keeps what is freed instead of handing it back to the system.

    A step frees and takes hundreds of tensors of some megabytes. By default each is mapped anew,
    and every page of it faults on first use. ``benchmarks/training.py --release-memory`` shows what
    that costs. Only glibc has this; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
