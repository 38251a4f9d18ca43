"""``lucid audit``: table, JSON, page, contact sheet, and one line for bad input."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from photo_helpers import write_classes
from PIL import Image
from test_imports import run_without_extras

from lucid.cli import main


@pytest.fixture
def lucid(capsys):
    """Run the command line; returns exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def pets(tmp_path):
    """Two classes with a file each that can't be read, and a picture under both."""
    root = write_classes(tmp_path / "pets", {"cat": 25, "dog": 25})
    shutil.copy(root / "cat/3.png", root / "dog/copy.png")
    (root / os.fsdecode(b"cat/\x1b[31m\xff\n.jpg")).write_text("text")
    return root


def test_table(lucid, pets):
    code, out, err = lucid("audit", pets, "--resolution", 32)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("52 pictures in 2 classes; 1 unreadable, 2 under two classes")
    assert any(
        "Identical files under two classes" in line and "cat/3.png" in line for line in lines
    )
    assert "\x1b" not in out
    assert r"\x1b[31m\udcff\n.jpg: not a picture" in out
    out.encode()


def test_nothing_found(lucid, tmp_path):
    code, out, _ = lucid(
        "audit", write_classes(tmp_path, {"cat": 20, "dog": 20}), "--resolution", 8
    )
    assert (code, out) == (0, "40 pictures in 2 classes\nnothing was found\n")


def test_json_alone_is_on_stdout(lucid, pets):
    code, out, err = lucid("audit", pets, "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert values["resolution"] == 128
    assert {finding["kind"] for finding in values["findings"]} == {
        "unreadable",
        "two-classes",
        "small",
    }


def test_page(lucid, pets, tmp_path):
    code, _, err = lucid("audit", pets, "--html", tmp_path / "new/audit.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "new/audit.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Audit of pets" in page


def test_contact_sheet(lucid, tiny_photos, tmp_path):
    pytest.importorskip("torch")
    sheet = tmp_path / "sheet.png"
    code, _, err = lucid("audit", tiny_photos, "--resolution", 24, "--augmented", sheet)
    assert (code, err) == (0, "")
    with Image.open(sheet) as image:
        assert image.width > 8 * 24


def test_contact_sheet_of_one_picture(lucid, tmp_path):
    pytest.importorskip("torch")
    root = write_classes(tmp_path / "pets", {"cat": 1})
    code, _, err = lucid("audit", root, "--resolution", 24, "--augmented", tmp_path / "sheet.png")
    assert (code, err) == (0, "")


def test_no_picture_to_augment(lucid, tmp_path):
    root = write_classes(tmp_path / "pets", {"cat": 1})
    (root / "cat/0.png").write_text("text")
    code, _, err = lucid("audit", root, "--augmented", tmp_path / "sheet.png")
    assert code == 2
    assert "there is no usable picture to augment" in err


def test_missing_extra_is_named(tiny_photos):
    code = f"from lucid.cli import main\nmain(['audit', {str(tiny_photos)!r}])"
    result = run_without_extras(code)
    assert result.returncode == 2
    assert result.stderr.strip().endswith("run: pip install 'lucid-mobilenet[train]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["empty"], "there are no pictures in it"),
        (["empty", "--resolution", "0"], "0 is not in the range"),
        (["empty", "--html", "file/audit.html"], "can't write here"),
        (["empty", "--augmented", "sheet"], "ends with a format, such as .png"),
        ([], "missing argument"),
    ],
    ids=["missing", "empty", "resolution", "page in a file", "no format", "no data"],
)
def test_bad_input_is_one_line(lucid, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, out, err = lucid("audit", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("lucid: error: ")
    assert message in err
    assert err.count("\n") == 1
