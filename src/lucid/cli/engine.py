"""``lucid engine``: what the native engine computes with on this machine."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from lucid.cli.terminal import console, printable, say

_VARIABLE = "LUCID_ISA"


@click.command("engine")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(as_json: bool) -> None:
    """Show the instruction sets that the engine can use.

    For each precision they are listed best first. The first that this CPU has is taken, unless the
    variable LUCID_ISA names another.
    """
    from lucid.benchmark.machine import describe

    machine = describe()
    found = {
        "cpu": machine["cpu"],
        "system": machine["system"],
        "threads": int(machine["cores"]),
        _VARIABLE: os.environ.get(_VARIABLE) or None,
        "precisions": _precisions(),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


def _precisions() -> list[dict[str, Any]]:
    """Each precision with its instruction sets, best first, and the one that is taken."""
    from lucid.engine import PRECISIONS, isas

    forced = os.environ.get(_VARIABLE)
    found = []
    for precision in PRECISIONS:
        runnable = isas(precision)
        candidates = [isa for isa in runnable if not forced or isa == forced]
        found.append(
            {
                "precision": precision,
                "chosen": candidates[0] if candidates else None,
                "instruction_sets": [
                    {"name": isa, "runs_here": isa in runnable}
                    for isa in isas(precision, runnable=False)
                ],
            }
        )
    return found


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("precision", "instruction set", "on this CPU"):
        table.add_column(title)
    for one in found["precisions"]:
        name = one["precision"]
        for isa in one["instruction_sets"]:
            state = "yes, chosen" if isa["name"] == one["chosen"] else "yes"
            table.add_row(name, isa["name"], state if isa["runs_here"] else "no")
            name = ""  # once for each precision
    console().print(table)
    forced = found[_VARIABLE]
    click.echo(f"cpu: {printable(found['cpu'])}")
    click.echo(f"threads: {found['threads']}")
    click.echo(f"{_VARIABLE}: {printable(forced) if forced else 'not set'}")
    lacking = [one["precision"] for one in found["precisions"] if one["chosen"] is None]
    if forced and lacking:
        say(f"with {_VARIABLE} set to {forced!r} nothing here runs {', '.join(lacking)}", "warning")
