"""Batches for training: the order, the prefetching and the augmentation, reproducible by position.

A batch depends on (seed, epoch, its number) alone, so training can go on from any of them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lucid.data.augmentation import Augmentation, augment, draw, mix
from lucid.data.cache import DecodedImages

_READ_AHEAD = 2


@dataclass(frozen=True)
class _Raw:
    """One batch before augmentation, in the computer's memory."""

    number: int
    pixels: NDArray[np.uint8]  # (N, S, S, C)
    sizes: NDArray[np.int32]  # (N, 2)
    draws: NDArray[np.float32]  # (N, draws)
    labels: NDArray[np.int64]  # (N,)


@dataclass
class Batches:
    """The training batches of a decoded data set.

    Args:
        images: whole images, squashed to squares.
        labels: int64 (N,), the class of each image.
        num_classes: at least 1.
        batch_size: images a batch; the images that fill no batch sit an epoch out.
        resolution: side of the augmented images in pixels.
        augmentation: what happens to each image.
        seed: of the order, the augmentation and the mixing.
        weights: relative frequency of each image, (N,); None takes each once an epoch.
        device: where the augmentation runs and the batches end.
    """

    images: DecodedImages
    labels: NDArray[np.int64]
    num_classes: int
    batch_size: int
    resolution: int
    augmentation: Augmentation
    seed: int
    weights: NDArray[np.float64] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    waited_seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Batches an epoch, at least one."""
        return max(1, len(self.labels) // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The images of an epoch in the order in which they are used."""
        generator = np.random.default_rng([self.seed, epoch])
        count = len(self.labels)
        if self.weights is None:
            return generator.permutation(count)
        share = self.weights / self.weights.sum()
        return generator.choice(count, size=count, p=share)

    def epoch(self, epoch: int, first: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """Batches ``first`` .. ``steps`` of an epoch.

        Yields:
            float32 images (N, C, R, R) from 0 to 1, and float32 targets (N, classes),
            probabilities.
        Raises:
            DataError: an image, decoded at each use, can't be read any more.
        """
        order = self.order(epoch)
        repeats = _repeats(order)
        waiting: queue.Queue[_Raw | BaseException | None] = queue.Queue(_READ_AHEAD)
        stop = threading.Event()

        def read() -> None:
            try:
                for number in range(first, self.steps):
                    _put(waiting, self._read(epoch, number, order, repeats), stop)
                    if stop.is_set():
                        return
                _put(waiting, None, stop)
            except BaseException as error:
                _put(waiting, error, stop)

        reader = threading.Thread(target=read, name="lucid-reader", daemon=True)
        reader.start()
        try:
            while True:
                started = time.perf_counter()
                raw = waiting.get()
                self.waited_seconds += time.perf_counter() - started
                if raw is None:
                    return
                if isinstance(raw, BaseException):
                    raise raw
                yield self._augmented(epoch, raw)
        finally:
            stop.set()
            reader.join()

    def _read(
        self, epoch: int, number: int, order: NDArray[np.int64], repeats: NDArray[np.int64]
    ) -> _Raw:
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        chosen = order[batch]
        pixels, sizes = self.images.take(chosen)
        self.images.check()
        draws = draw(self.seed, epoch, chosen, repeats[batch])
        return _Raw(number, pixels, sizes, draws, self.labels[chosen])

    def _augmented(self, epoch: int, raw: _Raw) -> tuple[Tensor, Tensor]:
        pixels, sizes, draws, labels = (
            torch.from_numpy(array).to(self.device)
            for array in (raw.pixels, raw.sizes, raw.draws, raw.labels)
        )
        images = augment(pixels, sizes, draws, self.resolution, self.augmentation)
        targets = functional.one_hot(labels, self.num_classes).to(torch.float32)
        generator = np.random.default_rng([self.seed, epoch, raw.number])
        return mix(images, targets, generator, self.augmentation)


def _repeats(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry of ``order`` stands before it, (N,)."""
    sorting = np.argsort(order, kind="stable")
    ranked = order[sorting]
    repeats = np.empty_like(order)
    repeats[sorting] = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return repeats


def _put(
    waiting: queue.Queue[_Raw | BaseException | None],
    item: _Raw | BaseException | None,
    stop: threading.Event,
) -> None:
    """Hand an item over, or give up once nobody waits for it any more."""
    while not stop.is_set():
        try:
            waiting.put(item, timeout=0.1)
            return
        except queue.Full:
            continue
