"""The demo: handwritten digits, from a folder of images to a prediction, by lucid's own commands.

Usage: python examples/digits.py [FOLDER], by default runs/demo. It takes about two minutes on two
cores. The 1,797 digits ship with scikit-learn (Alpaydin and Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from lucid.checkpoint import read_header

RECIPE = Path(os.path.relpath(__file__)).with_suffix(".toml")
SIDE = 32
EXPECTED_TOP1 = 0.98

NEXT = """
With photos of your own, one folder for each class ("source .venv/bin/activate" first finds lucid):

  lucid audit photos --html audit.html
  lucid train photos --out runs/photos
  lucid evaluate runs/photos/model.safetensors photos --report report.html
  lucid predict runs/photos/model.safetensors new.jpg
"""


def write_digits(folder: Path) -> None:
    """Write each digit as a PNG of 32x32 pixels into the folder of its class."""
    digits = load_digits()
    for number, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.uint8(values * (255 / 16))  # (8, 8); the data set counts from 0 to 16
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(place / f"{number:04}.png")


def lucid(*arguments: str | Path) -> None:
    """Show a command as one would type it, and run it."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ lucid {shlex.join(words)}", flush=True)
    result = subprocess.run([sys.executable, "-m", "lucid", *words], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def main(folder: Path) -> None:
    """Run the demo in ``folder``; exits with an error when the digits are not learnt."""
    # Pictures this small gain nothing from more threads, which lose much where other programs run.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    data, run = folder / "digits", folder / "model"
    model = run / "model.safetensors"
    write_digits(data)
    print(f"1,797 handwritten digits are in {data}, one folder for each digit.")

    lucid("audit", data, "--resolution", str(SIDE), "--html", folder / "audit.html")
    lucid(
        *("train", data, "--width", "0.25", "--resolution", str(SIDE)),
        *("--config", RECIPE, "--out", run),
    )
    lucid("evaluate", model, data, "--report", folder / "report.html")
    unseen = json.loads((run / "split.json").read_text())["validation"]
    lucid("predict", model, data / unseen[0])
    lucid("chart", model, "--out", folder / "chart.html")

    top1 = read_header(model).metrics["validation_top1"]
    print(f"\n{top1:.1%} of the digits set aside are named correctly, ", end="")
    print(f"after {time.monotonic() - started:.0f} seconds.")
    print(f"Open {folder}/report.html (mistakes), audit.html (the data), chart.html (the network).")
    print(NEXT, end="")
    if top1 < EXPECTED_TOP1:
        sys.exit(f"expected at least {EXPECTED_TOP1:.0%}; please report this")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
