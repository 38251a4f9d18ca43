"""ExecuTorch's runtime with XNNPACK."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.runners import Runner
from lucid.images import Pixels

__all__ = ["prepare", "silenced"]


def prepare(path: Path, threads: int) -> Runner:
    """A program whose input is bytes / 255, channels first."""
    torch = require("torch", extra="executorch")
    with silenced():
        runtime = require("executorch.runtime", extra="executorch")
    torch.set_num_threads(threads)
    content = path.read_bytes()
    program = runtime.Runtime.get().load_program(content)
    method = program.load_method("forward")

    def take(pixels: Pixels) -> Any:
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        return torch.from_numpy(planes)

    def run(images: Any, kept: Any = (content, program)) -> Any:  # noqa: ARG001
        """The runtime reads from memory that it does not keep alive."""
        return method.execute([images])[0]

    return Runner(
        take,
        run,
        lambda logits: logits.numpy().copy(),
        {"version": version("executorch")},
    )


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without the warnings and logs of the libraries, which are about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
