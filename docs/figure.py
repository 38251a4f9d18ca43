"""Draws docs/_static/demo.png, the picture of the README, from what ``make demo`` left.

Usage: python docs/figure.py [FOLDER], by default runs/demo.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import lucid

ROWS, COLUMNS = 3, 8
GREEN, RED, GREY = "#2f855a", "#c53030", "#4a5568"


def main(folder: Path) -> None:
    run, data = folder / "model", folder / "digits"
    classifier = lucid.load(run / "model.safetensors")
    unseen = [data / name for name in json.loads((run / "split.json").read_text())["validation"]]
    guesses = [answer.labels[0] for answer in classifier.predict(unseen, top=1)]
    is_right = [name == path.parent.name for (name, _), path in zip(guesses, unseen, strict=True)]
    # Mistakes are rare: one comes last, or the least certain; the others evenly over the classes.
    last = min(range(len(unseen)), key=lambda index: (is_right[index], guesses[index][1]))
    chosen = np.linspace(0, len(unseen) - 1, ROWS * COLUMNS - 1).astype(int)
    with (run / "log.csv").open(newline="") as file:
        top1 = [100 * float(row["validation_top1"]) for row in csv.DictReader(file)]

    figure = plt.figure(figsize=(11, 3.6), layout="constrained", dpi=100)
    left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
    axes = left.subplots(ROWS, COLUMNS).flat
    for axis, index in zip(axes, [*chosen, last], strict=True):
        name, probability = guesses[index]
        axis.imshow(Image.open(unseen[index]), cmap="gray_r")
        color = GREEN if is_right[index] else RED
        axis.set_title(f"{name}  {probability:.0%}", fontsize=10, color=color, weight="bold")
        axis.axis("off")
    axis = right.subplots()
    axis.plot(range(1, len(top1) + 1), top1, color=GREEN, linewidth=2)
    axis.set(xlabel="epoch", ylabel="top-1, %", ylim=(0, 103))
    axis.set_title(f"{len(unseen)} digits set aside: {top1[-1]:.1f}%", fontsize=10, color=GREY)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    figure.savefig(Path(__file__).parent / "_static" / "demo.png", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
