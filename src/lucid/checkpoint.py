"""Reading and writing checkpoints: one .safetensors file that is complete on its own.

It is a file of ``lucid.container`` with the format ``lucid-checkpoint``; its JSON has the fields of
``Header``, and its tensors are those of ``lucid.architecture.tensor_shapes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucid.architecture import MobileNetArguments, tensor_shapes
from lucid.checks import check_names
from lucid.container import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    Container,
    Format,
    Tensors,
    TensorType,
    check_tensor_names,
    naming,
    open_container,
    write_container,
)
from lucid.description import JSON, Description, check_class_names, parse_preprocessing
from lucid.errors import CheckpointError

__all__ = [
    "JSON",
    "MAX_FILE_BYTES",
    "MAX_HEADER_BYTES",
    "Checkpoint",
    "Header",
    "check_class_names",
    "read_checkpoint",
    "read_header",
    "write_checkpoint",
]

FORMAT = Format("lucid-checkpoint", 1, "'lucid train' or 'lucid import'")


@dataclass(frozen=True, kw_only=True)
class Header(Description):
    """What a checkpoint says of its tensors.

    Args:
        arguments: of the model.
        class_names: one for each class, in the order of the logits; unique, not empty.
        preprocessing: what is done to a picture before the model sees it.
        metrics: finite numbers by name, such as ``{"top1": 0.82}``.
        provenance: where the model came from, as a JSON object: command, seed, data, and so on.
    Raises:
        CheckpointError: a field is out of range or contradicts another; it is named.
    """

    arguments: MobileNetArguments

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fits(classes=self.arguments.num_classes, channels=self.arguments.in_channels)


# Arrays have no single truth value, so neither has a comparison of checkpoints.
@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint(Header):
    """A header and the tensors it describes.

    Args:
        tensors: those of ``lucid.architecture.tensor_shapes``, finite, all float32 but
            ``num_batches_tracked``, which is int64.
    Raises:
        CheckpointError: as ``Header``; or a tensor is missing, unknown, of another shape or dtype,
            not finite, or a negative variance.
    """

    tensors: Tensors

    def __post_init__(self) -> None:
        super().__post_init__()
        types = _tensor_types(self.arguments)
        check_tensor_names(self.tensors, types)
        for name, expected in types.items():
            _check_tensor(name, self.tensors[name], expected)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: the folder is missing, read-only or full.
        CheckpointError: the header is over the limit that readers accept.
    """
    values = {"arguments": checkpoint.arguments.to_dict()} | checkpoint.description_json()
    write_container(path, FORMAT, values, checkpoint.tensors)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, header and tensors.

    Raises:
        CheckpointError: the file is missing, truncated, oversized, of another program or version,
            or a field or tensor is wrong; the message names file and field.
    """
    with open_container(path, FORMAT) as container:
        header = _read_header(container)
        parts = {part.name: getattr(header, part.name) for part in fields(header)}
        return Checkpoint(tensors=container.read_tensors(), **parts)


def read_header(path: str | Path) -> Header:
    """Read what a checkpoint says of itself, without its tensors; raises as ``read_checkpoint``."""
    with open_container(path, FORMAT) as container:
        return _read_header(container)


def _read_header(container: Container) -> Header:
    """Check all that stands before the tensors, and that they can follow."""
    values = container.values
    names = [part.name for part in fields(Header)]
    with naming("lucid"):
        check_names("a checkpoint", values, known=names, required=names)
    if not isinstance(values["arguments"], dict):
        raise CheckpointError(f"arguments: expected an object, got {shorten(values['arguments'])}")
    with naming("arguments"):
        arguments = MobileNetArguments.from_dict(values["arguments"])
    preprocessing = parse_preprocessing(values["preprocessing"])
    header = Header(**(values | {"arguments": arguments, "preprocessing": preprocessing}))
    container.check(_tensor_types(arguments))
    return header


def _tensor_types(arguments: MobileNetArguments) -> Mapping[str, TensorType]:
    return {
        name: TensorType(
            np.dtype(np.int64 if name.endswith(".num_batches_tracked") else np.float32), shape
        )
        for name, shape in tensor_shapes(arguments).items()
    }


def _check_tensor(name: str, array: NDArray[Any], expected: TensorType) -> None:
    dtype, shape = expected
    if array.dtype != dtype or array.shape != shape:
        raise CheckpointError(
            f"tensor {name}: expected {dtype} {shape}, got {array.dtype} {array.shape}"
        )
    if not np.isfinite(array).all():
        raise CheckpointError(f"tensor {name}: holds values that are not finite (NaN or infinity)")
    if name.endswith(".running_var") and array.min() < 0:
        raise CheckpointError(f"tensor {name}: holds a negative variance")
