"""The layers and weights of Keras files as plain records, read without Keras or TensorFlow.

Three kinds hold both: ``.keras`` archives, ``.h5`` files of whole models, and ``.h5`` files of the
weights of Keras Applications, whose layers are known by name. Source of the layout: Keras 3.15,
``saving/saving_lib.py``, ``legacy/saving/legacy_h5_format.py`` and ``applications/mobilenet.py``.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucid.errors import CheckpointError, require
from lucid.importers.parts import TENSORFLOW_EPSILON, Array

HDF5 = b"\x89HDF\r\n\x1a\n"

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MODELS = ("Functional", "Sequential", "Model")
_MAX_ITEMS = 2**28  # numbers of a tensor
_MAX_MEMBER_BYTES = 2 * 1024**3
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

Weights = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True)
class Layer:
    """A layer: its class and configuration in Keras, and its weights by their names there.

    Weights are called kernel, bias, gamma, beta, moving_mean and moving_variance.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    weights: Weights

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.name!r:.80} ({self.kind:.40})"


def is_keras_archive(content: bytes) -> bool:
    """Whether the bytes are a ``.keras`` file; PyTorch's files are zip archives too."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _WEIGHTS in archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def read_keras_archive(content: bytes) -> list[Layer]:
    """The layers of a ``.keras`` file in the order in which an image passes them.

    Raises:
        CheckpointError: the file is damaged, or its layers are no chain.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            texts = []
            for name in (_CONFIG, _WEIGHTS):
                if archive.getinfo(name).file_size > _MAX_MEMBER_BYTES:
                    raise CheckpointError(f"{name} is above {_MAX_MEMBER_BYTES} bytes")
                texts.append(archive.read(name))
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"no whole .keras archive ({error})") from error
    root = _open(texts[1])
    return list(_flatten(_parse(texts[0]), _ArchiveWeights(root, "")))


def read_keras_h5(content: bytes) -> list[Layer]:
    """The layers of an ``.h5`` file in the order in which an image passes them.

    Raises:
        CheckpointError: the file is damaged, its layers are no chain, or it holds weights without
            the model, and not those of Keras Applications.
    """
    root = _open(content)
    if "model_config" in root.attrs:
        return list(_flatten(_parse(root.attrs["model_config"]), _H5Weights(root, "model_weights")))
    if "conv_pw_13" in root:
        return list(_applications(root))
    raise CheckpointError(
        "weights without the model that they belong to; save the whole model: "
        "model.save('model.keras')"
    )


class _ArchiveWeights:
    """Weights in an archive: layers are numbered by class, variables in a fixed order."""

    _GROUPS = {  # noqa: RUF012  # a table
        "Conv2D": "conv2d",
        "DepthwiseConv2D": "depthwise_conv2d",
        "BatchNormalization": "batch_normalization",
        "Dense": "dense",
        "Functional": "functional",
        "Sequential": "sequential",
    }

    def __init__(self, root: Any, path: str) -> None:
        self._root, self._path = root, path
        self._counts: Counter[str] = Counter()

    def enter(self, kind: str, name: str) -> _ArchiveWeights:  # noqa: ARG002
        """The weights of the next layer of a kind."""
        group = self._GROUPS.get(kind, kind)
        number = self._counts[group]
        self._counts[group] += 1
        return _ArchiveWeights(
            self._root, f"{self._path}layers/{group}{f'_{number}' if number else ''}/"
        )

    def read(self, names: tuple[str, ...]) -> dict[str, Array]:
        return {name: _array(self._root, f"{self._path}vars/{i}") for i, name in enumerate(names)}


class _H5Weights:
    """Weights in an .h5 file: a group for each layer of the outer model, full names inside."""

    def __init__(self, root: Any, group: str, name: str = "", *, is_outer: bool = True) -> None:
        self._root, self._group, self._name, self._is_outer = root, group, name, is_outer

    def enter(self, kind: str, name: str) -> _H5Weights:  # noqa: ARG002
        """The weights of a layer; those of an inner model's layers stand in the group of that."""
        group = f"{self._group}/{name}" if self._is_outer else self._group
        return _H5Weights(self._root, group, name, is_outer=False)

    def read(self, names: tuple[str, ...]) -> dict[str, Array]:
        if self._group not in self._root:
            raise CheckpointError(f"layer {self._name!r}: its weights are missing")
        group = self._root[self._group]
        found = {}
        for stored in group.attrs.get("weight_names", ()):
            path = stored.decode() if isinstance(stored, bytes) else str(stored)
            *parents, leaf = path.split("/")
            if self._name in parents:
                # Keras 2 wrote depthwise_kernel:0 for what Keras 3 calls kernel.
                found[leaf.split(":")[0].removeprefix("depthwise_")] = path
        for name in names:
            if name not in found:
                raise CheckpointError(f"layer {self._name!r}: its {name} is missing")
        return {name: _array(group, found[name]) for name in names}


