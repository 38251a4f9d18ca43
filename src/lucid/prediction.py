"""From a network that runs to labels and probabilities for photos, whatever runs it. No PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from io import IOBase
from itertools import count, islice
from pathlib import Path
from reprlib import repr as shorten  # of a whole data set, the list of classes is long
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucid import images
from lucid.architecture import MAX_CLASSES
from lucid.checks import check_integer
from lucid.description import JSON
from lucid.errors import ConfigError, ImageError, ShapeError
from lucid.images import Preprocessing
from lucid.parallel import map_ahead

__all__ = ["Classified", "Prediction", "Predictor", "softmax"]

Source = str | Path | bytes | BinaryIO | Image.Image | NDArray[np.uint8]

# Large enough to keep every core busy, small enough that a batch at 224 pixels takes well under a
# second; its size does not change results beyond float32 rounding.
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image, or why it can't say anything.

    ``labels`` holds (class name, probability), the most probable first; it is empty where ``error``
    says why the image could not be read.
    """

    source: str
    labels: tuple[tuple[str, float], ...]
    error: str | None = None


@dataclass(frozen=True)
class Classified:
    """One image on its way through a classifier: what the network saw and what it answered.

    ``pixels`` are uint8 (resolution, resolution, C) and ``logits`` float32 (K,), both empty where
    ``error`` says why the image could not be read.
    """

    source: str
    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    error: str | None = None


