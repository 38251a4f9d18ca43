"""Small valid checkpoints, and the parts of their files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lucid.architecture import MobileNetArguments, tensor_shapes
from lucid.checkpoint import Checkpoint
from lucid.images import Preprocessing


def small_checkpoint(**changes: Any) -> Checkpoint:
    """A checkpoint of the narrowest network (1/32), 90 KB, with ``changes`` to its fields."""
    arguments = changes.pop("arguments", MobileNetArguments(1 / 32, 3))
    generator = np.random.default_rng(0)
    tensors = {
        name: np.array(7)
        if name.endswith("num_batches_tracked")
        else generator.random(shape, np.float32)
        for name, shape in tensor_shapes(arguments).items()
    }
    fields = {
        "arguments": arguments,
        "class_names": ("daisy", "Löwenzahn", "バラ"),
        "preprocessing": Preprocessing(32),
        "metrics": {"top1": 0.5, "loss": 1},
        "provenance": {"command": "lucid train", "seed": 0, "data": {"images": [12, None, True]}},
        "tensors": tensors,
    }
    return Checkpoint(**(fields | changes))


def split_file(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as JSON, and the bytes of its tensors."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def join_file(header: Any, data: bytes) -> bytes:
    """The safetensors file with such a header; the header may be any JSON, or bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
