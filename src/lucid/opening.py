"""Files that can predict, opened as what they are: a checkpoint, or a network without PyTorch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucid import checkpoint, reference
from lucid.container import open_container
from lucid.description import JSON
from lucid.network import FloatLayer, FloatNetwork, Int8Layer, Int8Network, read_network
from lucid.network.file import FORMAT
from lucid.prediction import Predictor

__all__ = ["NetworkClassifier", "is_network", "load"]

_AT_ONCE = 4


def load(path: str | Path) -> Predictor:
    """Read a checkpoint or a network and make it ready to predict; no code runs from the file.

    A checkpoint gives a ``lucid.Classifier``, which needs PyTorch; a network, float or int8, gives
    a ``NetworkClassifier``, which does not.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or inconsistent.
        MissingDependencyError: it is a checkpoint, and PyTorch is not installed.
    """
    if is_network(path):
        return NetworkClassifier(read_network(path))
    from lucid.classifier import Classifier

    return Classifier.from_checkpoint(checkpoint.read_checkpoint(path))


def is_network(path: str | Path) -> bool:
    """Whether a file is a network; raises CheckpointError if it is no checkpoint either."""
    with open_container(path, checkpoint.FORMAT, FORMAT) as container:
        return container.format == FORMAT


class NetworkClassifier(Predictor):
    """A folded network together with its class names and its preprocessing.

    Args:
        network: float or int8.
    """

    def __init__(self, network: FloatNetwork | Int8Network) -> None:
        super().__init__(network.class_names, network.preprocessing)
        self.network = network

    @property
    def provenance(self) -> Mapping[str, JSON]:
        """Where the network came from."""
        return self.network.provenance

    @property
    def title(self) -> str:
        """What the network is, in a few words."""
        return "int8 network" if isinstance(self.network, Int8Network) else "float32 network"

    @property
    def map_side(self) -> int:
        """Cells along each side of a class-activation map; one cell alone shows no place."""
        side = self.preprocessing.resolution
        for layer in self.network.layers[:-2]:  # without pool and classifier
            side = layer.output_side(side)
        return side

    def _logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _execute(self.network, pixels)

    def _maps(self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        (last, features), _, (dense, _) = deque(reference.trace(self.network, pixels), maxlen=3)
        assert isinstance(dense, FloatLayer | Int8Layer)
        weights = dense.weight[classes].astype(np.float32)  # (N, c)
        features = features.astype(np.float32)  # (N, c, h, w)
        if isinstance(dense, Int8Layer) and isinstance(last, Int8Layer):
            weights *= dense.weight_scale[classes, np.newaxis]
            features *= np.float32(last.output_scale)
        maps: NDArray[np.float32] = np.einsum("nchw,nc->nhw", features, weights)
        return maps


def _execute(network: FloatNetwork | Int8Network, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of a batch; the one place that knows what executes networks."""
    # A few at a time, since the reference needs some 50 MB an image at resolution 224.
    parts = range(0, len(pixels), _AT_ONCE)
    return np.concatenate([reference.run(network, pixels[i : i + _AT_ONCE]) for i in parts])
