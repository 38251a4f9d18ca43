"""ncnn on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import require
from lucid.exporters.runners import Runner
from lucid.images import Pixels

__all__ = ["make_runner", "open_net", "prepare"]


def prepare(path: Path, threads: int) -> Runner:
    """Files that take pixels, an image at a time."""
    ncnn = require("ncnn", extra="ncnn")
    net = open_net(path, threads)

    def take(pixels: Pixels) -> list[Any]:
        found = []
        for image in np.ascontiguousarray(pixels):
            height, width, channels = image.shape
            kind = ncnn.Mat.PixelType.PIXEL_RGB if channels == 3 else ncnn.Mat.PixelType.PIXEL_GRAY
            found.append(ncnn.Mat.from_pixels(image, kind, width, height))
        return found

    return make_runner(net, take)


def make_runner(net: Any, take: Callable[[Pixels], list[Any]]) -> Runner:
    """A net of lucid's files; ncnn has no batches, so the images of one go in turn.

    Args:
        take: from bytes (N, H, W, C) to an ``ncnn.Mat`` for each image.
    """

    def run(images: list[Any]) -> list[Any]:
        found = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("images", image)
            found.append(extractor.extract("logits")[1])
        return found

    return Runner(
        take,
        run,
        lambda found: np.stack([np.array(logits, np.float32) for logits in found]),
        {"version": require("ncnn", extra="ncnn").__version__},
    )


def open_net(path: Path, threads: int, **options: bool) -> Any:
    """An ``ncnn.Net`` that computes in float32, unless its options say something else.

    Args:
        path: of the .param file; the .bin file is beside it.
        options: of ``ncnn::Option``, by name.
    Raises:
        MissingDependencyError: ncnn is not installed.
        RuntimeError: ncnn does not take the files.
    """
    net = require("ncnn", extra="ncnn").Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    for name, value in options.items():
        setattr(net.opt, name, value)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError("ncnn does not take the files")
    return net
