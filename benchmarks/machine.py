"""What the figures of a benchmark were measured on, and where they are written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe(*packages: str) -> dict[str, str]:
    """CPU, cores, system, commit and the versions of ``packages``."""
    return {
        "cpu": _cpu(),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "commit": _commit(),
    }


def write_results(name: str, machine: dict[str, str], results: dict[str, Any], text: str) -> None:
    """Write NAME.json, for programs, and NAME.md, for people; print the latter."""
    RESULTS.mkdir(exist_ok=True)
    # The interpreter's path is this machine's alone.
    command = " ".join(["python", *sys.argv])
    content = {"command": command, "machine": machine, "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [f"- {key}: {value}" for key, value in machine.items()]
    page = f"{text}\n\nMeasured with `{command}`\n\n" + "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(page)


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().splitlines()
            if ":" in line
        )
        flags = [
            name
            for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8")
            if name in fields.get("flags", "").split()
        ]
        where = f"family {fields.get('cpu family')} model {fields.get('model')}"
        return f"{fields.get('model name', platform.machine())} ({where}; {' '.join(flags)})"
    return platform.processor() or platform.machine()


def _commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"
