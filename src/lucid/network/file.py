"""Reading and writing networks: one .safetensors file that is complete on its own.

It is a file of ``lucid.container`` with the format ``lucid-network``; its JSON has the fields of
``Description``, ``precision``, and ``layers``, the structure of each. Their tensors carry their
names: ``weight`` and ``bias``, in int8 also ``weight_scale``, and ``output_scale`` of all but the
classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucid import checkpoint
from lucid.checks import check_choice, check_names
from lucid.container import (
    MAX_FILE_BYTES,
    Format,
    TensorType,
    container_bytes,
    naming,
    open_container,
    write_container,
)
from lucid.description import Description, parse_preprocessing
from lucid.errors import CheckpointError
from lucid.files import open_file
from lucid.network.consistency import check_chain
from lucid.network.floating import FloatLayer, FloatNetwork, FloatPool
from lucid.network.integer import Int8Layer, Int8Network, Int8Pool
from lucid.network.layers import Layer

FORMAT = Format("lucid-network", 1, "lucid.network.write_network")
MAX_LAYERS = 1000
_START = f'{{"__metadata__":{{"format":"{FORMAT.name}",'.encode()

StoredPrecision = Literal["float32", "int8"]
Network = FloatNetwork | Int8Network

_DTYPES: dict[StoredPrecision, dict[str, np.dtype[Any]]] = {
    "float32": {
        "weight": np.dtype(np.float32),
        "bias": np.dtype(np.float32),
    },
    "int8": {
        "weight": np.dtype(np.int8),
        "bias": np.dtype(np.int32),
        "weight_scale": np.dtype(np.float32),
        "output_scale": np.dtype(np.float32),
    },
}


@dataclass(frozen=True)
class NetworkHeader:
    """What a network file says before its tensors."""

    precision: StoredPrecision
    layers: list[Layer]
    description: Description


def write_network(path: str | Path, network: Network) -> None:
    """Write a network whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: the folder is missing, read-only or full.
        CheckpointError: the header is over the limit that readers accept.
    """
    write_container(path, FORMAT, *_contents(network))


def network_bytes(network: Network) -> bytes:
    """What ``write_network`` writes.

    Raises:
        CheckpointError: the header is over the limit that readers accept.
    """
    return container_bytes(FORMAT, *_contents(network))


def read_network(path: str | Path) -> Network:
    """Read a network, float or int8 as the file says.

    Raises:
        CheckpointError: the file is missing, truncated, oversized, of another program or version,
            or a field or tensor is wrong, or the network's numbers could overflow; the message
            names file and field.
    """
    with open_container(path, FORMAT) as container:
        header = parse_header(container.values)
        container.check(
            {
                f"{layer.name}.{part}": expected
                for layer in header.layers
                for part, expected in _tensor_types(layer, header.precision).items()
            }
        )
        build = _float_network if header.precision == "float32" else _int8_network
        return build(header, container.read_tensors())


def is_network(path: str | Path) -> bool:
    """Whether a file is a network; raises CheckpointError if it is no checkpoint either.

    What a network file holds beside its format is checked by who reads it.
    """
    with open_file(path, max_bytes=MAX_FILE_BYTES, error=CheckpointError) as file:
        if file.read(8 + len(_START))[8:] == _START:  # as this package writes it
            return True
    with open_container(path, checkpoint.FORMAT, FORMAT) as container:
        return container.format == FORMAT


def parse_header(values: dict[str, Any]) -> NetworkHeader:
    """Check the JSON object of a network file; raises CheckpointError, NetworkError."""
    names = ["precision", "layers", *(part.name for part in fields(Description))]
    with naming("lucid"):
        check_names("a network", values, known=names, required=names)
        check_choice("precision", values["precision"], tuple(_DTYPES))
    layers = _parse_layers(values["layers"])
    described = {part.name: values[part.name] for part in fields(Description)}
    described["preprocessing"] = parse_preprocessing(values["preprocessing"])
    description = Description(**described)
    check_chain(description, layers)
    return NetworkHeader(values["precision"], layers, description)


def _contents(network: Network) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON object and the tensors of a network."""
    precision: StoredPrecision = "float32" if isinstance(network, FloatNetwork) else "int8"
    tensors = {
        f"{layer.name}.{part}": np.asarray(getattr(layer, part), expected.dtype)
        for layer in network.layers
        for part, expected in _tensor_types(layer, precision).items()
    }
    layers = [layer.to_dict() for layer in network.layers]
    values = {"precision": precision, "layers": layers} | network.description_json()
    return values, tensors


def _tensor_types(layer: Layer, precision: StoredPrecision) -> dict[str, TensorType]:
    """The tensors of a layer, each named as the field that it is."""
    shapes: dict[str, tuple[int, ...]] = {}
    if layer.kind != "pool":
        per_channel = (layer.out_channels,)
        shapes = {"weight": layer.weight_shape, "bias": per_channel, "weight_scale": per_channel}
    if layer.kind != "dense":
        shapes["output_scale"] = ()
    dtypes = _DTYPES[precision]
    return {
        part: TensorType(dtypes[part], shape) for part, shape in shapes.items() if part in dtypes
    }


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


def _float_network(header: NetworkHeader, tensors: Mapping[str, NDArray[Any]]) -> FloatNetwork:
    layers: list[FloatLayer | FloatPool] = []
    for layer in header.layers:
        parts = _parts(header, layer, tensors)
        layers.append(FloatPool(**parts) if layer.kind == "pool" else FloatLayer(**parts))
    return FloatNetwork(layers=tuple(layers), **header.description.description_fields())


def _int8_network(header: NetworkHeader, tensors: Mapping[str, NDArray[Any]]) -> Int8Network:
    """Each layer has its tensors, and the scale of the one before."""
    layers: list[Int8Layer | Int8Pool] = []
    input_scale = 1.0
    for layer in header.layers:
        parts = _parts(header, layer, tensors)
        output_scale = float(parts.pop("output_scale", 1.0))
        parts |= {"input_scale": input_scale, "output_scale": output_scale}
        layers.append(Int8Pool(**parts) if layer.kind == "pool" else Int8Layer(**parts))
        input_scale = output_scale
    return Int8Network(layers=tuple(layers), **header.description.description_fields())


def _parts(
    header: NetworkHeader, layer: Layer, tensors: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Structure and tensors of a layer, by field."""
    types = _tensor_types(layer, header.precision)
    return layer.to_dict() | {part: tensors[f"{layer.name}.{part}"] for part in types}
