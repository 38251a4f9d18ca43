"""Classify pictures with a LiteRT file that lucid exported; lucid itself is not needed.

    lucid export model.safetensors --format litert --out model.tflite
    pip install ai-edge-litert pillow
    python classify_litert.py model.tflite PICTURE...

The file takes the bytes of a picture, and brings class names and preprocessing along.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


def main() -> None:
    """Print the classes of each picture that have the highest scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    arguments = parser.parse_args()

    with zipfile.ZipFile(arguments.model) as archive:  # it stands behind the network
        names = archive.read("labels.txt").decode().splitlines()
        preprocessing = json.loads(archive.read("lucid.json"))["preprocessing"]
    interpreter = Interpreter(str(arguments.model))
    interpreter.allocate_tensors()
    (images,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    for path in arguments.pictures:
        interpreter.set_tensor(images["index"], load(path, preprocessing)[np.newaxis])
        interpreter.invoke()
        scores = softmax(interpreter.get_tensor(logits["index"])[0])
        best = scores.argsort()[::-1][:3]
        print(path, *(f"{names[index]} {scores[index]:.1%}" for index in best), sep="  ")


def load(path: Path, preprocessing: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The centred square of a picture in the network's size: uint8 (side, side, channels)."""
    picture = Image.open(path).convert(preprocessing["color"])
    half = preprocessing["crop_fraction"] * min(picture.size) / 2
    x, y = picture.width / 2, picture.height / 2
    side = preprocessing["resolution"]
    filter_ = Image.Resampling[preprocessing["interpolation"].upper()]
    picture = picture.resize((side, side), filter_, box=(x - half, y - half, x + half, y + half))
    return np.asarray(picture, np.uint8).reshape(side, side, -1)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities."""
    powers = np.exp(logits - logits.max())
    found: np.ndarray[Any, Any] = powers / powers.sum()
    return found


if __name__ == "__main__":
    main()
