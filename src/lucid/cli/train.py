"""``lucid train``."""

from __future__ import annotations

import shlex
from typing import Any

import click

from lucid.cli.display import training_display
from lucid.cli.terminal import console, printable


@click.command("train")
@click.argument("data", metavar="DATA")
@click.option("--width", type=float, help="Width multiplier; 0.25, or that of --weights.")
@click.option("--resolution", type=int, help="Input side in pixels; 128, or that of --weights.")
@click.option(
    "--epochs",
    type=int,
    help="Passes over the photos; 100, with --weights 20; with --teacher 3 times as many.",
)
@click.option(
    "--weights", metavar="SOURCE", help="Start from this: a checkpoint, or what lucid import takes."
)
@click.option("--teacher", metavar="CHECKPOINT", help="Learn from this larger model's answers too.")
@click.option("--out", metavar="DIR", help="Folder of the run; runs/DATA-WIDTH-RESOLUTION.")
@click.option("--config", metavar="FILE", help="TOML file that sets keys of the recipe.")
@click.option("--seed", type=int, help="Of everything random but the split; 0.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", help="auto, cpu, cuda, ...")
def command(data: str, config: str | None, seed: int | None, **options: Any) -> None:
    """Train a MobileNet on DATA: a folder of class folders, a manifest or an archive.

    The run's folder gets model.safetensors, log.csv, tensorboard/, curves.png, recipe.toml,
    split.json and audit.json. Ctrl-C keeps the state; --resume goes on from it.
    """
    from lucid.training import read_recipe, train

    recipe = read_recipe(config) if config is not None else None
    if seed is not None:
        recipe = {**(recipe or {}), "seed": seed}
    with training_display() as progress:
        result = train(data, recipe=recipe, progress=progress, **options)
    output = console()
    output.print(f"{result.checkpoint}: validation top-1 {result.top1:.1%}")
    words = ["lucid", "evaluate", str(result.checkpoint), data, "--report", "report.html"]
    output.print(f"next: {printable(shlex.join(words))}")
