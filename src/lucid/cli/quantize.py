"""``lucid quantize``: a checkpoint becomes an int8 network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli.terminal import console, printable, say, track

if TYPE_CHECKING:
    from lucid.checkpoint import Checkpoint
    from lucid.data.samples import Dataset
    from lucid.network import Int8Network
    from lucid.quantization.comparison import Comparison
    from lucid.quantization.images import LoadedImages

_IMAGES = 256
_MAX_COMPARED = 2000
_LAYERS_SHOWN = 3
_FEW_IMAGES = 16


@click.command("quantize")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--calibrate",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Pictures such as the network will see; labels are not needed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Network to write; by default beside CHECKPOINT, with the suffix .int8.safetensors.",
)
@click.option(
    "--images", default=_IMAGES, show_default=True, metavar="N", help="Pictures to calibrate on."
)
@click.option(
    "--finetune",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Then train in int8 on these photos, to answer as the float model does.",
)
@click.option("--epochs", type=int, help="Passes over the photos of --finetune; 2.")
@click.option("--seed", default=0, show_default=True, help="Of what is random, such as the choice.")
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Labelled photos to compare float and int8 on; by default what is left of the other DATA.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write one self-contained page with the worst pictures.",
)
def command(
    checkpoint: Path,
    calibrate: Path,
    out: Path | None,
    images: int,
    finetune: Path | None,
    epochs: int | None,
    seed: int,
    evaluate: Path | None,
    as_json: bool,
    report: Path | None,
) -> None:
    """Round a checkpoint to an int8 network, and tell what that costs.

    Weights and scales are fitted to a few hundred pictures of DATA: a folder of pictures or of
    class folders, a manifest or an archive. Pictures that validated the checkpoint are never among
    them; float and int8 are compared on those, or else on others that were not used. With
    --finetune the rounded network is trained for a few minutes, which regains most of what it lost.
    """
    from lucid.checkpoint import read_checkpoint
    from lucid.engine import Engine
    from lucid.errors import CheckpointError, DataError
    from lucid.files import check_keeps, check_writable_folder, write_text
    from lucid.lowering import lower
    from lucid.network import write_network
    from lucid.quantization import compare, quantise_calibrated
    from lucid.quantization.images import affordable, load_images, open_pictures, ranked
    from lucid.quantization.report import report as page

    if epochs is not None and finetune is None:
        raise click.UsageError("--epochs goes with --finetune")
    out = out or checkpoint.with_suffix(".int8.safetensors")
    source = read_checkpoint(checkpoint)
    if source.provenance.get("classifier") is False:
        raise CheckpointError(
            f"{checkpoint}: has no classifier yet; fine-tune it first: "
            f"lucid train DATA --weights {checkpoint}"
        )
    for path in (out, report):
        if path is not None:
            check_keeps(path, checkpoint)
            check_writable_folder(path.parent)
    if finetune is not None:
        from lucid.training.quantisation import check_finetuning

        check_finetuning(source, finetune, epochs=epochs, seed=seed)
    network = lower(source)
    dataset = _with_split(open_pictures(calibrate), source)
    unseen = [one for one in dataset.samples if one.split in (None, "train")]
    if not unseen:
        raise DataError(
            f"{calibrate}: all its pictures are for validation or test; calibrate on others"
        )
    count = affordable(network, images)
    chosen = load_images(dataset, ranked(dataset, unseen, seed=seed), source.preprocessing, count)
    _say_unreadable(chosen)
    compared, labelled, what = _to_compare(source, dataset, chosen, evaluate)
    used = len(chosen.samples)
    say(f"calibrating on {used:,} image{'s' if used > 1 else ''}, comparing on {what}")
    if used < _FEW_IMAGES:
        say("so few images hardly show what the network will see; take a hundred", "warning")

    quantised = quantise_calibrated(
        network, chosen.pixels, track=lambda layers: track(layers, "Rounding layers")
    )
    if finetune is not None:
        quantised = _finetuned(quantised, source, finetune, epochs, seed)
    comparison = compare(
        network,
        quantised,
        compared.pixels,
        [one.label for one in compared.samples] if labelled else None,
        executor=Engine,
        track=lambda batches: track(batches, "Comparing"),
    )
    quantised = replace(
        quantised,
        metrics=comparison.metrics(),
        provenance={**quantised.provenance, "calibration": {**chosen.to_json(), "seed": seed}},
    )
    write_network(out, quantised)
    sizes = checkpoint.stat().st_size, out.stat().st_size
    if report is not None:
        description = (
            f"{checkpoint}, rounded to int8 with {used:,} images of {calibrate}; "
            f"both measured on {what}."
        )
        title = f"Quantising {checkpoint.name}"
        html = page(
            comparison, compared, quantised, title=title, description=description, sizes=sizes
        )
        write_text(report, html)
        say(f"the report is {report}")
    if as_json:
        origin = {"checkpoint": str(checkpoint), "out": str(out), "compared_on": what}
        click.echo(json.dumps(origin | comparison.to_json() | {"bytes": sizes}, indent=2))
    else:
        _print(comparison, sizes, out)


def _finetuned(
    quantised: Int8Network, source: Checkpoint, data: Path, epochs: int | None, seed: int
) -> Int8Network:
    from lucid.cli.display import training_display
    from lucid.training.quantisation import finetune

    with training_display() as progress:
        return finetune(quantised, source, data, epochs=epochs, seed=seed, progress=progress)


def _with_split(dataset: Dataset, source: Checkpoint) -> Dataset:
    """The data with the validation part that the checkpoint remembers of it."""
    from lucid.evaluation.selection import with_remembered_split

    if "recipe" in source.provenance and not source.provenance.get("validation"):
        say("the checkpoint doesn't say which pictures validated it; some may be used", "warning")
    return with_remembered_split(dataset, source.provenance)[0]


def _to_compare(
    source: Checkpoint, dataset: Dataset, chosen: LoadedImages, evaluate: Path | None
) -> tuple[LoadedImages, bool, str]:
    """The pictures to compare on, whether their labels are the network's, and what they are."""
    from lucid.data.sources import open_data
    from lucid.errors import DataError
    from lucid.evaluation.selection import select_samples
    from lucid.quantization.images import load_images, ranked

    used = {one.path.resolve() for one in chosen.samples}
    labelled = evaluate is not None or (
        bool(dataset.splits & {"validation", "test"})
        and set(dataset.class_names) <= set(source.class_names)
    )
    if labelled:
        dataset = open_data(evaluate) if evaluate is not None else dataset
        selection = select_samples(dataset, source.class_names, source.provenance)
        samples, what = selection.samples, selection.description
    else:
        samples = tuple(one for one in dataset.samples if one.path.resolve() not in used)
        what = "pictures that were not used, without labels"
        if not samples:
            samples, what = chosen.samples, "the same, as there are no others"
    try:
        order = ranked(dataset, samples)
        compared = load_images(dataset, order, source.preprocessing, _MAX_COMPARED)
    except DataError:
        if labelled:
            raise
        return chosen, False, "the same, as no other can be read"
    _say_unreadable(compared)
    seen = sum(one.path.resolve() in used for one in compared.samples)
    if evaluate is not None and seen:
        what += f", {seen:,} of them those of calibration"
    return compared, labelled, f"{len(compared.samples):,} images, {what}"


def _say_unreadable(images: LoadedImages) -> None:
    for message in images.unreadable:
        say(f"left out: {message}", "warning")


def _print(comparison: Comparison, sizes: tuple[int, int], out: Path) -> None:
    from rich.table import Table

    from lucid.quantization.report import summary

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("float", "int8"):
        table.add_column(name, justify="right")
    for row in summary(comparison, sizes):
        table.add_row(*row)
    console().print(table)
    weakest = sorted(comparison.layers, key=lambda layer: layer.decibels)[:_LAYERS_SHOWN]
    names = ", ".join(f"{layer.name} {layer.decibels:.1f} dB" for layer in weakest)
    console().print(printable(f"noisiest layers: {names}"))
    console().print(printable(f"{out} is written"))
