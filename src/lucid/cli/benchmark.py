"""``lucid benchmark``: how fast a checkpoint runs, beside the runtimes one would use instead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lucid.cli.terminal import console, say, track
from lucid.errors import ConfigError, MissingDependencyError, suggest

if TYPE_CHECKING:
    from rich.table import Table

    from lucid.benchmark.measure import Comparison, Measurement
    from lucid.benchmark.peers import Candidate
    from lucid.images import Pixels
    from lucid.network import FloatNetwork

_CALIBRATION = 32
_PHOTOS = 200  # at most, on which answers are compared
_BUSY = 0.5  # of a program for each core, beyond which figures are doubtful


@click.command("benchmark")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="NAMES",
    help="Runtimes to measure beside lucid, with commas between: torch, torch-compile, onnxruntime,"
    " openvino, openvino-qdq, litert, ncnn, all or none. By default those installed, without"
    " torch-compile, which takes minutes to prepare.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="NAMES",
    default="float32,bfloat16,int8",
    show_default=True,
    help="Of float32, bfloat16, int8, float32-split.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Of each runtime.",
)
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images in a call."
)
@click.option(
    "--resolution",
    type=click.IntRange(1, 8192),
    metavar="N",
    help="Input side in pixels; that of the checkpoint if not given.",
)
@click.option(
    "--isa",
    metavar="NAME",
    help="Limit all to an instruction set: avx2 or avx512vnni. Runtimes that can't be"
    " limited are left out.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Photos to calibrate int8 and to compare answers on: a folder, a manifest or an archive."
    " Without it, random pictures like photos.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    metavar="N",
    help="Turns that each runtime gets.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    checkpoint: Path,
    against: str | None,
    precisions: str,
    threads: int,
    batch: int,
    resolution: int | None,
    isa: str | None,
    data: Path | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure how fast CHECKPOINT runs, in lucid's engine and in other runtimes.

    All are prepared first, each in a process of its own, then measured in turn, round after round,
    on pictures like photos. A time is that of a call on images that are already in memory as the
    runtime wants them; lucid's includes normalising the bytes. Agreement is the share of pictures
    on which a runtime gives the label that float32 arithmetic gives. The peak is what the CPU's
    best instruction for a precision can do, measured in the same rounds.
    """
    from dataclasses import replace

    from lucid.benchmark.machine import busy, describe
    from lucid.benchmark.measure import compare, workload
    from lucid.checkpoint import read_checkpoint
    from lucid.lowering import lower

    candidates = list(_candidates(against, precisions, threads, isa))
    network = lower(read_checkpoint(checkpoint))
    if resolution is not None:
        preprocessing = replace(network.preprocessing, resolution=resolution)
        network = replace(network, preprocessing=preprocessing)
    photos = _photos(network, data, _CALIBRATION + _PHOTOS)
    load = busy()
    if load is not None and load > _BUSY:
        say(f"the machine is busy ({load:.1f} programs a core), which blurs the times", "warning")
    say("calibrating int8 and computing the answers to compare with")
    comparison = compare(
        workload(network, photos[:_CALIBRATION], batch=batch),
        candidates,
        photos[_CALIBRATION:],
        rounds=rounds,
        track=lambda items: track(items, "Preparing"),
    )
    for name, message in comparison.failures.items():
        say(f"{name} is left out: {message.removeprefix(f'{name}: ')}", "warning")
    machine = describe(
        ("lucid-mobilenet", "torch", "onnxruntime", "openvino", "ai-edge-litert", "ncnn")
    )
    if as_json:
        click.echo(json.dumps({"machine": machine} | comparison.to_json(), indent=2))
        return
    _print(comparison, batch)
    for key, value in machine.items():
        say(f"{key}: {value}")


