"""The demo: 1,797 handwritten digits, from a folder of images to a prediction, by lucid's commands.

Usage: python examples/digits.py [FOLDER], by default runs/demo. It takes about three minutes on two
cores. The digits ship with scikit-learn (Alpaydin and Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository).
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

RECIPE = Path(__file__).with_suffix(".toml")
EXPECTED_TOP1 = 0.98


def write_digits(folder: Path) -> None:
    """Write each digit as a PNG of 32x32 pixels into the folder of its class."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label) / f"{number:04}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        grey = np.uint8(pixels * (255 / 16))  # (8, 8), 0..16 in the data set
        Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC).save(place)


def lucid(*arguments: str | Path) -> None:
    """Show a command as one would type it, and run it."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ lucid {shlex.join(words)}", flush=True)
    result = subprocess.run([sys.executable, "-m", "lucid", *words], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def main(folder: Path) -> None:
    data, run = folder / "digits", folder / "model"
    model, metrics, report = run / "model.safetensors", folder / "metrics.json", folder / "report.html"
    if not data.exists():
        write_digits(data)
    lucid("audit", data, "--resolution", "32")
    lucid("train", data, "--width", "0.25", "--resolution", "32", "--config", RECIPE, "--out", run)
    lucid("evaluate", model, data, "--json", metrics, "--report", report)
    lucid("predict", model, data / "7" / "0007.png")
    lucid("chart", model, "--out", folder / "chart.html")

    top1 = json.loads(metrics.read_text())["top1"]
    print(f"\nTop-1 {top1:.1%} on digits that training never saw. To look at, in {folder}:")
    print("  report.html   mistakes and where the network looked\n  chart.html    the network")
    print("Next, with your own photos, one folder a class:\n")
    print("  lucid audit photos\n  lucid train photos\n  lucid predict runs/photos/model.safetensors new.jpg")
    if top1 < EXPECTED_TOP1:
        sys.exit(f"the demo expects at least {EXPECTED_TOP1:.0%}: something is wrong")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
