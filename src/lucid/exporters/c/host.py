"""Runs an export on this computer: compiles it with the C compiler that is found here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucid.errors import ConfigError, MissingDependencyError
from lucid.exporters.c.export import CExport
from lucid.exporters.c.source import units, verifier
from lucid.images import Pixels

__all__ = ["find_compiler", "run"]

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c99", "-O2")
_SECONDS = 600

# Says only that the linker failed; why is said before it.
_SUMMARY = re.compile(r"^collect2: error:|error: linker command failed")


def find_compiler() -> list[str]:
    """The command of a C compiler: ``$CC``, or the first of cc, gcc and clang that is there.

    Raises:
        MissingDependencyError: there is none.
        ConfigError: a quotation mark in ``$CC`` is not closed.
    """
    try:
        asked = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise ConfigError(f"$CC must be the command of a C compiler: {error}") from error
    if asked:
        if shutil.which(asked[0]) is None:
            raise MissingDependencyError(f"the C compiler of $CC, {asked[0]!r}, is not installed")
        return asked
    for name in _COMPILERS:
        if shutil.which(name):
            return [name]
    raise MissingDependencyError(
        f"running the C export here needs a C compiler, and none of {', '.join(_COMPILERS)} is "
        "installed; install one, set $CC, or leave the verification out with --no-verify"
    )


def run(
    exported: CExport,
    pixels: Pixels,
    *,
    compiler: Sequence[str] | None = None,
    runner: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Logits that the compiled export gives, (N, classes); each image is run whole and by rows.

    Args:
        pixels: uint8 (N, H, W, C) of the size that the export is for.
        compiler: a command with its flags; one for this computer when left out.
        runner: a command that runs what the compiler made, such as an emulator.
    Raises:
        MissingDependencyError: no compiler is installed.
        ConfigError: it rejects the sources, or the program fails.
    """
    command = list(compiler) if compiler else find_compiler()
    with tempfile.TemporaryDirectory(prefix="lucid-c-") as name:
        folder = Path(name)
        for path, content in exported.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, "utf-8")
        (folder / "verify-export.c").write_text(verifier(exported.prefix), "utf-8")
        (folder / "images.bin").write_bytes(pixels.tobytes())
        flags = [*_FLAGS, *command[1:]]  # those given win
        compiling = [command[0], *flags, *units(exported.prefix), "verify-export.c"]
        _call([*compiling, "-o", "verify"], folder, "compile")
        program = [*runner, "verify"] if runner else [str(folder / "verify")]
        _call([*program, "images.bin", "logits.bin"], folder, "run")
        logits = np.fromfile(folder / "logits.bin", np.float32)
    return logits.reshape(len(pixels), -1)


def _call(command: list[str], folder: Path, what: str) -> None:
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]}: can't {what} the C export ({error})") from error
    if result.returncode:
        said = _error(f"{result.stderr}\n{result.stdout}")
        raise ConfigError(
            f"{command[0]}: can't {what} the C export (code {result.returncode})"
            + (f": {said[:300]}" if said else "")
        )


def _error(output: str) -> str:
    """The line of a compiler's output that says what is wrong; empty if it says nothing."""
    lines = [line for line in output.splitlines() if line.strip() and not _SUMMARY.search(line)]
    return next((line for line in lines if "error:" in line), lines[-1] if lines else "").strip()
