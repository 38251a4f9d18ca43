"""What a LiteRT file says of itself: images, normalisation, class names, for apps that read it.

A description that MediaPipe and the Task Library read, and behind the network, as a zip archive,
the files that it names: ``labels.txt``, and ``lucid.json`` with all that ``lucid`` says of it.
Source of all numbers below: TFLite Support, ``metadata_schema.fbs``, version 1.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

import lucid
from lucid.exporters.flatbuffer import Number, Table, encode
from lucid.exporters.metadata import describe
from lucid.images import Preprocessing
from lucid.network import FloatNetwork, Int8Network

__all__ = ["DESCRIPTION", "LABELS", "attach", "metadata"]

LABELS = "labels.txt"
DESCRIPTION = "lucid.json"

_COLOR_SPACES = {"RGB": 1, "L": 2}
_AXIS_LABELS, _UNKNOWN = 2, 0  # kinds of associated files
_FEATURE, _IMAGE = 1, 2  # kinds of content
_NORMALIZATION = 1  # of ProcessUnitOptions


def metadata(
    network: FloatNetwork | Int8Network, size: tuple[int, int], takes_bytes: bool
) -> bytes:
    """The flatbuffer ``TFLITE_METADATA`` of a network for images of a size (height, width).

    Args:
        takes_bytes: whether the file normalises by itself. The normalisation is stated all the
            same, as the schema asks for; apps apply it where the input is float32 only.
    """
    classes = len(network.class_names)
    graph: Table = {
        0: "MobileNet",
        2: [_images(network.preprocessing, size, takes_bytes)],
        3: [
            {
                0: "logits",
                1: f"One score for each of {classes} classes; softmax gives probabilities.",
                3: {0: Number("B", _FEATURE), 1: {}},
                6: [_file(LABELS, "The class names, in the order of the logits.", _AXIS_LABELS)],
            }
        ],
    }
    model: Table = {
        0: "MobileNet",
        1: f"MobileNet-V1, an image classifier of {classes} classes.",
        2: lucid.__version__,
        3: [graph],
        6: [_file(DESCRIPTION, "Class names, preprocessing and metrics.", _UNKNOWN)],
        7: "1.0.0",
    }
    return encode(model, b"M001")


def attach(content: bytes, network: FloatNetwork | Int8Network) -> bytes:
    """A file with labels and description behind it, nothing compressed, so that it can be mapped.

    No class name has a line break, which would shift the others.
    """
    description = describe(network)
    if isinstance(network, Int8Network):
        # Those in the file are powers of two instead; lucid.importers puts these back.
        description["scales"] = {layer.name: layer.output_scale for layer in network.layers[:-1]}
    files = {
        LABELS: "\n".join(network.class_names),
        DESCRIPTION: json.dumps(description, ensure_ascii=False, indent=1),
    }
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980, the same every time
    return stream.getvalue()


def _images(preprocessing: Preprocessing, size: tuple[int, int], takes_bytes: bool) -> Table:
    height, width = size
    place: Table = {0: Number("I", width), 1: Number("I", height)}
    content: Table = {0: Number("b", _COLOR_SPACES[preprocessing.color]), 1: place}
    mean = 255 * np.array(preprocessing.mean)
    std = 255 * np.array(preprocessing.std)
    low, high = (0 * mean, 0 * mean + 255) if takes_bytes else (-mean / std, (255 - mean) / std)
    kind = "Bytes 0 to 255" if takes_bytes else "Normalised values"
    return {
        0: "images",
        1: f"{kind} of {preprocessing.color} pictures, {width} x {height} pixels.",
        3: {0: Number("B", _IMAGE), 1: content},
        4: [_unit(mean, std)],
        5: {0: high.astype(np.float32), 1: low.astype(np.float32)},
    }


def _unit(mean: Any, std: Any) -> Table:
    options: Table = {0: mean.astype(np.float32), 1: std.astype(np.float32)}
    return {0: Number("B", _NORMALIZATION), 1: options}


def _file(name: str, description: str, kind: int) -> Table:
    return {0: name, 1: description, 2: Number("b", kind)}
