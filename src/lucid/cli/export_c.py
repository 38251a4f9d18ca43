"""What ``lucid export --format c`` does: C sources for microcontrollers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.terminal import console, printable, say, track

if TYPE_CHECKING:
    from lucid.exporters.c import CExport
    from lucid.exporters.c.boards import Board
    from lucid.images import Pixels
    from lucid.network import Int8Network

_BATCH = 64


def export_c(
    source: Path,
    *,
    out: Path | None,
    prefix: str,
    board_name: str | None,
    resolution: int | None,
    pictures: Callable[[Int8Network], tuple[Pixels, str]] | None,
    must_verify: bool,
    as_json: bool,
) -> None:
    """Write the sources of a network to a folder, once they have proved to give its bytes.

    Args:
        pictures: gives those to verify on, of which the first goes into the examples, and says what
            they are; None for no verification.
        must_verify: whether a compiler that is missing is an error.
    """
    from lucid.errors import MissingDependencyError
    from lucid.exporters.c import to_c
    from lucid.exporters.c.boards import find_board
    from lucid.exporters.c.export import check_replaceable
    from lucid.exporters.c.host import find_compiler
    from lucid.exporters.exported import open_network

    folder = out or source.with_name(f"{source.stem}-c")
    board = find_board(board_name) if board_name else None
    check_replaceable(folder)
    exported = to_c(open_network(source, resolution), prefix=prefix)
    found: dict[str, Any] = {"folder": str(folder), **_memory(exported)}
    if board is not None:
        found["board"] = _check_board(exported, board)
    compiler = None
    if pictures is not None:
        try:
            compiler = find_compiler()
        except MissingDependencyError as error:
            if must_verify:
                raise
            say(f"not verified: {error}", "warning")
    if compiler and pictures:
        pixels, what = pictures(exported.network)
        exported = to_c(exported.network, prefix=prefix, image=pixels[0])
        found["verified"] = _verify(exported, pixels, compiler) | {"images": what}
    exported.write(folder)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(exported, found)


def _memory(exported: CExport) -> dict[str, Any]:
    from lucid.exporters.c.boards import code_bytes
    from lucid.exporters.c.source import STACK_BYTES, layer_const_bytes

    plan = exported.plan
    return {
        "flash": {
            "weights": exported.const_bytes,
            "tables": exported.table_bytes,
            "code": code_bytes(),
        },
        "ram": {
            "state": plan.state_bytes,
            "stack": STACK_BYTES,
            "logits": plan.logits_bytes,
            "image": plan.image_bytes,
            "in_all_by_rows": exported.row_ram_bytes,
            "in_all_with_image": exported.image_ram_bytes,
        },
        "layers": [
            {
                "name": layer.name,
                "flash": layer_const_bytes(layer),
                "ram": used,
                "peak": index == plan.peak,
            }
            for index, (layer, used) in enumerate(zip(plan.layers, plan.layer_bytes, strict=True))
        ],
    }


def _check_board(exported: CExport, board: Board) -> dict[str, Any]:
    from lucid.exporters.c.boards import check_fits, code_bytes, latency, need

    flash = exported.const_bytes + exported.table_bytes + code_bytes()[board.core]
    verdict = check_fits(
        board,
        need(exported.plan, flash),
        class_names=exported.network.class_names,
        resolution=exported.network.preprocessing.resolution,
    )
    seconds = latency(board, exported.plan.layers)
    return {
        "name": board.name,
        "core": board.core,
        "code": code_bytes()[board.core],
        "flash": flash,
        "fit": verdict,
        "seconds": seconds,
        "latency": _latency(seconds),
    }


def _verify(exported: CExport, pixels: Pixels, compiler: list[str]) -> dict[str, Any]:
    import numpy as np

    from lucid import reference
    from lucid.errors import NetworkError
    from lucid.exporters.c.host import run

    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    wanted = np.concatenate(
        [reference.run(exported.network, batch) for batch in track(batches, "Reference")]
    )
    logits = run(exported, pixels, compiler=compiler)
    differing = int((logits.view(np.uint32) != wanted.view(np.uint32)).any(axis=1).sum())
    if differing:
        raise NetworkError(
            f"the C export differs from the reference on {differing} of {len(pixels)} images when "
            f"compiled by {compiler[0]}; nothing is written"
        )
    return {"compiler": compiler[0], "count": len(pixels)}


def _print(exported: CExport, found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer")
    table.add_column("bytes of flash", justify="right")
    table.add_column("bytes of RAM", justify="right")
    table.add_column()
    for layer in found["layers"]:
        mark = "peak" if layer["peak"] else ""
        style = "bold" if layer["peak"] else None
        sizes = (f"{layer[kind]:,}" for kind in ("flash", "ram"))
        table.add_row(layer["name"], *sizes, mark, style=style)
    console().print(table)
    flash, ram = found["flash"], found["ram"]
    board = found.get("board")
    if board:
        code = f"{board['code']:,}: {board['flash']:,} bytes on {board['core']}"
    else:
        code = ", ".join(f"{size:,} on {name}" for name, size in flash["code"].items()) + " bytes"
    click.echo(f"flash: weights {flash['weights']:,}, tables {flash['tables']:,}, code {code}")
    click.echo(
        f"RAM: state {ram['state']:,}, stack {ram['stack']:,}, logits {ram['logits']:,}: "
        f"{ram['in_all_by_rows']:,} bytes when rows are pushed, {ram['in_all_with_image']:,} with "
        f"the image of {ram['image']:,}"
    )
    if board:
        click.echo(f"board: {board['fit']}")
        click.echo(f"latency: {board['latency']}")
    if "verified" in found:
        verified = found["verified"]
        click.echo(
            f"verified: the reference's bytes on {verified['images']}, whole and by rows, compiled "
            f"by {printable(verified['compiler'])}"
        )
    click.echo(f"{printable(found['folder'])} is written; {exported.prefix}.h says how to use it")


def _latency(seconds: tuple[float, float] | None) -> str:
    if seconds is None:
        return "not estimated: instructions were not counted for this core"
    low, high = (1e3 * each for each in seconds)
    return (
        f"{low:,.0f} to {high:,.0f} ms an image, estimated: instructions a multiply-add counted in "
        "QEMU, cycles an instruction assumed, no waiting for memory"
    )
