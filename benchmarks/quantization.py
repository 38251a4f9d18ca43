"""What int8 costs: lucid, its parts one by one, ONNX Runtime, NNCF; on the same calibration images.

    python benchmarks/quantization.py flowers runs/widths/0.5-*/model.safetensors --name flowers-0.5
    python benchmarks/quantization.py flowers runs/imagenet.safetensors --evaluate photos --name net

Models are measured on the validation photos that they remember, or with --evaluate on all photos of
a manifest whose labels are class indices (a background class before them is stepped over).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx
from machine import describe, write_results

from lucid import reference
from lucid.checkpoint import read_checkpoint
from lucid.data.sources import open_data
from lucid.evaluation.selection import select_samples, with_remembered_split
from lucid.exporters.onnx import to_onnx
from lucid.images import Preprocessing, load, normalise
from lucid.lowering import lower
from lucid.network import FloatLayer, FloatNetwork, Int8Network, write_network
from lucid.quantization import (
    equalise,
    measure_channels,
    measure_ranges,
    normalisation_folded,
    quantise,
    quantise_calibrated,
    reconstruct,
)
from lucid.quantization.images import load_images, ranked

BATCH = 16
Array = np.ndarray[Any, Any]
Run = Callable[[Array], Array]
Tool = Callable[[FloatNetwork, Array, Path], tuple[Run, int]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("calibrate", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--evaluate", type=Path, help="manifest of class indices")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--name", required=True, help="of the result: quantization-NAME")
    options = parser.parse_args()

    results: dict[str, list[dict[str, float]]] = {}
    for path in options.checkpoints:
        network = lower(read_checkpoint(path))
        calibration, pixels, labels = photos(network, options)
        wanted = in_batches(lambda x, network=network: reference.run(network, x), pixels)
        results.setdefault("float", []).append(
            measure(wanted, wanted, labels) | {"bytes": path.stat().st_size}
        )
        for name in options.tools:
            with tempfile.TemporaryDirectory() as folder:
                run, size = TOOLS[name](network, calibration, Path(folder))
                found = in_batches(run, pixels)
            results.setdefault(name, []).append(measure(wanted, found, labels) | {"bytes": size})
            print(path, name, results[name][-1], flush=True)
    machine = describe("numpy", "onnxruntime", "nncf", "openvino")
    write_results(f"quantization-{options.name}", machine, results, table(results, options))


def photos(network: FloatNetwork, options: argparse.Namespace) -> tuple[Array, Array, Array]:
    """Calibration pixels, pixels to measure on, and their labels."""
    dataset, _ = with_remembered_split(open_data(options.calibrate), network.provenance)
    unseen = [one for one in dataset.samples if one.split in (None, "train")]
    chosen = load_images(dataset, ranked(dataset, unseen), network.preprocessing, options.images)
    if options.evaluate is None:
        samples = select_samples(dataset, network.class_names, network.provenance).samples
        labels = np.array([one.label for one in samples])
    else:
        listed = open_data(options.evaluate)
        samples = listed.samples
        names = [int(listed.class_names[one.label]) for one in samples]
        labels = np.array(names) + (network.class_names[0] == "background")
    pixels = np.stack([load(one.path, network.preprocessing) for one in samples])
    return chosen.pixels, pixels, labels


def in_batches(run: Run, pixels: Array) -> Array:
    return np.concatenate([run(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])


def measure(wanted: Array, found: Array, labels: Array) -> dict[str, float]:
    """Hits, agreement with the float model, and the signal-to-noise ratio of logits in dB."""
    best = np.argsort(-found, axis=1, kind="stable")
    signal, noise = (x - x.mean(axis=1, keepdims=True) for x in (wanted, found - wanted))
    return {
        "top1": float((best[:, 0] == labels).sum()),
        "top5": float((best[:, :5] == labels[:, np.newaxis]).any(axis=1).sum()),
        "images": float(len(labels)),
        "agreement": float((best[:, 0] == wanted.argmax(axis=1)).mean()),
        "decibels": float(
            10 * np.log10(np.square(signal).sum() / max(np.square(noise).sum(), 1e-9))
        ),
    }


# --- lucid -------------------------------------------------------------------------------------


def ours(make: Callable[[FloatNetwork, Array], Int8Network]) -> Tool:
    def tool(network: FloatNetwork, calibration: Array, folder: Path) -> tuple[Run, int]:
        made = make(network, calibration)
        # The names of the images would weigh more than the smallest networks.
        write_network(folder / "network.safetensors", replace(made, provenance={}))
        size = (folder / "network.safetensors").stat().st_size
        return lambda pixels: reference.run(made, pixels), size

    return tool


def batches(pixels: Array) -> list[Array]:
    return np.split(pixels, range(BATCH, len(pixels), BATCH))


def minmax(network: FloatNetwork, pixels: Array) -> Int8Network:
    return quantise(network, measure_ranges(network, batches(pixels)))


def equalised_minmax(network: FloatNetwork, pixels: Array) -> Int8Network:
    return minmax(equalise(network, measure_channels(network, batches(pixels))), pixels)


def per_tensor(network: FloatNetwork, pixels: Array) -> Int8Network:
    """One scale for all weights of a layer, as the earliest int8 MobileNets had."""
    scales = {}
    for layer in network.layers:
        if isinstance(layer, FloatLayer):
            if layer.kind == "stem":
                layer, _ = normalisation_folded(layer, network.preprocessing)
            largest = np.float32(np.abs(layer.weight).max() / 127)
            scales[layer.name] = np.full(layer.out_channels, largest)
    return quantise(network, measure_ranges(network, batches(pixels)), scales)


# --- others ------------------------------------------------------------------------------------


def write_onnx(network: FloatNetwork, folder: Path) -> Path:
    """Normalised images (N, C, R, R) -> logits: what the other tools start from."""
    model = onnx.load_from_string(to_onnx(network, images="normalised"))
    del model.metadata_props[:]  # of lucid; they would count as these tools' bytes
    path = folder / "float.onnx"
    onnx.save(model, path)
    return path


class Reader:
    """Calibration images for ONNX Runtime."""

    def __init__(self, pixels: Array, preprocessing: Preprocessing) -> None:
        self._batches: Iterator[Array] = (
            normalise(part, preprocessing) for part in batches(pixels)
        )

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def onnx_runtime(method: str, *, per_channel: bool = True) -> Tool:
    def tool(network: FloatNetwork, calibration: Array, folder: Path) -> tuple[Run, int]:
        import onnxruntime
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        made = folder / "int8.onnx"
        quantize_static(
            write_onnx(network, folder),
            made,
            Reader(calibration, network.preprocessing),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
        session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])

        def run(pixels: Array) -> Array:
            return session.run(None, {"images": normalise(pixels, network.preprocessing)})[0]

        return run, made.stat().st_size

    return tool


def nncf(network: FloatNetwork, calibration: Array, folder: Path) -> tuple[Run, int]:
    import openvino
    from nncf import Dataset, quantize

    model = openvino.convert_model(write_onnx(network, folder))
    parts = [normalise(part, network.preprocessing) for part in batches(calibration)]
    made = quantize(model, Dataset(parts), subset_size=len(parts))
    openvino.save_model(made, folder / "int8.xml")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(made, "CPU", hint)
    size = sum((folder / f"int8.{suffix}").stat().st_size for suffix in ("xml", "bin"))
    return lambda pixels: compiled(normalise(pixels, network.preprocessing))[0], size


TOOLS: dict[str, Tool] = {
    "lucid": ours(quantise_calibrated),
    "lucid, no equalisation": ours(reconstruct),
    "lucid, nearest weights, equalised": ours(equalised_minmax),
    "lucid, min/max": ours(minmax),
    "lucid, min/max, a scale per tensor": ours(per_tensor),
    "ONNX Runtime, min/max": onnx_runtime("MinMax"),
    "ONNX Runtime, entropy": onnx_runtime("Entropy"),
    "ONNX Runtime, percentile": onnx_runtime("Percentile"),
    "ONNX Runtime, min/max, a scale per tensor": onnx_runtime("MinMax", per_channel=False),
    "NNCF": nncf,
}


def table(results: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    count, images = len(options.checkpoints), int(results["float"][0]["images"])
    rows = []
    for name, found in results.items():
        top1, top5 = (mean(one[part] / one["images"] for one in found) for part in ("top1", "top5"))
        loss = mean(one["top1"] / one["images"] for one in results["float"]) - top1
        each = ", ".join(f"{one['top1']:.0f}/{one['top5']:.0f}" for one in found)
        rows.append(
            f"| {name} | {top1:.2%} | {100 * loss:+.2f} | {top5:.2%} | {each} "
            f"| {mean(one['agreement'] for one in found):.2%} "
            f"| {mean(one['decibels'] for one in found):.1f} "
            f"| {mean(one['bytes'] for one in found) / 1e6:.2f} |"
        )
    return "\n".join(
        [
            f"# Quantisation to int8: {options.name}",
            "",
            f"{count} checkpoint{'s' if count > 1 else ''}, {images} photos that calibration did "
            f"not see, {options.images} calibration images of {options.calibrate.name}, the same "
            "for all. After training only; logits' noise against the float model's.",
            "",
            "| method | top-1 | points lost | top-5 | top-1/top-5 hits | same class as float "
            "| logits, dB | MB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


if __name__ == "__main__":
    main()
