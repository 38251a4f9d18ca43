"""Data sets that a CSV or JSON Lines file lists, one picture a row."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lucid.data.samples import SPLIT_NAMES, Record, SplitName, clean_class_name, plural
from lucid.errors import DataError, suggest
from lucid.files import open_file

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
MAX_MANIFEST_BYTES = 1024**3

# The first name of each is ours; the others are what published manifests use for the same thing.
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "subset"),
}
_REQUIRED = ("path", "label")

_Row = tuple[int, Mapping[str, object]]  # line number, values by column


def read_manifest(path: Path, *, confined: bool = False) -> tuple[list[Record], list[str]]:
    """Read a manifest with the columns path, label and, where wanted, split.

    Args:
        path: ``.csv`` (comma, semicolon or tab) or ``.jsonl``, UTF-8; the paths in it are relative
            to its folder.
        confined: refuse paths that leave that folder, for manifests that came in an archive.
    Returns:
        The records and the warnings, one sentence each.
    Raises:
        DataError: what is wrong, with the line number.
    """
    records: list[Record] = []
    lines: dict[str, int] = {}
    repeated = 0
    for line, row in _read_rows(path):
        where = f"{path.name}, line {line}"
        record = _record(path.parent, where, row, confined)
        key = os.path.normpath(record.path)
        if key not in lines:
            lines[key] = len(records)
            records.append(record)
        elif records[lines[key]][1:] == record[1:]:
            repeated += 1
        else:
            raise DataError(
                f"{where}: {row['path']} is listed before as '{records[lines[key]].class_name}'; "
                "a picture has one label and one split"
            )
    # Path.exists raises on names that are too long.
    if records and not any(os.path.exists(record.path) for record in records):  # noqa: PTH110
        raise DataError(
            f"{path}: none of the {len(records):,} files that it lists exists, such as "
            f"{records[0].path}; paths are relative to the manifest"
        )
    warnings = []
    if repeated:
        warnings.append(f"{path.name}: {plural(repeated, 'row')} listed again; each counts once")
    return records, warnings


def _record(folder: Path, where: str, row: Mapping[str, object], confined: bool) -> Record:
    name = _text(row, "path", where).replace("\\", "/")
    relative = Path(name)
    if "\0" in name:
        raise DataError(f"{where}: the path holds a zero byte")
    if confined and (relative.is_absolute() or relative.drive or ".." in relative.parts):
        raise DataError(f"{where}: {name} lies outside the archive")
    class_name = clean_class_name(_text(row, "label", where), where)
    return Record(folder / relative, class_name, _split(row, where))


def _text(row: Mapping[str, object], column: str, where: str) -> str:
    value = row.get(column)
    # Labels may be numbers; True and 1.5 are no names of classes.
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text.strip():
        raise DataError(f"{where}: expected text for {column}, got {str(value)[:40]!r}")
    return text


def _split(row: Mapping[str, object], where: str) -> SplitName | None:
    value = row.get("split")
    if value is None or value == "":
        return None
    split = SPLIT_NAMES.get(str(value).strip().casefold())
    if split is None:
        near = suggest(str(value)[:40].casefold(), SPLIT_NAMES)
        raise DataError(
            f"{where}: split must be train, validation or test, got {str(value)[:40]!r}{near}"
        )
    return split


def _read_rows(path: Path) -> Iterator[_Row]:
    """Yield each row that isn't blank with its line number; raises DataError."""
    text = _read_text(path)
    rows = _json_rows if path.suffix.casefold() in {".jsonl", ".ndjson"} else _csv_rows
    return rows(path, text)


def _read_text(path: Path) -> str:
    with open_file(path, max_bytes=MAX_MANIFEST_BYTES, error=DataError) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path.name}, line {line}: not UTF-8; save the file as UTF-8") from error


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    heading = re.match("[^\r\n]*", text)
    # Spreadsheets of some countries write semicolons.
    delimiter = max(",;\t", key=heading.group().count) if heading else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: dict[str, int] = {}
    width = 0
    try:
        for row in reader:
            where = f"{path.name}, line {reader.line_num}"
            if not any(field.strip() for field in row):
                continue
            if not columns:
                columns, width = _find_columns(row, where), len(row)
                continue
            if len(row) != width:
                raise DataError(f"{where}: expected {width} fields, found {len(row)}")
            yield reader.line_num, {column: row[index] for column, index in columns.items()}
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}") from error
    if not columns:
        raise DataError(f"{path}: the manifest is empty")


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({str(error)[:80]})") from error
        if not isinstance(row, dict):
            raise DataError(f'{where}: expected an object such as {{"path": .., "label": ..}}')
        columns, values = _find_columns(list(row), where), list(row.values())
        yield number, {column: values[index] for column, index in columns.items()}


def _find_columns(names: list[str], where: str) -> dict[str, int]:
    """Index of each known column among ``names``; raises DataError when one is missing."""
    known = {name.strip().casefold(): index for index, name in reversed(list(enumerate(names)))}
    columns = {
        column: next(known[alias] for alias in aliases if alias in known)
        for column, aliases in _COLUMNS.items()
        if any(alias in known for alias in aliases)
    }
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        found = ", ".join(repr(name[:40]) for name in names[:10])
        raise DataError(
            f"{where}: expected the columns path and label, "
            f"found no {' and no '.join(missing)} among {found}"
        )
    return columns
