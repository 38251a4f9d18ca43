"""What travels with every network, whatever its form: class names, preprocessing, where it is from.

Whoever has a checkpoint or a network has these too, so the labels and the pixels are right.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import repr as shorten  # texts of a file may be long
from typing import Any

from lucid.checks import check_number
from lucid.container import naming
from lucid.errors import CheckpointError
from lucid.images import Preprocessing

MAX_TEXT_LENGTH = 256  # of a class name, and of the name of a metric
MAX_METRICS = 1000
MAX_DEPTH = 8  # of objects and lists in the provenance

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a network is for, where it came from, and how good it is.

    Args:
        class_names: one for each class, in the order of the logits; unique, not empty.
        preprocessing: what is done to a picture before the network sees it.
        metrics: finite numbers by name, such as ``{"top1": 0.82}``.
        provenance: where the network came from, as a JSON object: command, seed, data, and so on.
    Raises:
        CheckpointError: a field is out of range; it is named.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check_metrics(self.metrics)
        if not isinstance(self.provenance, Mapping):
            raise CheckpointError(f"provenance: expected an object, got {shorten(self.provenance)}")
        _check_json("provenance", dict(self.provenance), MAX_DEPTH)

    def check_fits(self, *, classes: int, channels: int) -> None:
        """Raise CheckpointError unless it fits a network of so many classes and input channels."""
        if len(self.class_names) != classes:
            raise CheckpointError(
                f"class_names: {len(self.class_names)} names for a model of {classes} classes"
            )
        if self.preprocessing.channels != channels:
            raise CheckpointError(
                f"preprocessing: {self.preprocessing.color} pictures have "
                f"{self.preprocessing.channels} channels, the model takes {channels}"
            )

    def description_fields(self) -> dict[str, Any]:
        """The fields of the description alone, by name; to build a checkpoint or network with."""
        return {name: getattr(self, name) for name in Description.__dataclass_fields__}

    def description_json(self) -> dict[str, Any]:
        """The fields of the description alone, as JSON values."""
        return {
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "provenance": dict(self.provenance),
        }


def parse_preprocessing(values: Any) -> Preprocessing:
    """Preprocessing from the JSON of a file; raises CheckpointError that names what is wrong."""
    if not isinstance(values, dict):
        raise CheckpointError(f"preprocessing: expected an object, got {shorten(values)}")
    with naming("preprocessing"):
        return Preprocessing.from_dict(values)


def check_class_names(names: object) -> None:
    """Raise CheckpointError unless ``names`` can stand in a checkpoint.

    That is a tuple or list of unique texts of 1 to 256 characters, none a control character.
    """
    if not isinstance(names, tuple | list):
        raise CheckpointError(f"class_names: expected a list of names, got {shorten(names)}")
    seen = set()
    for index, name in enumerate(names):
        if not _is_text(name) or not name.strip() or len(name) > MAX_TEXT_LENGTH:
            raise CheckpointError(
                f"class_names: name {index} must be a text of 1 to {MAX_TEXT_LENGTH} printable "
                f"characters, got {shorten(name)}"
            )
        if name in seen:
            raise CheckpointError(f"class_names: {shorten(name)} stands there twice")
        seen.add(name)


def _check_metrics(metrics: Any) -> None:
    if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
        raise CheckpointError(
            f"metrics: expected an object of at most {MAX_METRICS} numbers, got {shorten(metrics)}"
        )
    for name, value in metrics.items():
        if not _is_text(name) or not 0 < len(name) <= MAX_TEXT_LENGTH:
            raise CheckpointError(f"metrics: {shorten(name)} is no name")
        with naming("metrics"):
            check_number(name, value, "a finite number", lambda _: True)


def _check_json(where: str, value: Any, depth: int) -> None:
    """Check that a value is JSON that every reader takes, with at most ``depth`` nested levels."""
    if isinstance(value, list | dict):
        if depth == 0:
            raise CheckpointError(f"{where}: nested more than {MAX_DEPTH} levels deep")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(value, dict) and not _is_text(key):
                raise CheckpointError(f"{where}: {shorten(key)} is no name")
            _check_json(f"{where}[{shorten(key)}]", item, depth - 1)
        return
    is_whole = isinstance(value, int) and abs(value) < 2**63
    is_number = isinstance(value, float) and math.isfinite(value)
    if not (value is None or is_whole or is_number or _is_text(value, allowed="\n\t")):
        raise CheckpointError(f"{where}: expected a JSON value, got {shorten(value)}")


def _is_text(value: object, allowed: str = "") -> bool:
    """Whether a value is a text that a terminal can show: no control code, no lone surrogate."""
    if not isinstance(value, str):
        return False
    return value.isprintable() or not any(  # almost all are, and asking for that is quick
        unicodedata.category(character) in ("Cc", "Cs") and character not in allowed
        for character in value
    )
