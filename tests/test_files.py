"""Files appear whole or not at all, and only bounded regular files are opened."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lucid.errors import CheckpointError, OutputError
from lucid.files import (
    atomic_path,
    cache_folder,
    check_keeps,
    check_writable_folder,
    open_file,
    write_bytes,
    write_text,
)


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "größer\n")
    write_bytes(tmp_path / "b.bin", b"\0\1")
    assert (tmp_path / "a.csv").read_bytes() == "größer\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\0\1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.bin"]


def test_the_temporary_file_stands_beside_and_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(str(tmp_path / ("long" * 60 + ".png"))) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert temporary.read_bytes() == b""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_result_is_readable_by_whom_the_umask_lets() -> None:
    program = (
        "import os, sys, tempfile; from pathlib import Path; from lucid.files import write_text\n"
        "os.umask(0o027)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    write_text(Path(folder, 'a'), '')\n"
        "    print(oct(Path(folder, 'a').stat().st_mode & 0o777))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.strip() == b"0o640"


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()], ids=repr)
def test_after_an_error_the_last_good_file_stands(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "model.safetensors"
    write_text(path, "good")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with (
        pytest.raises(OutputError, match=f"{path}: can't write here \\(No space.*; make room"),
        atomic_path(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_block_misses_is_no_output_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a") as temporary:
        shutil.copyfile(tmp_path / "missing", temporary)


def test_folders_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(OutputError, match=r"can't write here .*; choose a folder"):
            write_text(folder / "a", "")
    with pytest.raises(OutputError, match="file: can't write here"):
        check_writable_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="can't write here"):
        write_text(tmp_path, "a folder stands where the file should")


def test_what_a_file_is_made_from_is_kept(tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    (tmp_path / "link").symlink_to("source")
    check_keeps(tmp_path / "new", tmp_path / "source", "owner/name")
    for path in ("source", "link", "../" + tmp_path.name + "/source"):
        with pytest.raises(OutputError, match="would replace what it is made from; choose another"):
            check_keeps(tmp_path / path, tmp_path / "other", str(tmp_path / "source"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is read-only for everyone, root too")
def test_read_only_folders() -> None:
    with pytest.raises(OutputError, match=r"^/proc/lucid: can't write here"):
        check_writable_folder("/proc/lucid")
    with pytest.raises(OutputError, match=r"^/proc/lucid: can't write here"):
        write_text("/proc/lucid", "")


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    assert check_writable_folder(str(folder), needed_bytes=1) == folder
    assert list(folder.iterdir()) == []
    with pytest.raises(OutputError, match=r"are needed, .* are free; make room"):
        check_writable_folder(folder, needed_bytes=10**18)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_writer_leaves_the_last_good_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_text(path, "good")
    program = (
        "import os, signal, sys; from lucid.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert answer.returncode == -signal.SIGKILL
    assert path.read_text() == "good"


def test_open_file_takes_bounded_regular_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    with open_file(str(path), max_bytes=5, error=CheckpointError) as file:
        assert file.read() == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for name, limit, reason in [
        ("a", 4, "a: 5 bytes are too many; the limit is 4"),
        ("none", 4, "none: can't be opened"),
        (".", 4, "expected a file, found a folder"),
        ("pipe", 4, "pipe: expected a file, found a pipe"),
        ("nul\0", 4, "can't be opened"),
    ]:
        with pytest.raises(CheckpointError, match=reason):
            open_file(tmp_path / name, max_bytes=limit, error=CheckpointError)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_CACHE", "~/elsewhere")
    assert cache_folder("decoded") == Path.home() / "elsewhere" / "decoded"
    monkeypatch.delenv("LUCID_CACHE")
    assert cache_folder("decoded").parts[-2:] == ("lucid", "decoded")
