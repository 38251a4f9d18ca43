"""What an int8 network costs: layer by layer, and in the classes that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid import reference
from lucid.errors import DataError
from lucid.images import Pixels
from lucid.network import FloatNetwork, Int8Network, Kind

__all__ = ["Comparison", "LayerNoise", "compare"]

Run = Callable[[Pixels], NDArray[np.float32]]

_BATCH = 16
# Layers need few images: each is compared at thousands of places.
_LAYER_IMAGES = 64
_TOP = 5
_WORST = 8
# An exact copy has no noise; JSON has no infinity.
_MOST_DECIBELS = 200.0


@dataclass(frozen=True)
class LayerNoise:
    """A layer's signal-to-noise ratio in decibels: 10 log10(sum of squares / that of the errors).

    Errors are the int8 outputs' distance to the float outputs. Equalisation gives a channel a
    factor of its own, so each is compared up to one.
    """

    name: str
    kind: Kind
    decibels: float


@dataclass(frozen=True)
class Comparison:
    """An int8 network beside the float network that it was made from, on the same images.

    Args:
        images: how many.
        layers: noise of each.
        logits_decibels: signal-to-noise ratio of the logits, each image's mean taken off.
        agreement: share of the images for which both name the same class.
        float_top1: share of right classes, None without labels; the others likewise, and top-5
            only of more than five classes.
        worst: indices of the images whose logits differ most, the largest distance first.
        float_classes: the class that the float network names, of every image.
        int8_classes: likewise.
    """

    images: int
    layers: tuple[LayerNoise, ...]
    logits_decibels: float
    agreement: float
    float_top1: float | None
    int8_top1: float | None
    float_top5: float | None
    int8_top5: float | None
    worst: tuple[int, ...]
    float_classes: tuple[int, ...]
    int8_classes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """What a network remembers of it; without what was not measured."""
        names = ("float_top1", "int8_top1", "agreement", "logits_decibels")
        values = {name: getattr(self, name) for name in names} | {"images": float(self.images)}
        return {name: value for name, value in values.items() if value is not None}


def compare(
    network: FloatNetwork,
    quantised: Int8Network,
    pixels: Pixels,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    *,
    executor: Callable[[FloatNetwork | Int8Network], Run] = lambda one: partial(reference.run, one),
    track: Callable[[Iterable[Pixels]], Iterable[Pixels]] = iter,
) -> Comparison:
    """Run both networks on images.

    Args:
        pixels: uint8 (N, H, W, C).
        labels: (N,), the classes; None where they are not known.
        executor: gives what runs a network on a batch, such as ``lucid.Engine``; by default the
            reference, which the noise of layers always comes from.
        track: wraps the batches while they are worked through, for a progress bar.
    Raises:
        DataError: there is no image.
        ShapeError: as ``lucid.reference.run``.
    """
    if not len(pixels):
        raise DataError("a comparison needs at least one image, got none")
    layers = _layer_noise(network, quantised, pixels[:_LAYER_IMAGES])
    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    run_float, run_int8 = executor(network), executor(quantised)
    pairs = [(run_float(batch), run_int8(batch)) for batch in track(batches)]
    wanted, found = (np.concatenate(side) for side in zip(*pairs, strict=True))  # (N, K) each
    signal = wanted - wanted.mean(axis=1, keepdims=True)
    noise = found - found.mean(axis=1, keepdims=True) - signal
    classes, int8_classes = wanted.argmax(axis=1), found.argmax(axis=1)
    return Comparison(
        images=len(pixels),
        layers=layers,
        logits_decibels=_decibels(np.square(signal).sum(), np.square(noise).sum()),
        agreement=float((classes == int8_classes).mean()),
        float_top1=_hits(wanted, labels, 1),
        int8_top1=_hits(found, labels, 1),
        float_top5=_hits(wanted, labels, _TOP),
        int8_top5=_hits(found, labels, _TOP),
        worst=tuple(np.argsort(-np.square(noise).sum(axis=1), kind="stable")[:_WORST].tolist()),
        float_classes=tuple(classes.tolist()),
        int8_classes=tuple(int8_classes.tolist()),
    )


def _layer_noise(
    network: FloatNetwork, quantised: Int8Network, pixels: Pixels
) -> tuple[LayerNoise, ...]:
    sums: dict[str, NDArray[np.float64]] = {}  # (3, C): float squared, product, int8 squared
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        traces = reference.trace(network, batch), reference.trace(quantised, batch)
        for (layer, wanted), (_, found) in zip(*traces, strict=True):
            a, b = (
                np.moveaxis(side, 1, 0).reshape(layer.out_channels, -1).astype(np.float64)
                for side in (wanted, found)
            )
            products = np.stack([np.einsum("cv,cv->c", x, y) for x, y in ((a, a), (a, b), (b, b))])
            sums[layer.name] = sums.get(layer.name, 0) + products
    return tuple(
        LayerNoise(layer.name, layer.kind, _noise_of(sums[layer.name])) for layer in network.layers
    )


def _noise_of(sums: NDArray[np.float64]) -> float:
    """Decibels of a layer from its channels' sums, each with its best factor."""
    wanted, product, found = sums
    error = wanted - product**2 / np.where(found > 0, found, 1)
    return _decibels(wanted.sum(), np.maximum(error, 0).sum())


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return _MOST_DECIBELS
    return float(
        np.clip(10 * np.log10(max(signal, 1e-30) / noise), -_MOST_DECIBELS, _MOST_DECIBELS)
    )


def _hits(
    logits: NDArray[np.float32], labels: Sequence[int] | NDArray[np.integer[Any]] | None, count: int
) -> float | None:
    """The share of images whose label is among the ``count`` largest logits."""
    if labels is None or (count > 1 and count >= logits.shape[1]):
        return None
    # Stable, so that equal logits come in the order of their classes, as in predictions.
    best = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return float((best == np.asarray(labels)[:, np.newaxis]).any(axis=1).mean())