def _candidates(
    against: str | None, precisions: str, threads: int, isa: str | None
) -> Iterator[Candidate]:
    """What to measure, lucid first; what is not installed is said."""
    from lucid.benchmark.peers import ISAS, PEERS, PRECISIONS, Candidate

    chosen = _names("--precision", precisions, PRECISIONS)
    if isa is not None:
        _names("--isa", isa, ISAS)
    others = [name for name in PEERS if name != "lucid"]
    if against in (None, "all"):
        names = [name for name in others if against or name != "torch-compile"]
    else:
        names = [] if against == "none" else list(_names("--against", against or "", others))
    for name in ["lucid", *names]:
        peer = PEERS[name]
        if missing := peer.missing():
            message = (
                f"{name} is not measured: it needs {', '.join(missing)}; "
                "run: pip install 'lucid-mobilenet[benchmark]'"
            )
            if against not in (None, "all"):
                raise MissingDependencyError(message)
            say(message, "warning")
            continue
        if isa is not None and isa not in peer.isas:
            say(f"{name} is left out: it can't be limited to {isa}", "warning")
            continue
        yield from (
            Candidate(name, precision, threads, isa)
            for precision in chosen
            if precision in peer.precisions
        )


def _names(option: str, text: str, known: Iterable[str]) -> Sequence[Any]:
    """The names in a list with commas, each once."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            near = suggest(name, known) or f"; one of {', '.join(known)}"
            raise ConfigError(f"{option}: there is no {name!r}{near}")
    return names


def _photos(network: FloatNetwork, data: Path | None, count: int) -> Pixels:
    """Pictures as the network takes them, uint8 (N, resolution, resolution, C)."""
    import numpy as np

    from lucid.benchmark.samples import photo_like
    from lucid.data.sources import open_data
    from lucid.errors import DataError, ImageError
    from lucid.images import load

    preprocessing = network.preprocessing
    side = preprocessing.resolution
    if data is None:
        return photo_like(2 * _CALIBRATION, side, side, channels=preprocessing.channels, seed=2)
    samples = open_data(data).samples
    # Evenly from all of them: samples are in the order of the classes.
    picked = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    found = []
    for index in np.random.default_rng(0).permutation(picked):
        try:
            found.append(load(samples[index].path, preprocessing))
        except ImageError as error:
            say(f"left out: {error}", "warning")
    if len(found) <= _CALIBRATION:
        raise DataError(
            f"{data}: {len(found)} photos are too few; {_CALIBRATION} are for calibrating int8, "
            "and answers are compared on others"
        )
    return np.stack(found)


def _print(comparison: Comparison, batch: int) -> None:
    output = console()
    output.print(_table(comparison, batch))
    for line in _summary(comparison):
        output.print(line)


def _table(comparison: Comparison, batch: int) -> Table:
    from rich.table import Table

    ours = [one for one in comparison.measurements if one.candidate.peer == "lucid"]
    table = Table("runtime", "precision", box=None, header_style="bold", pad_edge=False)
    for title in ("ms", "spread", "images/s", "of peak", "agreement", "largest difference"):
        table.add_column(title, justify="right")
    for one in ours:
        table.add_column(f"lucid {one.candidate.precision} is", justify="right")
    for one in comparison.measurements:
        low, high = min(one.turns), max(one.turns)
        ratios = [f"{mine.times_as_fast_as(one):.2f}x" if mine is not one else "" for mine in ours]
        table.add_row(
            one.candidate.peer,
            one.candidate.precision,
            f"{1e3 * one.seconds:.3f}",
            f"{1e3 * low:.3f} to {1e3 * high:.3f}",
            f"{batch / one.seconds:,.0f}",
            "" if one.share is None else f"{one.share:.0%}",
            f"{one.agreement:.1%}",
            f"{one.difference:.2g}",
            *ratios,
        )
    return table


def _summary(comparison: Comparison) -> Iterator[str]:
    """lucid against the fastest other, at each precision and at any."""
    for mine in comparison.measurements:
        if mine.candidate.peer != "lucid":
            continue
        precision = mine.candidate.precision
        yield f"lucid {precision}: {_against(comparison, mine)}"


def _against(comparison: Comparison, mine: Measurement) -> str:
    def describe(other: Measurement | None, what: str) -> str | None:
        if other is None:
            return None
        ratio = mine.times_as_fast_as(other)
        return f"{ratio:.2f} times as fast as {other.candidate}, the fastest {what}"

    precision = mine.candidate.precision
    same = comparison.fastest(lambda one: one.peer != "lucid" and one.precision == precision)
    every = comparison.fastest(lambda one: one.peer != "lucid")
    parts = [describe(same, f"other in {precision}"), describe(every, "other of all")]
    return "; ".join(part for part in parts if part) or "nothing to compare with"
