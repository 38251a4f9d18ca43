"""Whatever the bytes of a network are: it is read, or refused with a CheckpointError.

What was read runs: no number of an int8 network overflows. The engine, which has a reader of its
own, takes and refuses the same files.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_helpers import hostile_values, join_file, places, put, split_file
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import described

from lucid import reference
from lucid.engine import Engine
from lucid.errors import CheckpointError
from lucid.network import (
    FloatLayer,
    FloatNetwork,
    FloatPool,
    Int8Network,
    network_bytes,
    read_network,
)
from lucid.quantization import quantise

PIXELS = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * 5


def _valid_network() -> FloatNetwork:
    """Stem, one pair, pool and classifier."""
    random = np.random.default_rng(0)

    def layer(name: str, kind: Any, before: int, after: int, **fields: Any) -> FloatLayer:
        kernel = () if kind == "dense" else (1, 1) if kind == "pointwise" else (3, 3)
        shape = (after, 1 if kind == "depthwise" else before, *kernel)
        return FloatLayer(
            name=name,
            kind=kind,
            in_channels=before,
            out_channels=after,
            weight=random.uniform(-1, 1, shape).astype(np.float32),
            bias=random.uniform(-1, 1, after).astype(np.float32),
            **fields,
        )

    layers = (
        layer("conv1", "stem", 3, 4, stride=2, activation="relu6"),
        layer("conv2.depthwise", "depthwise", 4, 4, activation="relu6"),
        layer("conv2.pointwise", "pointwise", 4, 5, activation="relu6"),
        FloatPool(name="avgpool", kind="pool", in_channels=5, out_channels=5),
        layer("fc", "dense", 5, 2),
    )
    return FloatNetwork(layers=layers, **described(layers))


FLOAT = _valid_network()
INT8 = quantise(FLOAT, {layer.name: 4.0 for layer in FLOAT.layers[:-1]})
VALID, FLOAT_VALID = network_bytes(INT8), network_bytes(FLOAT)
HEADER, DATA = split_file(VALID)
FIELDS = json.loads(HEADER["__metadata__"]["lucid"])


def read_or_refuse(content: bytes) -> None:
    network, engine = None, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        with suppress(CheckpointError):
            network = read_network(path)
        with suppress(CheckpointError):
            engine = Engine(path)
    assert (network is None) == (engine is None)
    if network is None or engine is None:
        return
    found = engine(PIXELS)
    if isinstance(network, Int8Network):
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, reference.run(network, PIXELS))


def test_the_valid_file_is_read() -> None:
    """Else the tests below would prove nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(join_file(HEADER, DATA))
        assert reference.run(read_network(path), PIXELS).shape == (1, 2)
        assert Engine(path)(PIXELS).shape == (1, 2)
    assert len(places(FIELDS)) > 40
    assert len(places(HEADER)) > 100


@settings(max_examples=150)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=30)),
        min_size=1,
        max_size=4,
    ),
    reach=st.sampled_from([16, 1000, len(VALID)]),
)
def test_damaged_bytes(edits: list[tuple[float, int, bytes]], reach: int) -> None:
    """Bytes changed, taken out and put in; mostly in the header."""
    content = bytearray(VALID)
    for share, removed, inserted in edits:
        position = int(share * min(reach, len(content)))
        content[position : position + removed] = inserted
    read_or_refuse(bytes(content))


@settings(max_examples=150)
@given(st.integers(0, len(DATA) - 1), st.binary(min_size=1, max_size=16))
def test_altered_tensors(position: int, inserted: bytes) -> None:
    """Any scale, weight and bias: the layout stays whole, so the layers themselves must judge."""
    inserted = inserted[: len(DATA) - position]
    data = DATA[:position] + inserted + DATA[position + len(inserted) :]
    read_or_refuse(join_file(HEADER, data))


@settings(max_examples=150)
@given(
    position=st.integers(0, len(FLOAT_VALID) - 1),
    inserted=st.sampled_from([b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"x"]),
)
def test_altered_float_network(position: int, inserted: bytes) -> None:
    """Infinities and NaN among them; sums of large numbers may become such, which is no error."""
    read_or_refuse(FLOAT_VALID[:position] + inserted + FLOAT_VALID[position + len(inserted) :])


@settings(max_examples=50)
@given(length=st.integers(0, len(VALID) + 50))
def test_truncated_and_extended(length: int) -> None:
    read_or_refuse((VALID + b"\0" * 50)[:length])


@settings(max_examples=200)
@given(place=st.sampled_from(places(FIELDS)), value=hostile_values)
def test_altered_fields(place: tuple[Any, ...], value: Any) -> None:
    text = json.dumps(put(FIELDS, place, value))
    read_or_refuse(join_file(put(HEADER, ("__metadata__", "lucid"), text), DATA))


@settings(max_examples=150)
@given(place=st.sampled_from(places(HEADER)), value=hostile_values)
def test_altered_header(place: tuple[Any, ...], value: Any) -> None:
    read_or_refuse(join_file(put(HEADER, place, value), DATA))
