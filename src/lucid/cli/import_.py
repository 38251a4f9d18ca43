"""``lucid import``: published weights become a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lucid.cli.terminal import console, printable, say


def _numbers(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    """Numbers between commas."""
    try:
        return None if text is None else tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no list of numbers such as 0.5,0.5,0.5", ctx, parameter
        ) from error


@click.command("import")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="model.safetensors",
    show_default=True,
    metavar="FILE",
    help="Checkpoint to write.",
)
@click.option("--labels", metavar="FILE", help="Class names, one a line; else those of SOURCE.")
@click.option(
    "--resolution", type=int, metavar="N", help="Input side in pixels; else that of SOURCE."
)
@click.option("--crop-fraction", type=float, help="Share of the shorter side that is kept; 0.875.")
@click.option(
    "--mean",
    callback=_numbers,
    metavar="NUMBERS",
    help="Of pixel / 255, one a channel: 0.5,0.5,0.5.",
)
@click.option(
    "--std",
    callback=_numbers,
    metavar="NUMBERS",
    help="Of pixel / 255, one a channel: 0.5,0.5,0.5.",
)
@click.option(
    "--calibrate",
    metavar="FOLDER",
    help="Pictures to measure batch-norm statistics on, where SOURCE has none.",
)
def command(source: str, out: Path, **options: Any) -> None:
    """Turn published MobileNet-V1 weights into a checkpoint that computes the same.

    SOURCE is a LiteRT file (.tflite), float or quantised; a PyTorch state dict of lucid's model or
    of timm (.safetensors, .pth); a Keras model (.keras, .h5); a folder with the config.json and the
    weights of transformers or timm; or the name of such a model on Hugging Face's hub, such as
    google/mobilenet_v1_0.75_192. What it is, is recognised from its content; a network that is no
    MobileNet-V1 is refused with the layer that differs.
    """
    from lucid.checkpoint import write_checkpoint
    from lucid.files import check_keeps, check_writable_folder
    from lucid.importers import import_weights
    from lucid.importers.folders import WEIGHTS

    check_keeps(out, source, *(Path(source) / name for name in WEIGHTS))
    check_writable_folder(out.parent)
    checkpoint = import_weights(source, **options)
    write_checkpoint(out, checkpoint)
    arguments, preprocessing = checkpoint.arguments, checkpoint.preprocessing
    classes = f"{arguments.num_classes} classes"
    # What lucid trained itself says neither this nor what is assumed.
    if checkpoint.provenance.get("classifier") is False:
        classes = "no classifier: for fine-tuning"
    console().print(
        printable(
            f"{out}: width {arguments.width_multiplier:g}, resolution {preprocessing.resolution}, "
            f"{classes}"
        )
    )
    assumed = checkpoint.provenance.get("assumed", [])
    assert isinstance(assumed, list)
    for name in map(str, assumed):
        value = ",".join(f"{number:g}" for number in getattr(preprocessing, name))
        say(f"{source} doesn't say the {name} of its pixels; taken: --{name} {value}", "warning")
