"""What commands that run a network share: with which engine, how exactly, and with what threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., None])

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["native", "torch"]),
        default="native",
        show_default=True,
        help="What runs the network.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["int8", "float32", "bfloat16", "float32-split"]),
        help="In which the native engine computes; as the file is stored if not given.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Threads that run the network in the native engine; one for each core if not given.",
    ),
)


def engine_options(command: Function) -> Function:
    """Give a command the options ``engine``, ``precision`` and ``threads`` of ``lucid.load``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
