"""Whatever the bytes of a checkpoint are: it is read, or refused with a CheckpointError."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

from checkpoint_helpers import (
    hostile_values,
    join_file,
    places,
    put,
    small_checkpoint,
    split_file,
)
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
@given(place=st.sampled_from(places(FIELDS)), value=hostile_values)
def test_altered_fields(place: tuple[Any, ...], value: Any) -> None:
    """json.dumps writes NaN, lone surrogates and numbers of any length, as hostile programs do."""
    text = json.dumps(put(FIELDS, place, value))
    read_or_refuse(join_file(put(HEADER, ("__metadata__", "lucid"), text), DATA))


@settings(max_examples=250, deadline=None)
@given(place=st.sampled_from(places(HEADER)), value=hostile_values)
def test_altered_header(place: tuple[Any, ...], value: Any) -> None:
    read_or_refuse(join_file(put(HEADER, place, value), DATA))


@settings(max_examples=50, deadline=None)
@given(opening=st.sampled_from([b"[", b'{"a":', b"[[],", b'{"__metadata__":{"lucid":']))
def test_deep_nesting(opening: bytes) -> None:
    read_or_refuse(join_file(opening * 50_000, DATA))
