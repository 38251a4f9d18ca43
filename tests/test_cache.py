"""Cached images are those that decoding gives, and the cache keeps its bounds and its word."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_helpers import write_photo

from lucid.data import cache
from lucid.data.cache import DecodedImages, Squashed, open_cache
from lucid.errors import ConfigError, DataError, OutputError
from lucid.images import Preprocessing, load_sized, load_squashed

SQUASHED = Squashed(24)
ONE_CACHE = 6 * 24 * 24 * 3  # bytes of pixels


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Six pictures of different sizes; the fourth can't be read."""
    paths = [
        write_photo(tmp_path / "photos" / f"{'ab'[i % 2]}" / f"{i}.jpg", i, (30 + 9 * i, 40))
        for i in range(6)
    ]
    paths[3].write_text("no picture")
    return paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "decoded"


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def assert_same(found: DecodedImages, expected: DecodedImages) -> None:
    indices = [5, 0, 3, 0]
    for one, other in zip(found.take(indices), expected.take(indices), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert found.failed == expected.failed


@pytest.mark.parametrize(
    "decoding",
    [
        SQUASHED,
        Squashed(17, "L", "bicubic", "full"),
        Preprocessing(16),
        Preprocessing(9, color="L"),
    ],
    ids=repr,
)
def test_take_gives_what_decoding_gives(
    photos: list[Path], folder: Path, decoding: Squashed | Preprocessing
) -> None:
    cached = open_cache(photos, decoding, folder=folder)
    uncached = open_cache(photos, decoding, folder=folder / "none", max_bytes=0)
    assert (cached.uncached, len(cached)) == ("", 6)
    assert "images are decoded at each use" in uncached.uncached
    assert_same(uncached, cached)
    assert list(cached.failed) == [3]
    assert cached.failed[3].startswith(f"{photos[3]}: not a picture")
    pixels, sizes = cached.take(range(6))
    assert pixels.shape == (6, *cached.shape)
    assert (pixels.dtype, sizes.dtype, sizes.shape) == (np.uint8, np.int32, (6, 2))
    for index in (0, 5):
        if isinstance(decoding, Squashed):
            expected, size = load_squashed(photos[index], **vars(decoding))
        else:
            expected, size = load_sized(photos[index], decoding)
        np.testing.assert_array_equal(pixels[index], expected)
        assert tuple(sizes[index]) == size == (30 + 9 * index, 40)
    assert not pixels[3].any()
    assert not sizes[3].any()


def test_taken_pixels_are_the_takers_own(photos: list[Path], folder: Path) -> None:
    images = open_cache(photos, SQUASHED, folder=folder)
    pixels, _ = images.take([0])
    expected = pixels.copy()
    pixels[:] = 0
    np.testing.assert_array_equal(images.take([0])[0], expected)
    assert images.pixels is not None
    assert not images.pixels.flags.writeable


def test_images_are_decoded_once(
    photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    first = open_cache(photos, SQUASHED, folder=folder, progress=lambda *done: calls.append(done))
    assert calls == [(done, 6) for done in range(1, 7)]
    written = entries(folder)
    assert len(written) == 1
    decoded = []
    monkeypatch.setattr(cache, "load_squashed", lambda *args, **_: decoded.append(args) or 1 / 0)
    with pytest.raises(ZeroDivisionError):  # the failed one alone is tried again
        open_cache(photos, SQUASHED, folder=folder)
    assert decoded == [(photos[3],)]
    monkeypatch.undo()
    assert_same(open_cache(photos, SQUASHED, folder=folder), first)
    assert entries(folder) == written


def test_what_decides_the_pixels_decides_the_cache(photos: list[Path], folder: Path) -> None:
    def count_after(paths: list[Path], decoding: Any) -> int:
        open_cache(paths, decoding, folder=folder)
        return len(entries(folder))

    assert count_after(photos, Preprocessing(16)) == 1
    # Normalisation comes after decoding.
    assert count_after(photos, Preprocessing(16, mean=(0.1, 0.2, 0.3))) == 1
    assert count_after(photos, Preprocessing(16, interpolation="bicubic")) == 2
    assert count_after(photos[::-1], Preprocessing(16)) == 3
    os.utime(photos[0], ns=(1, 1))
    assert count_after(photos, Preprocessing(16)) == 4


def test_a_moved_data_set_keeps_its_cache(photos: list[Path], folder: Path, tmp_path: Path) -> None:
    open_cache(photos, SQUASHED, folder=folder)
    moved = shutil.move(tmp_path / "photos", tmp_path / "moved")
    paths = [Path(moved, *path.parts[-2:]) for path in photos]
    images = open_cache(paths, SQUASHED, folder=folder)
    assert len(entries(folder)) == 1
    assert images.failed[3].startswith(f"{paths[3]}: "), "the message names the file of today"


def test_a_picture_that_has_become_readable_is_read(
    photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions and mounted disks leave no trace in a file's size and time."""
    real = cache.load_squashed

    def fail(path: Path, **options: Any) -> Any:
        return real(path.with_name("unmounted"), **options)

    monkeypatch.setattr(cache, "load_squashed", fail)
    assert len(open_cache(photos, SQUASHED, folder=folder).failed) == 6
    monkeypatch.undo()
    assert list(open_cache(photos, SQUASHED, folder=folder).failed) == [3]


def test_the_least_recently_used_go_first(photos: list[Path], folder: Path) -> None:
    sides = (24, 23, 22)
    names = {}
    for age, side in enumerate(sides):
        before = entries(folder)
        open_cache(photos, Squashed(side), folder=folder)
        (names[side],) = entries(folder) - before
        os.utime(folder / names[side], (age, age))
    open_cache(photos, Squashed(24), folder=folder)  # the oldest is used again
    open_cache(photos, Squashed(21), folder=folder, max_bytes=int(2.9 * ONE_CACHE))
    left = entries(folder)
    assert names[24] in left
    assert names[23] not in left
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2.9 * ONE_CACHE


def test_data_over_the_bound_evicts_nothing(photos: list[Path], folder: Path) -> None:
    open_cache(photos, SQUASHED, folder=folder)
    before = entries(folder)
    images = open_cache(photos, Squashed(90), folder=folder, max_bytes=2 * ONE_CACHE)
    assert "are allowed" in images.uncached
    assert entries(folder) == before


def test_a_full_disk_and_a_folder_that_can_not_be_written(
    photos: list[Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_cache(photos, SQUASHED, folder=folder)
    (tmp_path / "file").touch()
    images = open_cache(photos, SQUASHED, folder=tmp_path / "file" / "below")
    assert "images are decoded at each use" in images.uncached
    assert_same(images, expected)

    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    images = open_cache(photos, SQUASHED, folder=tmp_path / "other")
    assert "are allowed" in images.uncached
    assert_same(images, expected)


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "other numbers", "other list"])
def test_a_damaged_cache_file_is_made_again(photos: list[Path], folder: Path, damage: str) -> None:
    expected = open_cache(photos, SQUASHED, folder=folder)
    pixels = expected.take(range(6))[0]
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    entry.unlink()  # the open one keeps its own
    entry.write_bytes(
        {
            "cut": content[:-1],
            "longer": content + b"\0",
            "empty": b"",
            "other numbers": content[:-16] + b"x" * 16,
            "other list": content.replace(b"[3]", b"[9]"),
        }[damage]
    )
    again = open_cache(photos, SQUASHED, folder=folder)
    np.testing.assert_array_equal(again.take(range(6))[0], pixels)
    assert entry.read_bytes() == content


def test_unfinished_files_of_killed_processes_are_removed(photos: list[Path], folder: Path) -> None:
    folder.mkdir()
    for name, age in (("old", 10**6), ("young", 0)):
        (folder / f".lucid-{name}.part.images").touch()
        os.utime(folder / f".lucid-{name}.part.images", (time.time() - age,) * 2)
    open_cache(photos, SQUASHED, folder=folder)
    assert {name for name in entries(folder) if "part" in name} == {".lucid-young.part.images"}


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_ctrl_c_leaves_nothing_behind(photos: list[Path], folder: Path) -> None:
    """In a process of its own, stopped in the middle of the decoding."""
    program = (
        "import sys, time\n"
        "from lucid.data.cache import Squashed, open_cache\n"
        "def wait(done, total):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(0.05)\n"
        "open_cache(sys.argv[2:] * 1000, Squashed(24), folder=sys.argv[1], progress=wait)\n"
    )
    command = [sys.executable, "-c", program, str(folder), *map(str, photos)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert any(".part" in name for name in entries(folder))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert entries(folder) == set()


def test_processes_and_threads_share_a_folder(photos: list[Path], folder: Path) -> None:
    expected = open_cache(photos, SQUASHED, folder=folder / "alone")
    start = threading.Barrier(4)

    def work(_: int) -> DecodedImages:
        start.wait()
        return open_cache(photos, SQUASHED, folder=folder / "shared", threads=2)

    with ThreadPoolExecutor(4) as pool:
        for images in pool.map(work, range(4)):
            assert images.uncached == ""
            assert_same(images, expected)
    assert entries(folder / "shared") == entries(folder / "alone")


def test_a_cache_that_can_only_be_read_is_used(
    photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_cache(photos, SQUASHED, folder=folder)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.os, "utime", denied)
    monkeypatch.setattr(cache, "_write_entry", denied)
    images = open_cache(photos, SQUASHED, folder=folder)
    assert images.uncached == ""
    assert_same(images, expected)


def test_another_process_that_was_faster_holds_the_name(
    photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where no open file is replaced."""
    write = cache._write_entry

    def written_meanwhile(*arguments: object) -> None:
        write(*arguments)
        raise OutputError("in use by another process")

    monkeypatch.setattr(cache, "_write_entry", written_meanwhile)
    assert open_cache(photos, SQUASHED, folder=folder).uncached == ""


def test_files_on_several_drives(
    photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drives(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(cache.os.path, "commonpath", drives)
    assert open_cache(photos, SQUASHED, folder=folder).uncached == ""


def test_check_names_what_can_not_be_read(photos: list[Path], folder: Path) -> None:
    with pytest.raises(DataError, match=rf"{photos[3]}: not a picture"):
        open_cache(photos, SQUASHED, folder=folder).check()
    open_cache(photos[:3], SQUASHED, folder=folder).check()


def test_bad_arguments(folder: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_cache([], SQUASHED, folder=folder)
    for wrong in ({"side": 0}, {"side": 8, "color": "rgb"}, {"side": 8, "decoder": "fast"}):
        with pytest.raises(ConfigError):
            Squashed(**wrong)


def test_the_folder_is_that_of_the_user(photos: list[Path], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUCID_CACHE", str(tmp_path / "mine"))
        open_cache(photos, SQUASHED)
    assert len(entries(tmp_path / "mine" / "decoded")) == 1
