"""TensorFlow Lite Micro: LiteRT files as microcontrollers run them, an image at a time."""

from __future__ import annotations

import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.errors import require
from lucid.exporters.runners import Runner
from lucid.images import Pixels

__all__ = ["arena_bytes", "open_interpreter", "prepare"]

_LARGEST_ARENA = 1024**3  # taken from the system only where it is used


def prepare(path: Path, threads: int) -> Runner:  # noqa: ARG001  (it has none)
    """A file whose input is the image's bytes."""
    interpreter = open_interpreter(path.read_bytes())

    def run(pixels: Pixels) -> list[NDArray[np.float32]]:
        found = []
        for image in pixels[:, np.newaxis]:
            interpreter.set_input(image, 0)
            interpreter.invoke()
            found.append(interpreter.get_output(0))
        return found

    return Runner(lambda pixels: pixels, run, np.concatenate, {"version": version("tflite-micro")})


def open_interpreter(content: bytes) -> Any:
    """A ``tflite_micro.runtime.Interpreter`` that is ready.

    Raises:
        MissingDependencyError: tflite-micro is not installed.
    """
    runtime = require("tflite_micro", extra="litert").runtime
    return runtime.Interpreter.from_bytes(content, arena_size=_LARGEST_ARENA)


def arena_bytes(interpreter: Any) -> int:
    """Memory that a network takes beside its file; it is only told to the error output."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        (found,) = re.findall(rb"Arena allocation total (\d+)", file.read())
    return int(found)
