"""Manifests: CSV and JSON Lines, and errors that name the line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lucid.data import manifests, open_data
from lucid.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img").mkdir()
    for number in range(1, 5):
        (tmp_path / f"img/{number}.jpg").touch()
    return tmp_path


def write(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def rows(path: Path) -> list[tuple[str, str, str | None]]:
    dataset = open_data(path)
    return [
        (dataset.name(sample.path), dataset.class_names[sample.label], sample.split)
        for sample in dataset.samples
    ]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nimg/1.jpg,cat\nimg/2.jpg,dog\n",
        "\ufeffPath;Label\r\nimg/1.jpg;cat\r\n\r\nimg\\2.jpg;dog",
        'file\tn\tclass\nimg/1.jpg\t1\t"cat"\nimg/2.jpg\t2\tdog\n',
    ],
    ids=["commas", "a spreadsheet on Windows", "tabs, other names, more columns"],
)
def test_csv(folder, text):
    expected = [("img/1.jpg", "cat", None), ("img/2.jpg", "dog", None)]
    assert rows(write(folder, text)) == expected


def test_jsonl(folder):
    lines = [
        {"path": "img/2.jpg", "label": 10, "split": "Valid"},
        {"path": "img/1.jpg", "label": 9, "split": "train", "width": 3},
    ]
    text = "\n\n".join(map(json.dumps, lines))
    assert rows(write(folder, text, "data.jsonl")) == [
        ("img/1.jpg", "9", "train"),
        ("img/2.jpg", "10", "validation"),
    ]


def test_rows_without_a_split_are_for_training(folder):
    text = "path,label,split\nimg/1.jpg,cat,\nimg/2.jpg,dog,train\nimg/3.jpg,dog,test\n"
    assert [split for _, _, split in rows(write(folder, text))] == ["train", "train", "test"]


def test_paths_may_be_absolute_or_lead_up(folder):
    (folder / "lists").mkdir()
    text = f"path,label\n../img/1.jpg,cat\n{folder / 'img/2.jpg'},dog\n"
    names = {name for name, _, _ in rows(write(folder / "lists", text))}
    assert names == {"../img/1.jpg", (folder / "img/2.jpg").as_posix()}


def test_manifest_beside_its_pictures(folder):
    write(folder, "path,label\nimg/1.jpg,cat\nimg/2.jpg,dog\n")
    assert open_data(folder).class_names == ("cat", "dog")


def test_repeated_row_counts_once(folder):
    text = "path,label\nimg/1.jpg,cat\nimg/2.jpg,dog\n./img/1.jpg,cat\n"
    dataset = open_data(write(folder, text))
    assert len(dataset.samples) == 2
    assert dataset.warnings == ("data.csv: 1 row listed again; each counts once",)


def test_missing_file_is_left_to_the_audit(folder):
    text = "path,label\nimg/1.jpg,cat\nimg/missing.jpg,dog\n"
    assert len(rows(write(folder, text))) == 2


CSV = "path,label,split\nimg/1.jpg,cat,train\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the manifest is empty"),
        ("\n\n", "the manifest is empty"),
        ("path,label\n", "there are no pictures"),
        ("a,b\n1,2\n", "line 1: expected the columns path and label, found no path and no label"),
        ("path,split\n1,2\n", "line 1: .* found no label"),
        (CSV + "img/2.jpg,dog\n", "line 3: expected 3 fields, found 2"),
        (CSV + ",dog,train\n", "line 3: expected text for path"),
        (CSV + "img/2.jpg, ,train\n", "line 3: expected text for label"),
        (CSV + "img/2.jpg,dog,vali\n", "line 3: split must be .* did you mean 'valid'"),
        (CSV + "img/1.jpg,dog,train\n", "line 3: img/1.jpg is listed before as 'cat'"),
        (CSV + "img/1.jpg,cat,test\n", "line 3: img/1.jpg is listed before"),
        (CSV + '"img/2.jpg,dog,train\n', "line 3: unexpected end of data"),
        (CSV + "img/2.jpg,a\x07b,train\n", "line 3: the class name 'a.x07b' is no plain text"),
        (CSV + "img/2.jpg," + "d" * 300 + ",train\n", "line 3: .* this one has 300"),
        (CSV + "img/\0.jpg,dog,train\n", "line 3"),
        ("path,label\nno/1.jpg,cat\nno/2.jpg,dog\n", "none of the 2 files that it lists exists"),
    ],
)
def test_csv_errors_name_the_line(folder, text, message):
    with pytest.raises(DataError, match=message) as caught:
        open_data(write(folder, text))
    assert "data.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ("[" * 100_000, "not JSON"),
        ('{"path": "img/2.jpg"}', "found no label"),
        ('{"path": "img/2.jpg", "label": null}', "expected text for label, got 'None'"),
        ('{"path": "img/2.jpg", "label": true}', "expected text for label"),
        ('{"path": 1.5, "label": "cat"}', "expected text for path"),
        ('{"path": "img/2.jpg", "label": "cat", "split": ["train"]}', "split must be"),
        ('{"path": "a\\u0000b", "label": "cat"}', "a zero byte"),
    ],
)
def test_jsonl_errors_name_the_line(folder, line, message):
    text = '{"path": "img/1.jpg", "label": "cat"}\n\n' + line
    with pytest.raises(DataError, match=f"data.jsonl, line 3: .*{message}"):
        open_data(write(folder, text, "data.jsonl"))


def test_other_encoding_names_the_line(folder):
    (folder / "data.csv").write_bytes(b"path,label\nimg/1.jpg,caf\xe9\n")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        open_data(folder / "data.csv")


def test_size_limit(folder, monkeypatch):
    monkeypatch.setattr(manifests, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(DataError, match="limit is 10"):
        open_data(write(folder, CSV))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".jsonl"]))
@example(content=b"path,label\n" + b"x" * 5000 + b",cat", suffix=".csv")
@example(content=b'{"path": "x", "label": ' + b"9" * 5000 + b"}", suffix=".jsonl")
@example(content=b'path,label\n"' + b"x" * 200_000, suffix=".csv")
@example(content=b'{"path": "\\ud800", "label": "\\ud800"}', suffix=".jsonl")
@example(content=b'{"path": "\\ud800", "label": "cat"}', suffix=".jsonl")
def test_any_bytes_give_a_data_set_or_a_data_error(tmp_path, content, suffix):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        open_data(path)
