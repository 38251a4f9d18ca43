"""A browser that is installed, run without a window for one page at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lucid.errors import ConfigError, MissingDependencyError, RenderError

_PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
)
_MAC_PROGRAMS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
_WINDOWS_PROGRAMS = (
    "Google/Chrome/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
)
_TIME_LIMIT = 120  # seconds
_VIRTUAL_TIME = 60_000  # milliseconds that a page may wait for; they pass as fast as it can work


def find_browser() -> Path:
    """The program of the first of Chromium, Chrome and Edge that is installed.

    The environment variable LUCID_BROWSER names another.

    Raises:
        ConfigError: LUCID_BROWSER names no program.
        MissingDependencyError: no browser is installed.
    """
    chosen = os.environ.get("LUCID_BROWSER")
    if chosen:
        program = shutil.which(chosen)
        if program is None:
            raise ConfigError(f"LUCID_BROWSER must name a program, got {chosen!r}")
        return Path(program)
    found = next(_installed(), None)
    if found is None:
        raise MissingDependencyError(
            "SVG and PNG charts need Chromium, Chrome or Edge, and none is installed; install one "
            "(Debian, Ubuntu: apt-get install chromium), set LUCID_BROWSER to its program, or "
            "write .html or .mmd, which need none"
        )
    return found


def dump_page(page: Path) -> str:
    """Open a local HTML file and return its document once its scripts are done.

    Raises:
        MissingDependencyError: no browser is installed.
        RenderError: the browser failed or took longer than two minutes.
    """
    return _run(page, ["--dump-dom"])


def screenshot(page: Path, to: Path, *, width: int, height: int, scale: float) -> None:
    """Write a PNG of a local file's upper left ``width`` x ``height`` CSS pixels, or more of it.

    ``scale`` is pixels of the picture for one CSS pixel. Raises as ``dump_page``.
    """
    _run(
        page,
        [
            f"--screenshot={to}",
            f"--window-size={width},{height}",
            f"--force-device-scale-factor={scale}",
            "--hide-scrollbars",
        ],
    )
    if not to.exists():
        raise RenderError(
            f"the browser {find_browser()} made no picture; LUCID_BROWSER names another"
        )


def _installed() -> Iterator[Path]:
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program:
            yield Path(program)
    elsewhere = [Path(program) for program in _MAC_PROGRAMS]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if variable in os.environ:
            elsewhere += [Path(os.environ[variable], program) for program in _WINDOWS_PROGRAMS]
    yield from (program for program in elsewhere if program.exists())


def _run(page: Path, options: Sequence[str]) -> str:
    browser = find_browser()
    with tempfile.TemporaryDirectory(
        prefix="lucid-browser-", ignore_cleanup_errors=True
    ) as profile:
        command = [
            str(browser),
            "--headless",
            "--disable-gpu",
            "--disable-extensions",
            "--no-first-run",
            f"--user-data-dir={profile}",
            f"--virtual-time-budget={_VIRTUAL_TIME}",
            *(["--no-sandbox"] if _is_root() else []),
            *options,
            page.resolve().as_uri(),
        ]
        # Chromium starts helpers; in a session of its own they can all be ended.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=_TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise RenderError(f"the browser {browser} took longer than {_TIME_LIMIT} s") from None
        finally:
            _end(process)
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no message"]
        raise RenderError(f"the browser {browser} failed ({process.returncode}): {lines[-1]}")
    return output.decode(errors="replace")


def _is_root() -> bool:
    """Chromium's sandbox refuses to run as root."""
    return sys.platform != "win32" and os.geteuid() == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
