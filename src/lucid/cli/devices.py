"""``lucid devices``: boards with a microcontroller, and what they have."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from lucid.cli.terminal import console


@click.command("devices")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the source of each row.")
def command(as_json: bool) -> None:
    """List boards that lucid export --format c --board NAME knows.

    Flash is that of the whole board, RAM what lies in one piece; the clock is the highest. A board
    that is not here runs an export too: any C99 compiler will do.
    """
    from rich.table import Table

    from lucid.exporters.c.boards import boards

    if as_json:
        click.echo(json.dumps([asdict(board) for board in boards().values()], indent=2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "board", "core"):
        table.add_column(title)
    for title in ("MHz", "flash KiB", "RAM KiB"):
        table.add_column(title, justify="right")
    for board in boards().values():
        numbers = (board.clock_mhz, board.flash_kib, board.ram_kib)
        table.add_row(board.name, board.title, board.core, *(f"{value:,}" for value in numbers))
    console().print(table)
