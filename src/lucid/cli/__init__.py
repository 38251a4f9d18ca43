"""The command line: finds a command by its name, and turns every error into one line.

Each command is the click command ``command`` in the module of its name, ``import_`` where the name
is a keyword; its module is imported only when that command is called for, so that ``lucid --help``
is fast and needs no extra.

Exit codes: 0 done; 2 wrong usage or bad input; 1 a failure of ours, or quietly when the reader of
our output has gone, as after ``| head``; 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import importlib
import keyword
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import click

from lucid import __version__
from lucid.cli.terminal import say
from lucid.errors import LucidError, suggest

__all__ = ["main"]

COMMANDS = {
    "audit": "Find what is wrong with a folder of photos.",
    "train": "Train a MobileNet on a folder of photos.",
    "evaluate": "Measure a checkpoint on labelled photos.",
    "predict": "Name what is in photos.",
    "inspect": "Show what a checkpoint holds, layer by layer.",
    "benchmark": "Measure speed beside other runtimes.",
    "engine": "Show what the engine computes with here.",
    "chart": "Draw a model as a chart.",
    "import": "Turn published weights into a checkpoint.",
    "quantize": "Round a checkpoint to int8.",
    "export": "Write a file that another runtime runs.",
    "devices": "List boards with a microcontroller.",
}

_BAD_INPUT = 2
_OUR_FAILURE = 1
_INTERRUPTED = 130


class _Commands(click.Group):
    """A group that imports a command when it is called, and that reports errors."""

    # The signatures are click's.
    # ruff: noqa: ARG002

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = importlib.import_module(f"lucid.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = suggest(args[0], COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}{near or '; one of ' + ', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.Abort, click.exceptions.Exit):
            raise
        except Exception:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run the command line and exit; the only place where errors become words and codes."""
        # File names may hold bytes that the terminal's encoding lacks.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name or "lucid", **extra, standalone_mode=False) or 0
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            code = _OUR_FAILURE
        except (click.Abort, KeyboardInterrupt) as error:
            # click hides the interrupt, which may say how to go on, behind its own exception.
            say(str(error.__cause__ or error) or "stopped by Ctrl-C")
            code = _INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = _BAD_INPUT
        except click.ClickException as error:
            code = _say(_BAD_INPUT, _usage(error))
        except LucidError as error:
            code = _say(_BAD_INPUT, str(error))
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                _discard_output()
                where = error.filename or "the output"
                code = _say(_BAD_INPUT, f"{where}: no space is left; make room or write elsewhere")
            else:
                code = _say(_OUR_FAILURE, _failure(error))
        sys.exit(code)


def _discard_output() -> None:
    """What is still buffered would fail again when Python exits (Python docs, SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(code: int, message: str) -> int:
    say(message, "error")
    return code


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".").replace("\n", " ")
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message}; see '{context.command_path} --help'" if context else message


def _failure(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    summary = f"this is a failure of lucid, not yours: {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lucid-failure-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        return f"{summary}; run it again with 'lucid --debug' to see where"
    return f"{summary}; the traceback is in {file.name}"


@click.group("lucid", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lucid", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="LUCID_DEBUG", help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """From a folder of photos to a MobileNet that runs on the device you have."""
