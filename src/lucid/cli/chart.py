"""``lucid chart``: a model as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli.model import find_model, model_options
from lucid.cli.terminal import say
from lucid.errors import ConfigError, require

if TYPE_CHECKING:
    from lucid.visual.mermaid import Direction


@click.command("chart")
@model_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A .mmd, .md, .html, .svg or .png file. Without it the Mermaid text is printed.",
)
@click.option(
    "--collapse/--no-collapse",
    default=True,
    show_default=True,
    help="Show equal neighbours once, or every layer in its true order.",
)
@click.option("--depth", type=int, help="Levels of the module tree; 3, or all with --no-collapse.")
@click.option("--costs", is_flag=True, help="Add parameters and multiply-adds to each node.")
@click.option(
    "--direction", default="LR", show_default=True, help="Of the flowchart: LR, RL, TB or BT."
)
def command(
    model: str,
    out: Path | None,
    resolution: int | None,
    collapse: bool,
    depth: int | None,
    costs: bool,
    direction: Direction,
    **given: float | None,
) -> None:
    """Draw MODEL: mobilenet, or a checkpoint.

    --width, --classes and --last-stride are for a model named; a checkpoint has its own. SVG and
    PNG need an installed browser: Chromium, Chrome or Edge.
    """
    torch = require("torch", extra="train")

    from lucid.models import MobileNet
    from lucid.visual import build_module_mermaid_chart, write_chart

    chosen = find_model(model, resolution, **given)
    arguments, side = chosen.arguments, chosen.resolution
    if arguments is None:
        raise ConfigError(
            f"{model}: a network is a plain list of layers, which 'lucid inspect' shows; give the "
            "checkpoint that it was made from"
        )
    # A chart needs shapes only, so no weight is allocated and nothing is computed.
    with torch.device("meta"):
        module = MobileNet.from_arguments(arguments)
    chart = build_module_mermaid_chart(
        module,
        (1, arguments.in_channels, side, side),
        depth=depth,
        collapse=collapse,
        costs=costs,
        direction=direction,
    )
    if out is None:
        click.echo(chart)
    else:
        write_chart(chart, out, title=f"{Path(model).stem} at {side}x{side}")
        say(f"wrote {out}")
