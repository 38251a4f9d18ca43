"""The exceptions of lucid, one tree; every message says who, what was expected, what was found.

The tree::

    LucidError
    ├── ConfigError (ValueError)            an argument, option or recipe key is out of range
    ├── ShapeError (ValueError)             a tensor or image has the wrong shape or dtype
    ├── DataError                           a data set can't be used
    │   └── ImageError                      one image can't be read
    ├── CheckpointError                     a file of lucid is truncated, foreign or inconsistent
    │   └── DownloadError                   weights can't be fetched by their name
    ├── NetworkError                        a network's layers contradict one another or overflow
    ├── OutOfMemoryError (MemoryError)      images or weights need more memory than there is
    ├── OutputError                         a place to write to is missing, full or read-only
    ├── RenderError                         a browser or Mermaid can't draw a chart
    ├── TrainingError                       training can't go on
    │   └── DivergenceError                 the loss is no longer finite
    └── MissingDependencyError (ImportError)  an optional extra is not installed
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class LucidError(Exception):
    """Base of every error that lucid raises on purpose."""


class ConfigError(LucidError, ValueError):
    """An argument, option or recipe key is out of range or unknown."""


class ShapeError(LucidError, ValueError):
    """A tensor or image has the wrong rank, size, channel count or dtype."""


class DataError(LucidError):
    """A data set can't be used as it is."""


class ImageError(DataError):
    """One image can't be read."""


class CheckpointError(LucidError):
    """A checkpoint or network file is truncated, foreign, too large or inconsistent."""


class DownloadError(CheckpointError):
    """Weights can't be fetched by their name: not found, out of reach or damaged on the way."""


class NetworkError(LucidError):
    """A network's layers contradict one another, or their numbers could overflow."""


class OutOfMemoryError(LucidError, MemoryError):
    """Images or weights need more memory than there is."""


class OutputError(LucidError):
    """A place to write to is missing, full or read-only."""


class RenderError(LucidError):
    """A browser or Mermaid can't draw a chart."""


class TrainingError(LucidError):
    """Training can't start or can't go on."""


class DivergenceError(TrainingError):
    """The loss is no longer finite."""


class MissingDependencyError(LucidError, ImportError):
    """A package of an optional extra is not installed."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string."""
    # Names come from files too; no known one is longer.
    near = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module where it is used.

    Args:
        module: dotted import name.
        extra: the extra of lucid-mobilenet that installs it.
    Raises:
        MissingDependencyError: the package is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"this needs {module.split('.')[0]}, which is not installed; "
            f"run: pip install 'lucid-mobilenet[{extra}]'"
        ) from error
