"""Reading a folder as Hugging Face's hub has them: configurations beside the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lucid.errors import CheckpointError
from lucid.files import open_file
from lucid.importers.parts import Found
from lucid.importers.state_dicts import read_timm, read_transformers
from lucid.importers.torch_files import read_pickle, read_safetensors

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
MAX_CONFIG_BYTES = 4 * 1024**2

_READERS = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_pickle}
WEIGHTS = tuple(_READERS)  # the better first


def find_weights(folder: Path) -> Path:
    """The file of weights in a folder; raises CheckpointError if there is none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: holds none of {', '.join(WEIGHTS)}")


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a ``config.json``; raises CheckpointError unless it is that of a MobileNet-V1."""
    config = _read_json(path)
    kind = config.get("architecture", config.get("model_type"))
    if not re.match("mobilenet_?v1", str(kind)):
        raise CheckpointError(
            f"{path}: expected a model of the type mobilenet_v1, found {kind!r:.80}"
        )
    return config


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of timm, not of transformers."""
    return "architecture" in config


def read_folder(weights: Path, content: bytes) -> Found:
    """Read weights of timm or transformers and the configurations that stand beside them.

    Args:
        weights: path of the file that ``find_weights`` found.
        content: of that file.
    Raises:
        CheckpointError: a file is missing or damaged, or the network is another.
    """
    path = weights.with_name(CONFIG)
    config = read_config(path)
    state = _READERS[weights.name](content)
    try:
        if is_timm(config):
            return read_timm(state, config)
        preprocessor = weights.with_name(PREPROCESSOR)
        return read_transformers(
            state, config, _read_json(preprocessor) if preprocessor.exists() else {}
        )
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise CheckpointError(f"{path}: a value is not of the expected kind ({error})") from error


def _read_json(path: Path) -> Mapping[str, Any]:
    with open_file(path, max_bytes=MAX_CONFIG_BYTES, error=CheckpointError) as file:
        content = file.read()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return values