class Predictor(ABC):
    """A network that is ready to run, together with its class names and its preprocessing.

    Args:
        class_names: one for each class.
        preprocessing: what is done to a picture before the network sees it.
    """

    def __init__(self, class_names: Iterable[str], preprocessing: Preprocessing) -> None:
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, JSON]:
        """Where the network came from; empty where nobody said."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the network is, in a few words."""

    @property
    @abstractmethod
    def map_side(self) -> int:
        """Cells along each side of a class-activation map; one cell alone shows no place."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of images that have the network's resolution already.

        uint8 (N, resolution, resolution, C) -> float32 (N, K), or one image without N -> (K,).

        Raises:
            ShapeError: another shape or dtype.
        """
        batch = self._checked(pixels)
        logits = np.empty((len(batch), len(self.class_names)), np.float32)
        for start in range(0, len(batch), BATCH):
            part = slice(start, start + BATCH)
            logits[part] = self._logits(batch[part])
        return logits if pixels.ndim == 4 else logits[0]

    @abstractmethod
    def _logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of a checked batch."""

    @abstractmethod
    def _maps(self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class-activation maps of a checked batch."""

    def predict(self, sources: Iterable[Source], top: int = 5) -> list[Prediction]:
        """The most probable classes of each image, in the order of the images.

        Args:
            sources: paths, bytes or binary streams of image files, or upright Pillow images and
                uint8 arrays (H, W), (H, W, 1) or (H, W, 3) of any size.
            top: labels per image, at least 1; all classes where there are fewer.
        Returns:
            One for each source; a picture that can't be read gets one with its ``error``.
        Raises:
            ConfigError: ``top`` is below 1, or ``sources`` is no list of images.
            ShapeError: an array is no image.
        """
        check_integer("top", top, 1, MAX_CLASSES)
        return [self.prediction(one, top) for one in self.classify(sources)]

    def classify(self, sources: Iterable[Source]) -> Iterator[Classified]:
        """Pixels and logits of each image, in the order of the images.

        Pictures are decoded in threads, ahead of the model, and only a few batches of them are in
        memory at a time; sources and errors are as in ``predict``.
        """
        _check_several(sources)
        decoded = map_ahead(self._decode, zip(count(1), sources, strict=False), ahead=2 * BATCH)
        with closing(decoded):
            while batch := list(islice(decoded, BATCH)):
                readable = [one.pixels for one in batch if one.error is None]
                logits = iter(self(np.stack(readable)) if readable else ())
                for one in batch:
                    yield one if one.error else replace(one, logits=next(logits))

    def prediction(self, one: Classified, top: int) -> Prediction:
        """The ``top`` most probable classes of one answer of ``classify``."""
        if one.error is not None:
            return Prediction(one.source, (), one.error)
        probabilities = softmax(one.logits)
        # Stable, so that equally probable classes come in their own order.
        best = np.argsort(-probabilities, kind="stable")[:top]
        labels = tuple((self.class_names[k], float(probabilities[k])) for k in best)
        return Prediction(one.source, labels)

    def class_activation_map(
        self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Where in each image the evidence for a class is (Zhou et al. 2016, arXiv:1512.04150).

        Exact for this architecture, since only an average pool and one linear layer follow the last
        convolution: the mean of a map plus the classifier's bias is the logit, but for the rounding
        of an int8 network.

        Args:
            pixels: uint8 (N, resolution, resolution, C).
            classes: int (N,), the class to explain in each image.
        Returns:
            float32 (N, map_side, map_side), one value for each cell of the last feature map.
        Raises:
            ShapeError: another shape or dtype, or there is no such class.
        """
        pixels = self._checked(pixels)
        classes = np.asarray(classes)
        known = np.isin(classes, np.arange(len(self.class_names))).all()
        if classes.shape != pixels.shape[:1] or classes.dtype.kind not in "iu" or not known:
            raise ShapeError(
                f"class_activation_map expects one class, 0 to {len(self.class_names) - 1}, for "
                f"each of {len(pixels)} images, got {shorten(classes.tolist())}"
            )
        return self._maps(pixels, classes.astype(np.int64))

    def _checked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side, channels = self.preprocessing.resolution, self.preprocessing.channels
        if not isinstance(pixels, np.ndarray):
            raise ShapeError(
                f"the classifier expects a NumPy array of images, got {type(pixels).__name__}; "
                "predict() takes a list of files"
            )
        batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels
        if batch.ndim == 4 and batch.shape[1:] == (side, side, channels):
            if batch.dtype == np.uint8:
                return batch
            hint = "; give the pixels as they are, 0 to 255, not normalised"
        elif batch.ndim == 4 and batch.shape[1:] == (channels, side, side):
            hint = "; channels come first: transpose to (N, H, W, C)"
        else:
            hint = "; predict() resizes pictures of any size"
        raise ShapeError(
            f"the classifier expects uint8 images (N, {side}, {side}, {channels}), "
            f"got {pixels.dtype} {pixels.shape}{hint}"
        )

    def _decode(self, numbered: tuple[int, Source]) -> Classified:
        number, source = numbered
        name = source if isinstance(source, str | Path) else getattr(source, "name", None)
        name = str(name or f"image {number}")
        nothing = np.empty(0, np.float32)
        try:
            return Classified(name, self._read(source, name), nothing)
        except ImageError as error:
            return Classified(name, np.empty(0, np.uint8), nothing, str(error))

    def _read(self, source: Source, name: str) -> NDArray[np.uint8]:
        if isinstance(source, np.ndarray):
            source = _picture(source)
        if not isinstance(source, Image.Image):
            return images.load(source, self.preprocessing, name=name)
        try:
            source.load()
        except OSError as error:  # Pillow opens lazily: damage shows here
            raise ImageError(f"{name}: damaged or truncated ({error})") from error
        return images.preprocess(source, self.preprocessing)


def _check_several(sources: Iterable[Source]) -> None:
    """Refuse one image where several are expected; iterating over it would give nonsense."""
    lone_array = isinstance(sources, np.ndarray) and sources.ndim != 4
    if lone_array or isinstance(sources, str | Path | bytes | IOBase | Image.Image):
        raise ConfigError("predict and classify take a list of images; put the image into one")


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    is_image = pixels.ndim in (2, 3) and pixels.shape[2:] in ((), (1,), (3,)) and pixels.size
    if pixels.dtype != np.uint8 or not is_image:
        raise ShapeError(
            f"an image must be uint8 (H, W), (H, W, 1) or (H, W, 3), "
            f"got {pixels.dtype} {pixels.shape}"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of logits (..., K); float64, so that they sum to 1 to the last digit shown."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities
