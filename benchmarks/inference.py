"""Inference speed: lucid's engine beside the runtimes one would use instead, all in one run.

Latency and throughput at several sizes, threads, batches and instruction sets; the time and the
memory from a file to the first result, in a fresh process; and a folder of photos end to end.
layers.py shows where the engine's time goes.

    python benchmarks/inference.py [--network FILE ...] [--photos DATA] [--part NAME ...] [--quick]

A checkpoint given by --network is measured at the sizes of its width; other widths are random
networks with settled statistics, whose answers say little about accuracy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, write_results
from PIL import Image

from lucid.architecture import MobileNetArguments
from lucid.benchmark.measure import Comparison, Measurement, compare, workload
from lucid.benchmark.peers import PEERS, Candidate
from lucid.benchmark.samples import photo_like, settled_network
from lucid.checkpoint import read_checkpoint, read_header
from lucid.data.sources import open_data
from lucid.engine import Engine
from lucid.exporters.onnx import to_onnx
from lucid.images import Pixels, load
from lucid.lowering import lower
from lucid.network import FloatNetwork, sized_layers, totals, write_network
from lucid.parallel import cores
from lucid.quantization import measure_ranges, quantise

CALIBRATION = 32
COMPARED = 200  # photos


@dataclass(frozen=True)
class Case:
    """What is measured at once; the candidates are every runtime that can."""

    width: float
    resolution: int
    threads: int = 1
    batch: int = 1
    isa: str | None = None

    def __str__(self) -> str:
        parts = [f"width {self.width:g} at {self.resolution}"]
        parts.append("one thread" if self.threads == 1 else f"{self.threads} threads")
        parts.append("one image" if self.batch == 1 else f"{self.batch} images a call")
        if self.isa is not None:
            parts.append(f"limited to {self.isa}")
        return ", ".join(parts)


CASES = (
    Case(1.0, 224),
    Case(0.25, 224),
    Case(0.25, 96),
    Case(1.0, 224, threads=2),
    Case(0.25, 224, threads=2),
    Case(1.0, 224, batch=16),
    Case(0.25, 224, batch=16),
    Case(1.0, 224, isa="avx512vnni"),
    Case(0.25, 224, isa="avx512vnni"),
    Case(1.0, 224, isa="avx2"),
    Case(0.25, 224, isa="avx2"),
)
QUICK_CASES = (Case(0.25, 32),)


@dataclass(frozen=True)
class Settings:
    """Where networks and photos come from, and how long to measure."""

    networks: dict[float, FloatNetwork]
    photos: Path | None
    peers: tuple[str, ...]
    quick: bool

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 9

    def network(self, width: float, resolution: int) -> FloatNetwork:
        if width in self.networks:
            found = self.networks[width]
            return replace(found, preprocessing=replace(found.preprocessing, resolution=resolution))
        # As most published networks are; then no runtime needs padding of its own.
        arguments = MobileNetArguments(width, 1000, last_stride=1, padding="same")
        return settled_network(arguments, resolution)

    def pictures(self, network: FloatNetwork) -> Pixels:
        """Those to calibrate on, then those to compare answers on."""
        side = network.preprocessing.resolution
        if self.photos is None or self.quick:
            return photo_like(CALIBRATION + 8, side, side, seed=2)
        paths = [sample.path for sample in open_data(self.photos).samples]
        chosen = np.random.default_rng(0).permutation(len(paths))[: CALIBRATION + COMPARED]
        return np.stack([load(paths[index], network.preprocessing) for index in chosen])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--photos", type=Path, metavar="DATA")
    parser.add_argument("--part", choices=PARTS, action="append", metavar="NAME")
    parser.add_argument("--peers", default=",".join(PEERS), help="names with commas between")
    parser.add_argument("--quick", action="store_true", help="see that it runs; no results")
    options = parser.parse_args()

    networks = {
        read_header(path).arguments.width_multiplier: lower(read_checkpoint(path))
        for path in options.network
    }
    settings = Settings(networks, options.photos, tuple(options.peers.split(",")), options.quick)
    results: dict[str, Any] = {}
    lines = ["# Inference speed", ""]
    for name in options.part or PARTS:
        results[name], page = PARTS[name](settings)
        lines += [*page, ""]
    text = "\n".join(lines).rstrip()
    if options.quick:
        print(text)
        return
    packages = ("lucid-mobilenet", "torch", "onnxruntime", "openvino", "nncf", "ai-edge-litert")
    name = "-".join(["inference", *(options.part or ())])
    write_results(name, describe(*packages, "ncnn"), results, text)


# Latency and throughput


def measure_speed(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Every case in turn, with every runtime that can."""
    results: dict[str, Any] = {}
    page = [
        "## Calls",
        "",
        f"Milliseconds a call, median of {settings.rounds} rounds in turn, each runtime in a"
        " process of its own. Images are in memory as each wants them; lucid's time includes"
        " normalising the bytes. G/s: billions of multiply-adds a second. Peak: their share of what"
        " the CPU's best instruction for the precision can do, measured in the same rounds."
        " Agreement: how often the label is that of float32 arithmetic.",
    ]
    for case in QUICK_CASES if settings.quick else CASES:
        if case.threads > cores():
            continue
        network = settings.network(case.width, case.resolution)
        pictures = settings.pictures(network)
        work = workload(network, pictures[:CALIBRATION], batch=case.batch)
        comparison = compare(
            work,
            list(candidates(settings, case)),
            pictures[CALIBRATION:],
            rounds=settings.rounds,
            seconds=0.02 if settings.quick else 0.2,
            track=report,
        )
        results[str(case)] = comparison.to_json()
        page += ["", f"### {str(case).capitalize()}", "", *speed_table(comparison)]
    return results, page


def candidates(settings: Settings, case: Case) -> Iterable[Candidate]:
    for name in settings.peers:
        peer = PEERS[name]
        if peer.missing() or (case.isa is not None and case.isa not in peer.isas):
            continue
        for precision in peer.precisions:
            yield Candidate(name, precision, case.threads, case.isa)


def report(items: Sequence[Candidate]) -> Iterable[Candidate]:
    for item in items:
        print(f"preparing {item}", file=sys.stderr)
        yield item


def speed_table(comparison: Comparison) -> list[str]:
    ours = [one for one in comparison.measurements if one.candidate.peer == "lucid"]
    header = ["runtime", "precision", "ms", "spread", "G/s", "peak", "agreement"]
    header += [f"lucid {one.candidate.precision}" for one in ours]
    rows = [speed_row(one, ours) for one in comparison.measurements]
    failures = [f"- left out: {message}" for message in comparison.failures.values()]
    return [*table(header, rows), *([""] if failures else []), *failures]


def speed_row(one: Measurement, ours: list[Measurement]) -> list[str]:
    return [
        one.candidate.peer,
        one.candidate.precision,
        f"{1e3 * one.seconds:.3f}",
        f"{1e3 * min(one.turns):.3f} to {1e3 * max(one.turns):.3f}",
        f"{one.multiply_adds / one.seconds / 1e9:.0f}",
        "" if one.share is None else f"{one.share:.0%}",
        f"{one.agreement:.1%}",
        *("" if mine is one else f"{mine.times_as_fast_as(one):.2f}x" for mine in ours),
    ]


# From a file to the first result

# What each does in a process of its own, between reading the clock and the memory twice.
LUCID_START = "engine = Engine(path, threads=1)\nengine(image)"
ORT_START = (
    "session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])\n"
    "session.run(None, {'images': image[None]})"
)
START = """
import json, sys, time
import numpy
{imports}
path, image = sys.argv[1], numpy.load(sys.argv[2])
def memory(name):
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
before = memory("VmRSS")
try:
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
except OSError:
    pass
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
print(json.dumps([seconds, memory("VmHWM") - before]))
"""
STARTS = {
    "lucid": START.format(imports="from lucid.engine import Engine", work=LUCID_START),
    "onnxruntime": START.format(
        imports="import onnxruntime\noptions = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1",
        work=ORT_START,
    ),
}


