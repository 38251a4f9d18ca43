"""Whatever the bytes of a checkpoint are: it is read, or refused with a CheckpointError."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

from checkpoint_helpers import join_file, small_checkpoint, split_file
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.checkpoint import read_checkpoint, read_header, write_checkpoint
from lucid.errors import CheckpointError


def _valid_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        write_checkpoint(path, small_checkpoint())
        return path.read_bytes()


VALID = _valid_file()
HEADER, DATA = split_file(VALID)
FIELDS = json.loads(HEADER["__metadata__"]["lucid"])

# What hostile JSON is made of: every type, extremes, and the texts that the format itself uses.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["F32", "I64", "F8_E4M3", "1", "2", "RGB", "relu6", "\ud800", "\x1b", "{}"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def read_or_refuse(content: bytes) -> None:
    """Read it with both readers, in at most a few times the memory of a valid file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        tracemalloc.start()
        try:
            for read in (read_header, read_checkpoint):
                with suppress(CheckpointError):
                    assert len(read(path).class_names) == 3
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 * len(content) + 40 * len(json.dumps(HEADER)) + 10**6


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


def test_the_valid_file_is_read() -> None:
    """Else the tests below would prove nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(join_file(HEADER, DATA))
        assert read_checkpoint(path).class_names == small_checkpoint().class_names
        assert len(places(FIELDS)) > 25
        assert len(places(HEADER)) > 500


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=400), framed=st.booleans())
def test_random_bytes(content: bytes, framed: bool) -> None:
    read_or_refuse(join_file(content, b"") if framed else content)


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=30)),
        min_size=1,
        max_size=4,
    ),
    reach=st.sampled_from([16, 2000, len(VALID)]),
)
def test_damaged_bytes(edits: list[tuple[float, int, bytes]], reach: int) -> None:
    """Bytes changed, taken out and put in; mostly in the header."""
    content = bytearray(VALID)
    for share, removed, inserted in edits:
        position = int(share * min(reach, len(content)))
        content[position : position + removed] = inserted
    read_or_refuse(bytes(content))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(VALID) + 50))
def test_truncated_and_extended(length: int) -> None:
    read_or_refuse((VALID + b"\0" * 50)[:length])


@settings(max_examples=250, deadline=None)
@given(place=st.sampled_from(places(FIELDS)), value=values)
def test_altered_fields(place: tuple[Any, ...], value: Any) -> None:
    """json.dumps writes NaN, lone surrogates and numbers of any length, as hostile programs do."""
    text = json.dumps(put(FIELDS, place, value))
    read_or_refuse(join_file(put(HEADER, ("__metadata__", "lucid"), text), DATA))


@settings(max_examples=250, deadline=None)
@given(place=st.sampled_from(places(HEADER)), value=values)
def test_altered_header(place: tuple[Any, ...], value: Any) -> None:
    read_or_refuse(join_file(put(HEADER, place, value), DATA))


@settings(max_examples=50, deadline=None)
@given(opening=st.sampled_from([b"[", b'{"a":', b"[[],", b'{"__metadata__":{"lucid":']))
def test_deep_nesting(opening: bytes) -> None:
    read_or_refuse(join_file(opening * 50_000, DATA))