def _flatten(model: Any, weights: _ArchiveWeights | _H5Weights) -> Iterator[Layer]:
    """The layers of a model and of the models in it; raises CheckpointError where they branch."""
    kind, config = model["class_name"], model["config"]
    if kind not in _MODELS:
        raise CheckpointError(f"a {kind!r:.80}, expected a Functional or Sequential model")
    # Before Keras 2.2.3 a Sequential was the list alone.
    layers = config if isinstance(config, list) else config["layers"]
    previous = None
    for layer in layers:
        name = layer["config"]["name"]
        inputs = list(_histories(layer.get("inbound_nodes", ())))
        if kind != "Sequential" and inputs != ([] if previous is None else [previous]):
            raise CheckpointError(
                f"layer {name!r:.80}: reads {', '.join(map(repr, inputs))[:80] or 'nothing'}, "
                f"expected {previous!r:.80}; only networks that are a MobileNet-V1 layer by layer "
                "can be imported"
            )
        previous = name
        inner = weights.enter(layer["class_name"], name)
        if layer["class_name"] in _MODELS:
            yield from _flatten(layer, inner)
        else:
            yield _layer(layer["class_name"], name, layer["config"], inner)


def _layer(
    kind: str, name: str, config: Mapping[str, Any], weights: _ArchiveWeights | _H5Weights
) -> Layer:
    names: tuple[str, ...] = ("kernel", "bias") if config.get("use_bias") else ("kernel",)
    if kind == "BatchNormalization":
        names = _BATCH_NORM[0 if config.get("scale", True) else 1 :]
        if not config.get("center", True):
            names = tuple(name for name in names if name != "beta")
    return Layer(kind, name, config, lambda: weights.read(names))


def _histories(value: Any) -> Iterator[str]:
    """The names of the layers that a layer's nodes read, in Keras 3's and Keras 2's writing."""
    if isinstance(value, Mapping):
        if "keras_history" in value:
            yield str(value["keras_history"][0])
            return
        value = list(value.values())
    elif isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str):
        yield value[0]
        return
    if isinstance(value, list | tuple):
        for item in value:
            yield from _histories(item)


def _applications(root: Any) -> Iterator[Layer]:
    """The layers of ``keras.applications.MobileNet``, for its files of weights."""
    weights = _H5Weights(root, "")

    def layer(kind: str, name: str, **config: Any) -> Layer:
        return _layer(kind, name, config, weights.enter(kind, name))

    names = ["conv1"]
    for block in range(1, 14):
        names += [f"conv_dw_{block}", f"conv_pw_{block}"]
    for name in names:
        is_depthwise = name.startswith("conv_dw")
        stride = 2 if name in ("conv1", "conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12") else 1
        kind = "DepthwiseConv2D" if is_depthwise else "Conv2D"
        side = 1 if name.startswith("conv_pw") else 3
        if is_depthwise and stride == 2:
            yield layer("ZeroPadding2D", f"{name}_pad", padding=((0, 1), (0, 1)))
        yield layer(
            kind,
            name,
            kernel_size=(side, side),
            strides=(stride, stride),
            padding="valid" if is_depthwise and stride == 2 else "same",
        )
        yield layer("BatchNormalization", f"{name}_bn", epsilon=TENSORFLOW_EPSILON)
        yield layer("ReLU", f"{name}_relu", max_value=6)
    if "conv_preds" in root:
        yield layer("GlobalAveragePooling2D", "global_average_pooling2d")
        yield layer("Conv2D", "conv_preds", kernel_size=(1, 1), strides=(1, 1), use_bias=True)


def _open(content: bytes) -> Any:
    h5py = require("h5py", extra="import")
    try:
        return h5py.File(io.BytesIO(content), "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"no whole HDF5 file ({error}); copy it again") from error


def _array(group: Any, path: str) -> Array:
    h5py = require("h5py", extra="import")
    dataset = group.get(path)
    if not isinstance(dataset, h5py.Dataset):
        raise CheckpointError(f"the weights {path!r:.120} are missing")
    # Such a dataset reads other files.
    if dataset.external or dataset.is_virtual or dataset.file != group.file:
        raise CheckpointError(f"the weights {path!r:.120} stand in another file")
    if dataset.size is None or dataset.size > _MAX_ITEMS or dataset.dtype.kind not in "fiu":
        raise CheckpointError(f"the weights {path!r:.120} are {dataset.size} {dataset.dtype}")
    return np.asarray(dataset[()], np.float32)


def _parse(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the model's configuration is no valid JSON ({error})") from error
