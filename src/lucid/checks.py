"""Checks of single values that every set of arguments shares; each raises ConfigError."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from reprlib import repr as shorten  # values come from files too, and may be long
from typing import Any

from lucid.errors import ConfigError, suggest


def check_number(name: str, value: object, expected: str, accepts: Callable[[float], bool]) -> None:
    """Raise ConfigError unless ``value`` is a finite number (no bool) that ``accepts`` takes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be {expected}, got {shorten(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number) or not accepts(number):
        raise ConfigError(f"{name} must be {expected}, got {shorten(value)}")


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise ConfigError unless ``value`` is an int (no bool) from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(
            f"{name} must be a whole number from {low} to {high}, got {shorten(value)}"
        )


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``known``; the nearest one is suggested."""
    if value not in known:
        near = suggest(str(value), known)
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {shorten(value)}{near}")


def check_names(
    what: str, values: Mapping[str, Any], known: Collection[str], required: Collection[str]
) -> None:
    """Raise ConfigError unless the keys of ``values`` are ``known`` and contain ``required``."""
    for name in values:
        if name not in known:
            raise ConfigError(f"{what} has no argument {shorten(name)}{suggest(name, known)}")
    for name in required:
        if name not in values:
            raise ConfigError(f"{what} needs the argument {name!r}")
