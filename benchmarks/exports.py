"""Every format in every precision on real photos: what lucid export finds out about its files.

    python benchmarks/exports.py flowers model.safetensors model.int8.safetensors

The photos are those that the checkpoints remember as validation. The documentation's table of
formats is made from the results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe, write_results

PACKAGES = ("onnxruntime", "openvino", "coremltools", "ai-edge-litert", "executorch", "ncnn")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--format", default="all", help="one only, to try; writes no results")
    options = parser.parse_args()

    found = export(options)
    if options.format != "all":
        print(table(found))
        return
    write_results("exports", describe(*PACKAGES), found, table(found))


def export(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*options.checkpoints, "--format", options.format, "--out", folder]
        command = [sys.executable, "-m", "lucid", "export", *arguments, "--json"]
        command += ["--verify", options.photos]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not result.stdout:
        sys.exit(result.returncode)
    found: dict[str, Any] = json.loads(result.stdout)
    images = found["files"][0]["verification"]["images"]
    rows = [
        {key: value for key, value in one.items() if key not in ("source", "path")}
        for one in found["files"]
    ]
    return {"images": images, "files": rows}


def table(found: dict[str, Any]) -> str:
    rows = [
        "| format | precision | run by | MB | ms | largest difference | limit | same class "
        "| top-1 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for file in found["files"]:
        one = file["verification"]
        seconds = "" if one["seconds"] is None else f"{1e3 * one['seconds']:.2f}"
        rows.append(
            f"| {file['format']} | {file['precision']} | {one['runtime']} {one['version']} "
            f"| {file['bytes'] / 1e6:.2f} | {seconds} | {one['difference']:.2g} "
            f"| {one['limit']:.2g} | {one['agreement']:.2%} | {one['top1']:.2%} |"
        )
    return "\n".join(
        ["# Exports beside the reference", "", f"{found['images']} photos, one thread.", "", *rows]
    )


if __name__ == "__main__":
    main()
