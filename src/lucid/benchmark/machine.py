"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lucid.parallel import cores

__all__ = ["busy", "describe"]

_TELLING_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)


def describe(packages: Iterable[str] = ()) -> dict[str, str]:
    """CPU, cores, system, and the versions of those ``packages`` that are installed."""
    return {
        "cpu": _cpu(),
        "cores": str(cores()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(_versions(packages)),
    }


def busy() -> float | None:
    """Programs that want a core now, on average over a minute, for each core; None if unknown."""
    return os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = [name for name in _TELLING_FLAGS if name in fields.get("flags", "").split()]
    where = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{fields.get('model name', platform.machine())} ({where}; {' '.join(flags)})"


def _versions(packages: Iterable[str]) -> Iterable[str]:
    for package in packages:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
