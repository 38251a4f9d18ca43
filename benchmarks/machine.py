"""What the figures of a benchmark were measured on, and where they are written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lucid.benchmark import machine

RESULTS = Path(__file__).parent / "results"


def describe(*packages: str) -> dict[str, str]:
    """CPU, cores, system, commit and the versions of ``packages``."""
    return machine.describe(packages) | {"commit": _commit()}


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


def _commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"