def measure_start(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """The same int8 network as lucid's file and as ONNX with the same scales."""
    network = settings.network(*((0.25, 32) if settings.quick else (1.0, 224)))
    pictures = settings.pictures(network)
    int8 = quantise(network, measure_ranges(network, pictures[:CALIBRATION, None]))
    sized = sized_layers(network.layers, *pictures.shape[1:3])
    needed = sum(layer.weights for layer in sized) + totals(sized).peak.activations  # bytes
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "lucid": Path(folder, "network.safetensors"),
            "onnxruntime": Path(folder, "network.onnx"),
        }
        write_network(files["lucid"], int8)
        files["onnxruntime"].write_bytes(to_onnx(int8))
        image = Path(folder, "image.npy")
        np.save(image, pictures[0])
        for _ in range(settings.rounds):
            for name, code in STARTS.items():
                command = [sys.executable, "-c", code, str(files[name]), str(image)]
                printed = subprocess.run(command, capture_output=True, text=True, check=True)
                found[name].append(tuple(json.loads(printed.stdout)))
    times = {name: [seconds for seconds, _ in rows] for name, rows in found.items()}
    memory = {name: statistics.median(peak for _, peak in rows) for name, rows in found.items()}
    ratio = median_ratio(times["lucid"], times["onnxruntime"])
    rows = [
        [name, f"{1e3 * statistics.median(times[name]):.1f}", f"{memory[name] / 1e6:.1f}"]
        for name in STARTS
    ]
    page = [
        "## From a file to the first result",
        "",
        f"int8, width {'0.25 at 32' if settings.quick else '1.0 at 224'}, a fresh process each"
        " time, imports done: open the file, run one image. Memory: how far the peak is above what"
        f" the process held before; weights and the two largest activations are {needed / 1e6:.1f}"
        " MB.",
        "",
        *table(["runtime", "ms", "memory in MB"], rows),
        "",
        f"lucid is {ratio:.1f} times as fast.",
    ]
    return {"seconds": times, "peak_bytes": memory, "needed_bytes": needed, "ratio": ratio}, page


# A folder of photos


def measure_folder(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Decode, resize and run every photo, as lucid does and as the usual program does."""
    network = settings.network(0.25, 32 if settings.quick else 224)
    pictures = settings.pictures(network)
    int8 = quantise(network, measure_ranges(network, pictures[:CALIBRATION, None]))
    with tempfile.TemporaryDirectory() as folder:
        paths = photo_files(settings, Path(folder))
        engine = Engine(int8)
        model = Path(folder, "network.onnx")
        model.write_bytes(to_onnx(network))
        programs: dict[str, Callable[[], object]] = {
            "lucid": lambda: engine.predict(paths),
            "only decoding, as lucid does": lambda: decode(paths, network),
            "Pillow and ONNX Runtime": usual_program(paths, model, network),
        }
        rates: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(max(2, settings.rounds // 3)):
            for name, program in programs.items():
                started = time.perf_counter()
                program()
                rates[name].append(len(paths) / (time.perf_counter() - started))
    ratio = median_ratio(rates["Pillow and ONNX Runtime"], rates["lucid"])
    rows = [
        [name, f"{statistics.median(found):.0f}", f"{min(found):.0f} to {max(found):.0f}"]
        for name, found in rates.items()
    ]
    page = [
        "## A folder of photos",
        "",
        f"{len(paths)} JPEG files, {cores()} cores, width 0.25: images a second from file to label."
        " The usual program decodes, resizes and runs float32 in one thread a core.",
        "",
        *table(["program", "images/s", "spread"], rows),
        "",
        f"lucid is {ratio:.2f} times as fast.",
    ]
    return {"images_per_second": rates, "ratio": ratio}, page


def photo_files(settings: Settings, folder: Path) -> list[Path]:
    """JPEG files of --photos, or some made up in the size of a camera's thumbnails."""
    if settings.photos is not None and not settings.quick:
        found = [sample.path for sample in open_data(settings.photos).samples]
        return [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")][:400]
    paths = []
    for index, pixels in enumerate(photo_like(16, 300, 400, seed=3)):
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths if settings.quick else paths * 25


def decode(paths: list[Path], network: FloatNetwork) -> None:
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda path: load(path, network.preprocessing), paths))


def usual_program(paths: list[Path], model: Path, network: FloatNetwork) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    side, crop = network.preprocessing.resolution, network.preprocessing.crop_fraction

    def label(path: Path) -> int:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        shorter = min(picture.size)
        scale = side / crop / shorter
        picture = picture.resize([round(length * scale) for length in picture.size])
        left, top = ((length - side) // 2 for length in picture.size)
        pixels = np.asarray(picture.crop((left, top, left + side, top + side)))
        return int(session.run(None, {"images": pixels[None]})[0].argmax())

    def program() -> object:
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(label, paths))

    return program


def median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median over the rounds of theirs / ours."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


PARTS: dict[str, Callable[[Settings], tuple[dict[str, Any], list[str]]]] = {
    "speed": measure_speed,
    "start": measure_start,
    "folder": measure_folder,
}


if __name__ == "__main__":
    main()
