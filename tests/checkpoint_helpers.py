"""Small valid checkpoints, the parts of their files, and what hostile files have in them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st

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


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        items = []
    inside = [place for key, item in items for place in places(item, (*prefix, key))]
    return [*inside, *((*prefix, key) for key, _ in items)]


def put(root: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of a JSON value with another value at a path."""
    root = json.loads(json.dumps(root))
    parent = root
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return root


# What hostile JSON is made of: every type, extremes, and the texts that the format itself uses.
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["F32", "I64", "F8_E4M3", "1", "2", "RGB", "relu6", "\ud800", "\x1b", "{}"]),
)
hostile_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
