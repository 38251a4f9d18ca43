"""What training in int8 gains: `lucid quantize` with and without --finetune, for each checkpoint.

    python benchmarks/finetuning.py flowers runs/*/seed-*/model.safetensors --out runs/finetuned

A network that stands in --out with its result is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from machine import describe, write_results

from lucid.checkpoint import read_header

Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    pairs = [_pair(options, checkpoint) for checkpoint in options.checkpoints]
    results: dict[float, list[tuple[Result, Result]]] = {}
    for checkpoint, pair in zip(options.checkpoints, pairs, strict=True):
        width = read_header(checkpoint).arguments.width_multiplier
        results.setdefault(width, []).append(pair)
    found = {
        str(path): {"rounded": rounded, "finetuned": finetuned}
        for path, (rounded, finetuned) in zip(options.checkpoints, pairs, strict=True)
    }
    name = f"finetuning-{options.data.name}"
    page = _page(options.data.name, results)
    write_results(name, describe("torch", "numpy"), found, page)


def _pair(options: argparse.Namespace, checkpoint: Path) -> tuple[Result, Result]:
    """What `lucid quantize` says of a checkpoint, without and with --finetune."""
    name = "-".join(checkpoint.parts[-3:-1])
    return (
        _quantised(options, checkpoint, f"{name}.ptq"),
        _quantised(options, checkpoint, f"{name}.qat", "--finetune", str(options.data)),
    )


def _quantised(options: argparse.Namespace, checkpoint: Path, name: str, *arguments: str) -> Result:
    out, found = options.out / f"{name}.safetensors", options.out / f"{name}.json"
    if not (out.exists() and found.exists()):
        calibration = ["--calibrate", str(options.data), "--out", str(out), "--json"]
        command = [sys.executable, "-m", "lucid", "quantize", str(checkpoint), *calibration]
        found.write_text(
            subprocess.run(
                [*command, *arguments], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        )
    result: Result = json.loads(found.read_text())
    kept = ("images", "float_top1", "int8_top1", "agreement", "logits_decibels")
    return {key: result[key] for key in kept}


def _page(data: str, results: dict[float, list[tuple[Result, Result]]]) -> str:
    rows = [
        f"| {width:g} | {method} | {_hits(runs, 'float_top1')} | {_hits(runs, 'int8_top1')} "
        f"| {mean(run['float_top1'] - run['int8_top1'] for run in runs) * 100:+.2f} "
        f"| {mean(run['agreement'] for run in runs):.2%} "
        f"| {mean(run['logits_decibels'] for run in runs):.1f} |"
        for width, pairs in sorted(results.items())
        for method, runs in zip(("rounded", "fine-tuned"), zip(*pairs, strict=True), strict=True)
    ]
    return "\n".join(
        [
            f"# Training in int8 on {data}",
            "",
            "Validation photos named rightly, of each checkpoint: by its float model, by the int8 "
            "network of `lucid quantize`, and by that of `lucid quantize --finetune`.",
            "",
            "| width | int8 network | float, hits | int8, hits | points lost, mean "
            "| same class as float | logits, dB |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def _hits(runs: tuple[Result, ...], metric: str) -> str:
    hits = ", ".join(str(round(run[metric] * run["images"])) for run in runs)
    return f"{hits} of {runs[0]['images']}"


if __name__ == "__main__":
    main()
