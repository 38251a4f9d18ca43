"""Top-1 of the default recipe: several seeds, one split, curves and time.

    python benchmarks/accuracy.py DATA --out runs/accuracy [--width 0.25] [--resolution 128]
    python benchmarks/accuracy.py DATA --out runs/fine-tuned --weights model.safetensors
    python benchmarks/accuracy.py DATA --out runs/distilled --weights ... --teacher ...

A seed whose run in --out is finished is not trained again; one that was cut off goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import matplotlib
from machine import RESULTS, describe, write_results

from lucid.checkpoint import read_header
from lucid.training import TrainingResult, train

matplotlib.use("Agg")
from matplotlib import pyplot

BLUE, ORANGE = "#3987d6", "#e0792f"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=float)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--weights", type=Path, help="start from this checkpoint")
    parser.add_argument("--teacher", type=Path, help="learn from this checkpoint")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()

    runs = {seed: _run(options, seed) for seed in options.seeds}
    model = read_header(runs[options.seeds[0]].checkpoint)
    width, resolution = model.arguments.width_multiplier, model.preprocessing.resolution
    start = "from scratch" if options.weights is None else f"from {options.weights.stem}"
    name = "-".join(["accuracy", options.data.name, f"{width:g}", str(resolution)])
    if options.weights is not None:
        name += f"-from-{options.weights.stem}"
    if options.teacher is not None:
        teacher = read_header(options.teacher)
        name += "-taught"
        start += (
            f", taught by width {teacher.arguments.width_multiplier:g} at "
            f"{teacher.preprocessing.resolution} ({teacher.metrics['validation_top1']:.2%})"
        )
    _draw(runs, RESULTS / f"{name}.svg")
    results = {
        seed: {
            "top1": run.top1,
            "seconds": run.rows[-1].seconds,
            "epochs": len(run.rows),
            "best_epoch_top1": max(row.validation_top1 for row in run.rows),
        }
        for seed, run in runs.items()
    }
    title = f"Top-1 {start} on {options.data.name}: width {width:g}, resolution {resolution}"
    page = _page(title, results, name)
    write_results(name, describe("torch", "pillow"), results, page)


def _run(options: argparse.Namespace, seed: int) -> TrainingResult:
    folder = options.out / f"seed-{seed}"
    if (folder / "state.safetensors").exists():
        return train(options.data, out=folder, resume=True)
    return train(
        options.data,
        width=options.width,
        resolution=options.resolution,
        weights=options.weights,
        teacher=options.teacher,
        out=folder,
        recipe={"seed": seed},
    )


def _draw(runs: dict[int, TrainingResult], path: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for run in runs.values():
        epochs = [row.epoch for row in run.rows]
        for axes, quantity in ((left, "loss"), (right, "top1")):
            for side, colour in (("train", BLUE), ("validation", ORANGE)):
                values = [getattr(row, f"{side}_{quantity}") for row in run.rows]
                axes.plot(epochs, values, color=colour, linewidth=1, alpha=0.7)
    left.set(title="Loss", xlabel="epoch", ylim=(0, 2))
    right.set(title="Top-1", xlabel="epoch")
    right.yaxis.set_major_formatter("{x:.0%}")
    right.legend(["train (augmented)", "validation"], frameon=False, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def _page(title: str, results: dict[int, dict[str, float]], name: str) -> str:
    top1 = [result["top1"] for result in results.values()]
    rows = [
        f"| {seed} | {result['top1']:.2%} | {result['best_epoch_top1']:.2%} "
        f"| {result['seconds'] / 60:.1f} |"
        for seed, result in results.items()
    ]
    spread = f", standard deviation {statistics.stdev(top1):.2%}" if len(top1) > 1 else ""
    return "\n".join(
        [
            f"# {title}",
            "",
            "The default recipe; one split (split_seed 0, 80/20, duplicates on one side). Top-1 is "
            "that of the last epoch: no epoch was chosen by its validation result.",
            "",
            f"**Mean {statistics.mean(top1):.2%}**{spread}.",
            "",
            "| seed | top-1, last epoch | best epoch, for comparison | minutes |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"![Curves of all seeds]({name}.svg)",
        ]
    )


if __name__ == "__main__":
    main()
