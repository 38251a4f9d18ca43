"""What every command writes to the terminal with."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

# A pipe or a file has no width; a table must not be cut to that of an 80-column terminal there.
_PIPE_WIDTH = 1000


def console(*, stderr: bool = False) -> Console:
    """A rich console on which names stay what they are: no markup, no emoji, no colouring.

    Pass names through ``printable`` all the same, since rich lets escape sequences through.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """The items, with a progress bar on stderr while they are taken, if that is a terminal."""
    from rich.progress import Progress

    bar = console(stderr=True)
    # Results go to stdout meanwhile, which rich would turn to where its bar is.
    progress = Progress(
        console=bar, transient=True, disable=not bar.is_terminal, redirect_stdout=False
    )
    with progress:
        yield from progress.track(items, description=what)


def printable(text: str) -> str:
    """One line of text that can't steer the terminal, whatever a file or class name holds."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def say(message: str, level: str = "") -> None:
    """Print one line on stderr; ``level`` is ``"error"``, ``"warning"`` or nothing."""
    click.echo(f"lucid: {level}{': ' if level else ''}{printable(message)}", err=True)
