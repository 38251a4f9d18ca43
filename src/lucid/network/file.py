"""Reading and writing int8 networks: one .safetensors file that is complete on its own.

It is a file of ``lucid.container`` with the format ``lucid-network``; its JSON has the fields of
``Description`` and ``layers``, the structure of each. Their tensors carry their names: ``weight``,
``bias``, ``weight_scale``, and ``output_scale`` of all but the classifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.checks import check_names
from lucid.container import Format, TensorType, naming, open_container, write_container
from lucid.description import Description, parse_preprocessing
from lucid.errors import CheckpointError
from lucid.network.consistency import check_chain
from lucid.network.integer import Int8Layer, Int8Network, Int8Pool
from lucid.network.layers import Layer

FORMAT = Format("lucid-network", 1, "lucid.network.write_network")
MAX_LAYERS = 1000

_DTYPES: dict[str, np.dtype[Any]] = {
    "weight": np.dtype(np.int8),
    "bias": np.dtype(np.int32),
    "weight_scale": np.dtype(np.float32),
    "output_scale": np.dtype(np.float32),
}


def write_network(path: str | Path, network: Int8Network) -> None:
    """Write an int8 network whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: the folder is missing, read-only or full.
        CheckpointError: the header is over the limit that readers accept.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for layer in network.layers:
        for part in _tensor_types(layer):
            tensors[f"{layer.name}.{part}"] = np.asarray(getattr(layer, part), _DTYPES[part])
    values = {"layers": [layer.to_dict() for layer in network.layers]} | network.description_json()
    write_container(path, FORMAT, values, tensors)


def read_network(path: str | Path) -> Int8Network:
    """Read an int8 network.

    Raises:
        CheckpointError: the file is missing, truncated, oversized, of another program or version,
            or a field or tensor is wrong, or the network's numbers could overflow; the message
            names file and field.
    """
    with open_container(path, FORMAT) as container:
        values = container.values
        names = ["layers", *(part.name for part in fields(Description))]
        with naming("lucid"):
            check_names("a network", values, known=names, required=names)
        layers = _parse_layers(values.pop("layers"))
        preprocessing = parse_preprocessing(values.pop("preprocessing"))
        description = Description(preprocessing=preprocessing, **values)
        check_chain(description, layers)
        container.check(
            {
                f"{layer.name}.{part}": expected
                for layer in layers
                for part, expected in _tensor_types(layer).items()
            }
        )
        built = tuple(_build(layers, container.read_tensors()))
        return Int8Network(layers=built, **description.description_fields())


def _tensor_types(layer: Layer) -> dict[str, TensorType]:
    """The tensors of a layer, each named as the field that it is."""
    shapes: dict[str, tuple[int, ...]] = {}
    if layer.kind != "pool":
        per_channel = (layer.out_channels,)
        shapes = {"weight": layer.weight_shape, "bias": per_channel, "weight_scale": per_channel}
    if layer.kind != "dense":
        shapes["output_scale"] = ()
    return {part: TensorType(_DTYPES[part], shape) for part, shape in shapes.items()}


def _parse_layers(values: Any) -> list[Layer]:
    if not isinstance(values, list) or len(values) > MAX_LAYERS:
        raise CheckpointError(
            f"layers: expected a list of at most {MAX_LAYERS} layers, got {shorten(values)}"
        )
    known = [part.name for part in fields(Layer)]
    found = []
    for index, entry in enumerate(values):
        if not isinstance(entry, dict):
            raise CheckpointError(f"layers[{index}]: expected an object, got {shorten(entry)}")
        with naming(f"layers[{index}]"):
            check_names("a layer", entry, known=known, required=known)
            found.append(Layer(**entry))
    return found


def _build(
    layers: list[Layer], tensors: Mapping[str, NDArray[Any]]
) -> Iterator[Int8Layer | Int8Pool]:
    """Give each layer its tensors, and the scale of the one before."""
    input_scale = 1.0
    for layer in layers:
        parts: dict[str, Any] = {
            part: tensors[f"{layer.name}.{part}"] for part in _tensor_types(layer)
        }
        output_scale = float(parts.pop("output_scale", 1.0))
        parts |= layer.to_dict() | {"input_scale": input_scale, "output_scale": output_scale}
        yield Int8Pool(**parts) if layer.kind == "pool" else Int8Layer(**parts)
        input_scale = output_scale
