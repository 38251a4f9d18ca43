"""Archives: unpacked once, whole or not at all, and never outside of their folder."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucid.data import archives, open_data
from lucid.errors import DataError, OutputError

PETS = {"cat/1.jpg": b"1", "cat/2.jpg": b"2", "dog/1.jpg": b"3"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            # A ZipInfo of its own keeps the name as it is.
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    modes = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".txz": "w:xz"}
    mode = modes.get(path.suffix, "w")
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    return (write_zip if path.suffix == ".zip" else write_tar)(path, files)


def leftovers(tmp_path: Path) -> list[Path]:
    """Whatever an extraction has left anywhere under the test's folder."""
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


SUFFIXES = [".zip", ".tar", ".tar.gz", ".TGZ", ".tar.bz2", ".tar.xz", ".txz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archive_of_class_folders(tmp_path, suffix):
    archive = write(tmp_path / f"pets.v2{suffix.lower()}", PETS)
    archive = archive.rename(tmp_path / f"pets.v2{suffix}")
    dataset = open_data(archive)
    assert dataset.source == archive
    assert dataset.class_names == ("cat", "dog")
    assert [dataset.name(sample.path) for sample in dataset.samples] == sorted(PETS)
    assert [sample.path.read_bytes() for sample in dataset.samples] == [b"1", b"2", b"3"]


def test_wrapping_folder_litter_and_empty_classes(tmp_path):
    files = {f"./pets/{name}": content for name, content in PETS.items()}
    litter = {"__MACOSX/pets/cat/._1.jpg": b"", "pets/.DS_Store": b""}
    archive = write_tar(tmp_path / "pets.tar", {**files, **litter})
    with tarfile.open(archive, "a") as file:
        info = tarfile.TarInfo("pets/emu")
        info.type = tarfile.DIRTYPE
        file.addfile(info)
    dataset = open_data(archive)
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.warnings == ("no picture of the class 'emu'",)
    assert dataset.stray == ()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_manifest_in_an_archive(tmp_path, suffix):
    manifest = b"path,label\nimg/1.jpg,cat\nimg/2.jpg,dog\n"
    files = {"data.csv": manifest, "img/1.jpg": b"1", "img/2.jpg": b"2"}
    assert open_data(write(tmp_path / f"a{suffix}", files)).class_names == ("cat", "dog")


@pytest.mark.parametrize("path", ["../../1.jpg", "/etc/passwd", "img/../../1.jpg"])
def test_manifest_that_leaves_its_archive(tmp_path, path):
    files = {"data.csv": f"path,label\nimg/1.jpg,cat\n{path},dog\n".encode(), "img/1.jpg": b"1"}
    with pytest.raises(DataError, match=r"line 3: .* lies outside the archive"):
        open_data(write(tmp_path / "a.zip", files))


def test_same_content_is_unpacked_once(tmp_path, cache, monkeypatch):
    first = open_data(write_zip(tmp_path / "a.zip", PETS))
    shutil.copy(tmp_path / "a.zip", tmp_path / "b.zip")
    monkeypatch.setattr(archives, "_Unpacking", None)
    second = open_data(tmp_path / "b.zip")
    assert second.root == first.root
    assert len(list(cache.iterdir())) == 1


def test_other_content_is_unpacked_anew(tmp_path):
    first = open_data(write_zip(tmp_path / "a.zip", PETS))
    second = open_data(write_zip(tmp_path / "a.zip", {**PETS, "dog/2.jpg": b"4"}))
    assert (len(first.samples), len(second.samples)) == (3, 4)


def test_another_process_was_faster(tmp_path, cache, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", PETS)
    original = archives._Unpacking.run

    def run(self: archives._Unpacking) -> None:
        original(self)
        shutil.copytree(self.folder, cache / archives._content_hash(archive))

    monkeypatch.setattr(archives._Unpacking, "run", run)
    assert len(open_data(archive).samples) == 3
    assert len(list(cache.iterdir())) == 1


def test_interrupted_extraction_leaves_nothing(tmp_path, cache, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", PETS)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives._Unpacking, "check_size", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_data(archive)
    assert list(cache.iterdir()) == []
    assert len(open_data(archive).samples) == 3


def test_leavings_of_killed_processes_are_removed(tmp_path, cache):
    for name, age in (("part-old", 48), ("part-new", 1)):
        (cache / name).mkdir(parents=True)
        then = time.time() - age * 3600
        os.utime(cache / name, (then, then))
    open_data(write_zip(tmp_path / "a.zip", PETS))
    assert not (cache / "part-old").exists()
    assert (cache / "part-new").exists()


ESCAPES = ["../evil.jpg", "cat/../../evil.jpg", "/tmp/evil.jpg", "C:\\evil.jpg", "c:evil.jpg"]
ESCAPES += ["..\\evil.jpg", "cat\\..\\..\\evil.jpg", "\\\\host\\share\\evil.jpg"]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ESCAPES)
def test_paths_that_escape(tmp_path, suffix, name):
    archive = write(tmp_path / f"a{suffix}", {"cat/1.jpg": b"", name: b"evil"})
    with pytest.raises(DataError, match="leads out of the archive"):
        open_data(archive)
    assert leftovers(tmp_path) == [archive]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo("cat/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(DataError, match=r"'cat/1\.jpg' is a link, device or sparse file"):
        open_data(archive)
    assert leftovers(tmp_path) == [archive]


def test_link_in_a_zip(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("cat/1.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"'cat/1\.jpg' is a link or device"):
        open_data(archive)


def test_encrypted_zip(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        open_data(archive)


@pytest.mark.parametrize(
    "names", [("cat/1.jpg", "cat/1.jpg"), ("cat", "cat/1.jpg"), ("cat/1.jpg", "./cat//1.jpg")]
)
def test_two_entries_of_one_name(tmp_path, names):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="two entries have the name"):
        open_data(archive)
    assert leftovers(tmp_path) == [archive]


@pytest.fixture
def low_limits(monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 100_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 50)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_bombs(tmp_path, suffix):
    archive = write(tmp_path / f"a{suffix}", {"cat/1.jpg": bytes(10_000_000)})
    with pytest.raises(DataError, match="unpacks to more than"):
        open_data(archive)
    assert leftovers(tmp_path) == [archive]


@pytest.mark.usefixtures("low_limits")
def test_zip_that_lies_about_its_size(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": bytes(10_000_000)})
    content = archive.read_bytes().replace((10_000_000).to_bytes(4, "little"), b"\1\0\0\0")
    archive.write_bytes(content)
    with pytest.raises(DataError):
        open_data(archive)
    assert leftovers(tmp_path) == [archive]


@pytest.mark.usefixtures("low_limits")
def test_skipped_entries_count_too(tmp_path):
    archive = write(tmp_path / "a.tar.gz", {"cat/.hidden": bytes(10_000_000), "cat/1.jpg": b""})
    with pytest.raises(DataError, match="unpacks to more than"):
        open_data(archive)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_tar_header_that_claims_gigabytes(tmp_path, kind):
    """tarfile would read such a header into memory."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 50_000_000
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(info.tobuf() + bytes(50_000_000))
    with pytest.raises(DataError, match="a header of many megabytes"):
        open_data(archive)


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    for suffix in (".zip", ".tar"):
        with pytest.raises(DataError, match="has more than 2 entries"):
            open_data(write(tmp_path / f"a{suffix}", PETS))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(tmp_path, suffix):
    files = {**PETS, "dog/2.jpg": os.urandom(100_000)}
    whole = write(tmp_path / f"a{suffix.lower()}", files).read_bytes()
    archive = tmp_path / f"b{suffix.lower()}"
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        open_data(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no archive", bytes(5000)], ids=["empty", "text", "0"])
def test_no_archive_at_all(tmp_path, suffix, content):
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(content)
    with pytest.raises(DataError):
        open_data(archive)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUCID_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="can't write here"):
        open_data(write_zip(tmp_path / "a.zip", PETS))


def test_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    archive = write_zip(tmp_path / "a.zip", PETS)
    monkeypatch.setattr(archives._Unpacking, "_write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        open_data(archive)


NAME = st.text("ab./\\:\0é~ ", max_size=12) | st.sampled_from(["cat/1.jpg", "..", "cat", ""])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(NAME, max_size=4),
    writer=st.sampled_from([write_zip, write_tar]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_write_only_inside_the_cache(
    tmp_path, cache, names: list[str], writer: Callable[..., Path], flips: list[tuple[float, int]]
):
    """Strange names and damaged bytes give a data set or a LucidError, and no file elsewhere."""
    archive = tmp_path / f"fuzz{'.zip' if writer is write_zip else '.tar'}"
    with contextlib.suppress(ValueError):  # names that the format itself can't hold
        writer(archive, dict.fromkeys(names, b"content"))
    content = bytearray(archive.read_bytes())
    for place, value in flips:
        if content:
            content[int(place * (len(content) - 1))] = value
    archive.write_bytes(content)
    with contextlib.suppress(DataError, OutputError):
        open_data(archive)
    outside = [path for path in leftovers(tmp_path) if cache not in path.parents]
    assert {path.stem for path in outside} == {"fuzz"}
    assert not list(cache.glob("part-*"))
    assert all(path.is_dir() or path.is_file() for path in cache.rglob("*"))
