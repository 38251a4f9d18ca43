"""Where the engine's time goes: each layer beside what the machine could do at most, with pictures.

python benchmarks/layers.py [--quick]
python benchmarks/layers.py --draw    # the pictures again, from the results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from inference import table
from machine import RESULTS, describe, write_results

from lucid.architecture import MobileNetArguments
from lucid.benchmark.peers import PRECISIONS
from lucid.benchmark.pictures import layer_times, roofline
from lucid.benchmark.profile import Profile, bandwidths, profile
from lucid.benchmark.samples import photo_like, settled_network
from lucid.drawing import style
from lucid.engine import isas
from lucid.files import atomic_path
from lucid.quantization import measure_ranges, quantise

WIDTHS = (1.0, 0.25)
SIDE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; no results")
    parser.add_argument("--draw", action="store_true", help="only draw")
    options = parser.parse_args()
    if not options.draw:
        results, text = measure(quick=options.quick)
        if options.quick:
            print(text)
            return
        write_results("layers", describe("lucid-mobilenet"), results, text)
    draw(json.loads((RESULTS / "layers.json").read_text())["results"])


def measure(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Every instruction set that runs here, in every precision, on one thread."""
    loads = bandwidths()
    results: dict[str, Any] = {"bandwidths": {str(size): rate for size, rate in loads.items()}}
    side = 32 if quick else SIDE
    page = [
        "# Where the time goes",
        "",
        f"One image at {side}x{side}, one thread, random weights. Peak: billions of multiply-adds a"
        " second that the CPU can do with the instruction by which the kernels are bound, alone;"
        " share: how much of it they reach.",
    ]
    for width in WIDTHS:
        arguments = MobileNetArguments(width, 1000, last_stride=1, padding="same")
        network = settled_network(arguments, side)
        pictures = photo_like(8, side, side, seed=2)
        int8 = quantise(network, measure_ranges(network, pictures[:, None]))
        found = [
            profile(
                int8 if precision == "int8" else network,
                precision,
                pictures[0],
                isa=isa,
                repetitions=1 if quick else 20,
                rounds=2 if quick else 15,
            )
            for precision in PRECISIONS
            for isa in isas(precision)
            if quick or isa != "scalar"
        ]
        results[f"{width:g}"] = [one.to_json() for one in found]
        page += ["", f"## Width {width:g}", "", *profile_table(found)]
    rates = [f"{rate / 1e9:.0f} GB/s from {size >> 10:,} KiB" for size, rate in loads.items()]
    return results, "\n".join([*page, "", f"Loads: {', '.join(rates) or 'not measured'}."])


def profile_table(profiles: Sequence[Profile]) -> list[str]:
    rows = [
        [
            one.precision,
            one.isa,
            f"{1e3 * one.seconds:.3f}",
            one.instruction or "",
            "" if one.peak is None else f"{one.peak / 1e9:.0f}",
            "" if one.share is None else f"{one.share:.0%}",
        ]
        for one in profiles
    ]
    return table(["precision", "instruction set", "ms", "bound by", "peak", "share"], rows)


def draw(results: dict[str, Any]) -> None:
    """The best set of each precision, at each width."""
    loads = {int(size): rate for size, rate in results["bandwidths"].items()}
    for width in WIDTHS:
        best: dict[str, Profile] = {}
        for one in map(Profile.from_json, results[f"{width:g}"]):
            best.setdefault(one.precision, one)
        profiles = list(best.values())
        pictures = {"times": layer_times(profiles), "roofline": roofline(profiles, loads)}
        for name, figure in pictures.items():
            path = RESULTS / f"layers-{name}-{width:g}.svg"
            with style(), atomic_path(path) as part:
                figure.savefig(part, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
