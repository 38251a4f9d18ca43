"""``lucid chart``: a model as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.terminal import say
from lucid.errors import ConfigError, suggest

if TYPE_CHECKING:
    from lucid.architecture import MobileNetArguments
    from lucid.visual.mermaid import Direction

_WIDTH = 1.0
_RESOLUTION = 224


@click.command("chart")
@click.argument("model", metavar="MODEL")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A .mmd, .md, .html, .svg or .png file. Without it the Mermaid text is printed.",
)
@click.option("--width", "width_multiplier", type=float, help=f"Width multiplier; {_WIDTH}.")
@click.option(
    "--resolution",
    type=click.IntRange(min=1),
    help=f"Input side in pixels; {_RESOLUTION}, or that of the checkpoint.",
)
@click.option("--classes", "num_classes", type=int, help="Number of classes; 1000.")
@click.option("--last-stride", type=int, help="Stride of the last depthwise layer; 2.")
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
    import torch

    from lucid.models import MobileNet
    from lucid.visual import build_module_mermaid_chart, write_chart

    arguments, own_resolution = _arguments(
        model, {name: value for name, value in given.items() if value is not None}
    )
    side = resolution or own_resolution
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


def _arguments(model: str, given: dict[str, Any]) -> tuple[MobileNetArguments, int]:
    """The arguments and the resolution of a registered name or of a checkpoint."""
    from lucid.architecture import MobileNetArguments
    from lucid.checkpoint import read_header
    from lucid.models import MODELS

    if model in MODELS:
        return MobileNetArguments(**({"width_multiplier": _WIDTH} | given)), _RESOLUTION
    if not Path(model).exists():
        near = suggest(model, MODELS) or f"; models: {', '.join(MODELS)}"
        raise ConfigError(f"there is no model and no file {model!r}{near}")
    if given:
        raise ConfigError(f"{model}: a checkpoint has its own {', '.join(given)}; leave that out")
    header = read_header(model)
    return header.arguments, header.preprocessing.resolution
