"""A checkpoint comes back as it was written, and what is wrong with a file is named."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from checkpoint_helpers import join_file, small_checkpoint, split_file

from lucid.architecture import MobileNetArguments, tensor_shapes
from lucid.checkpoint import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    Header,
    check_class_names,
    read_checkpoint,
    read_header,
    write_checkpoint,
)
from lucid.errors import CheckpointError, OutputError
from lucid.images import Preprocessing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file; tests damage it."""
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, small_checkpoint())
    return path


# --- what is written comes back --------------------------------------------------------------


def test_everything_comes_back(path: Path) -> None:
    written, found = small_checkpoint(), read_checkpoint(path)
    for part in fields(Header):
        assert getattr(found, part.name) == getattr(written, part.name), part.name
    assert set(found.tensors) == set(written.tensors) == set(tensor_shapes(written.arguments))
    for name, array in written.tensors.items():
        assert found.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(found.tensors[name], array)
    header = read_header(path)
    assert type(header) is Header
    assert header.provenance == written.provenance


@pytest.mark.parametrize(
    "arguments",
    [
        MobileNetArguments(1 / 32, 3, last_stride=1, activation="relu6", padding="same"),
        MobileNetArguments(0.05, 3, channel_rounding="minimum8", dropout=0.2),
        MobileNetArguments(0.04, 3, channel_rounding="multiple8", in_channels=1),
    ],
    ids=repr,
)
def test_every_variant_comes_back(tmp_path: Path, arguments: MobileNetArguments) -> None:
    color = "RGB" if arguments.in_channels == 3 else "L"
    preprocessing = Preprocessing(96, 1, "bicubic", color, decoder="full")
    checkpoint = small_checkpoint(arguments=arguments, preprocessing=preprocessing)
    write_checkpoint(tmp_path / "a.safetensors", checkpoint)
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert (found.arguments, found.preprocessing) == (arguments, preprocessing)


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    write_checkpoint(again, read_checkpoint(path))
    assert again.read_bytes() == path.read_bytes()
    # Another process hashes texts in another order, and so does a dict filled in another order.
    checkpoint = small_checkpoint()
    shuffled = {
        "metrics": dict(reversed(checkpoint.metrics.items())),
        "provenance": dict(reversed(checkpoint.provenance.items())),
        "tensors": {
            name: np.asarray(array, order="F")
            for name, array in reversed(checkpoint.tensors.items())
        },
    }
    write_checkpoint(again, replace(checkpoint, **shuffled))
    assert again.read_bytes() == path.read_bytes()
    program = (
        "import sys; from lucid.checkpoint import *\n"
        "write_checkpoint(sys.argv[2], read_checkpoint(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(path), str(again)], check=True)
    assert again.read_bytes() == path.read_bytes()


def test_the_safetensors_library_reads_it_too(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(small_checkpoint().tensors)
    assert (metadata["format"], metadata["version"]) == ("lucid-checkpoint", "1")
    assert json.loads(metadata["lucid"])["class_names"] == ["daisy", "Löwenzahn", "バラ"]
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert start % 8 == 0, "tensors are aligned"


def test_a_failed_write_leaves_the_last_good_file(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    too_long = {"log": ["x" * 200] * (MAX_HEADER_BYTES // 200)}
    with pytest.raises(CheckpointError, match=r"the header takes .* shorten class names"):
        write_checkpoint(path, small_checkpoint(provenance=too_long))
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="can't write here"):
        write_checkpoint(tmp_path / "none" / "a.safetensors", small_checkpoint())


# --- contradictions in a checkpoint ----------------------------------------------------------


def with_tensor(name: str, array: Any) -> dict[str, Any]:
    return {"tensors": dict(small_checkpoint().tensors) | {name: array}}


def without_tensor(name: str) -> dict[str, Any]:
    tensors = dict(small_checkpoint().tensors)
    del tensors[name]
    return {"tensors": tensors}


def deep(levels: int) -> Any:
    return {"next": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_names": ("a", "b")}, "class_names: 2 names for a model of 3 classes"),
        ({"class_names": ("a", "b", "a")}, "class_names: 'a' stands there twice"),
        ({"class_names": ("a", "b", "")}, "class_names: name 2 must be a text"),
        ({"class_names": ("a", "b", " ")}, "class_names: name 2 must be a text"),
        ({"class_names": ("a", "b", 3)}, "class_names: name 2 must be a text.*, got 3"),
        ({"class_names": ("a", "b", "\x1b[31m")}, "class_names: name 2 must be a text"),
        ({"class_names": ("a", "b", "\ud800")}, "class_names: name 2 must be a text"),
        ({"class_names": ("a", "b", "c" * 257)}, "class_names: name 2 must be a text of 1 to 256"),
        ({"class_names": "abc"}, "class_names: expected a list of names, got 'abc'"),
        ({"preprocessing": Preprocessing(32, color="L")}, "preprocessing: L .* the model takes 3"),
        ({"metrics": {"top1": float("nan")}}, "metrics: top1 must be a finite number, got nan"),
        ({"metrics": {"top1": "good"}}, "metrics: top1 must be a finite number, got 'good'"),
        ({"metrics": {"top1": True}}, "metrics: top1 must be a finite number, got True"),
        ({"metrics": {1: 1}}, "metrics: 1 is no name"),
        ({"metrics": [1]}, "metrics: expected an object"),
        ({"metrics": {str(i): i for i in range(1001)}}, "metrics: expected .* at most 1000"),
        ({"provenance": {"loss": float("inf")}}, r"provenance\['loss'\]: expected a JSON value"),
        ({"provenance": {"a": [{"b": b"raw"}]}}, r"provenance\['a'\]\[0\]\['b'\]: expected a JSON"),
        ({"provenance": {"seed": 2**63}}, r"provenance\['seed'\]: expected a JSON value"),
        ({"provenance": {1: 2}}, "provenance: 1 is no name"),
        ({"provenance": deep(9)}, "nested more than 8 levels deep"),
        ({"provenance": "lucid train"}, "provenance: expected an object"),
        (without_tensor("fc.bias"), "tensor fc.bias is missing"),
        (with_tensor("fc.bais", np.zeros(3)), "'fc.bais' is none .*; did you mean 'fc.bias'?"),
        (
            with_tensor("fc.bias", np.zeros(3)),
            r"tensor fc.bias: expected float32 \(3,\), got float64",
        ),
        (
            with_tensor("fc.bias", np.zeros(4, np.float32)),
            r"fc.bias: expected .*got float32 \(4,\)",
        ),
        (with_tensor("fc.bias", np.float32([0, np.nan, 0])), "fc.bias: holds values .* not finite"),
        (with_tensor("fc.bias", np.float32([0, np.inf, 0])), "fc.bias: holds values .* not finite"),
        (
            with_tensor("conv1.bn.running_var", np.float32([-1])),
            "conv1.bn.running_var: holds a negative variance",
        ),
        (
            with_tensor("conv1.bn.num_batches_tracked", np.array(0, np.int32)),
            r"num_batches_tracked: expected int64 \(\), got int32",
        ),
    ],
)
def test_a_checkpoint_that_contradicts_itself(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        small_checkpoint(**changes)


def test_class_names_may_be_anything_that_can_be_shown() -> None:
    check_class_names(["0", "a b", "naïve", "خانه‌ها", "👩‍🌾", "x" * 256])


# --- foreign and damaged files ---------------------------------------------------------------


def refusal(path: Path) -> str:
    """The message for a file that can't be read, behind its path."""
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_files_of_other_kinds(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    assert "a PyTorch or pickle file, which could run code" in refusal(path)
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps({"state_dict": list(range(1000))}, protocol))
        assert "a PyTorch or pickle file, which could run code" in refusal(path)
    path.write_text("epoch,loss\n" * 100)
    assert refusal(path).startswith("not a whole safetensors file")
    path.write_bytes(b"")
    assert refusal(path).startswith("not a whole safetensors file")
    safetensors.numpy.save_file({"a": np.zeros(3)}, path, {"format": "pt"})
    assert refusal(path).startswith("a safetensors file of another program")
    safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    assert refusal(path).startswith("a safetensors file of another program")
    assert refusal(tmp_path / "none").startswith("can't be opened")
    assert refusal(tmp_path) == "expected a file, found a folder"


@pytest.mark.parametrize("keep", [7, 8, 100, 0.2, 0.9, 0.9999])
def test_truncated_files(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    assert "truncated" in refusal(path)


def test_oversized_files(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    assert "something was appended" in refusal(path)
    with path.open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no space
    assert f"the limit is {MAX_FILE_BYTES}" in refusal(path)
    path.write_bytes(join_file(b"{" + b" " * MAX_HEADER_BYTES + b"}", b""))
    assert f"(the limit is {MAX_HEADER_BYTES})" in refusal(path)


def change_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        header, data = split_file(content)
        change(header)
        return join_file(header, data)

    return changed


def change_fields(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        header, data = split_file(content)
        values = json.loads(header["__metadata__"]["lucid"])
        change(values)
        header["__metadata__"]["lucid"] = json.dumps(values)
        return join_file(header, data)

    return changed


def metadata(**values: Any) -> Callable[[bytes], bytes]:
    return change_header(lambda header: header["__metadata__"].update(values))


def field(name: str, value: Any) -> Callable[[bytes], bytes]:
    return change_fields(lambda values: values.update({name: value}))


def argument(name: str, value: Any) -> Callable[[bytes], bytes]:
    return change_fields(lambda values: values["arguments"].update({name: value}))


def tensor(name: str, **values: Any) -> Callable[[bytes], bytes]:
    return change_header(lambda header: header[name].update(values))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (metadata(version="2"), "version: 2 is newer than 1, .*upgrade with: pip install --upgr"),
        (metadata(version="0"), "version: expected '1', got '0'"),
        (metadata(version="1.0"), "version: expected '1', got '1.0'"),
        (metadata(extra="x"), "metadata: expected the texts"),
        (metadata(lucid=None), "metadata: expected the texts"),
        (metadata(lucid="[]"), "lucid: expected a JSON object"),
        (metadata(lucid="{"), "lucid: no valid JSON"),
        (metadata(lucid='{"a": NaN}'), "lucid: no valid JSON .NaN is no JSON number"),
        (metadata(lucid='{"a": 1, "a": 1}'), "lucid: no valid JSON .a name stands twice"),
        (metadata(lucid="[" * 100_000), "lucid: no valid JSON"),
        (metadata(lucid="9" * 5000), "lucid: no valid JSON"),
        (change_fields(lambda values: values.pop("metrics")), "needs the argument 'metrics'"),
        (field("metric", 1), "no argument 'metric'; did you mean 'metrics'"),
        (field("arguments", []), "arguments: expected an object"),
        (argument("width_multiplier", "wide"), "arguments: width_multiplier must be"),
        (argument("width_multiplier", 1e9), "arguments: width_multiplier must be"),
        (argument("num_classes", 10**30), "arguments: num_classes must be"),
        (argument("activation", "gelu"), "arguments: activation must be one of relu, relu6"),
        (argument("alpha", 1), "arguments: .*no argument 'alpha'"),
        (argument("num_classes", 4), "class_names: 3 names for a model of 4 classes"),
        (field("preprocessing", {"resolution": 0}), "preprocessing: resolution must be"),
        (field("preprocessing", {"resolution": 9, "mean": [0]}), "preprocessing: mean must hold"),
        (field("class_names", {"0": "a"}), "class_names: expected a list"),
        (field("metrics", {"top1": None}), "metrics: top1 must be a finite number"),
        (change_header(lambda header: header.pop("fc.bias")), "tensor fc.bias is missing"),
        (change_header(lambda header: header.update(a={})), "tensor 'a' is none of a MobileNet's"),
        (change_header(lambda header: header.update({"fc.bias": 1})), "tensor fc.bias: expected"),
        (tensor("fc.bias", dtype="F16"), "tensor fc.bias: expected .*'F32'.*got"),
        (tensor("fc.bias", shape=[2**40]), r"tensor fc.bias: expected .*\[3\].*got"),
        (tensor("fc.bias", extra=1), "tensor fc.bias: expected"),
        (tensor("fc.bias", data_offsets=[0]), "fc.bias: data_offsets are no two whole numbers"),
        (tensor("fc.bias", data_offsets=[0.0, 12.0]), "fc.bias: data_offsets are no two whole"),
        (tensor("fc.bias", data_offsets=None), "fc.bias: data_offsets are no two whole"),
        (tensor("fc.bias", data_offsets=[0, 10**18]), "fc.bias: data_offsets do not fit its shape"),
        (tensor("fc.bias", data_offsets=[0, 12]), "starts at byte .*, expected"),
        (tensor("fc.bias", data_offsets=[-12, 0]), "starts at byte -12, expected 0"),
        (tensor("fc.bias", shape=[3.0]), "tensors can't be read"),
        (lambda _: join_file(b"[1]" + b" " * 5, b""), "header: expected a JSON object"),
        (lambda _: join_file(b"\xff\xfe{\0}\0", b""), "header: no valid JSON"),
        (lambda content: content[:-4] + b"\0\0\xc0\x7f", "holds values that are not finite"),
    ],
)
def test_the_field_that_is_wrong_is_named(
    path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    path.write_bytes(change(path.read_bytes()))
    assert re.search(reason, refusal(path))


def test_no_memory_is_taken_for_what_the_file_does_not_hold(path: Path) -> None:
    """A width of 16 and a million classes would be 66 GB."""
    header, data = split_file(path.read_bytes())
    values = json.loads(header["__metadata__"]["lucid"])
    values["arguments"] |= {"width_multiplier": 16.0, "num_classes": 3}
    header["__metadata__"]["lucid"] = json.dumps(values)
    for name, shape in tensor_shapes(MobileNetArguments(16.0, 3)).items():
        header[name]["shape"] = list(shape)
    path.write_bytes(join_file(header, data))
    assert "data_offsets do not fit its shape" in refusal(path)


def test_reading_needs_no_torch(path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from lucid.checkpoint import read_checkpoint\n"
        "print(read_checkpoint(sys.argv[1]).class_names[0])"
    )
    command = [sys.executable, "-c", program, str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "daisy\n"
