"""Builds C programs for Arm's evaluation boards and runs them in QEMU, without hardware.

    python emulate.py cortex-m4 DIR/*.c [-DNAME ...] [--run ARGUMENT ...]

Needs arm-none-eabi-gcc with newlib, and qemu-system-arm. Programs read and write files of this
machine, in the folder where QEMU is started. There is no model of the boards' speed: with
`counted`, time goes on by the same amount with every instruction, so that SysTick counts them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"


@dataclass(frozen=True)
class Board:
    """A board that QEMU knows.

    Args:
        core: its processor.
        machine: QEMU's name of it, and of the linker script beside this file.
        flags: of the compiler.
        hertz: of SysTick's clock in QEMU.
    """

    core: str
    machine: str
    flags: tuple[str, ...]
    hertz: int

    def ticks_per_instruction(self, shift: int) -> float:
        return self.hertz * (1 << shift) / 1e9


BOARDS = {
    "cortex-m4": Board(
        "Cortex-M4F",
        "mps2-an386",
        ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        25_000_000,
    ),
    "cortex-m55": Board(
        "Cortex-M55 with MVE", "mps3-an547", ("-mcpu=cortex-m55", "-mfloat-abi=hard"), 32_000_000
    ),
}


def missing_program() -> str | None:
    """The first program that is needed and not installed."""
    return next((name for name in (COMPILER, EMULATOR) if shutil.which(name) is None), None)


def build(
    board: Board, sources: Sequence[str | Path], out: Path, flags: Sequence[str] = ("-O2",)
) -> Path:
    """Compile and link a program; raises CalledProcessError with the compiler's words in stderr."""
    command = [COMPILER, *board.flags, *flags, *map(str, sources), str(HERE / "start.c")]
    linking = [
        "-nostartfiles",
        "--specs=rdimon.specs",
        "-L",
        str(HERE),
        "-T",
        f"{board.machine}.ld",
    ]
    subprocess.run(
        [*command, *linking, "-o", str(out)], check=True, stderr=subprocess.PIPE, text=True
    )
    return out


def run(
    board: Board,
    program: Path,
    arguments: Sequence[str] = (),
    *,
    counted: int | None = None,
    timeout: float = 600,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program; its output and its exit status, 101 if it crashed.

    Args:
        arguments: without spaces and commas.
        counted: an instruction takes 2**counted nanoseconds; much slower than without.
        timeout: seconds.
        cwd: where its files are.
    """
    names = "".join(f",arg={each}" for each in (program.name, *arguments))
    command = [EMULATOR, "-M", board.machine, "-nographic", "-kernel", str(program.resolve())]
    command += ["-semihosting-config", f"enable=on,target=native{names}"]
    if counted is not None:
        command += ["-icount", f"shift={counted}"]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=timeout, cwd=cwd,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("board", choices=BOARDS)
    parser.add_argument("sources", nargs="+", help="C files")
    parser.add_argument("--run", nargs="*", default=[], metavar="ARGUMENT")
    options, flags = parser.parse_known_args()
    if (missing := missing_program()) is not None:
        sys.exit(f"emulate.py: no {missing}")
    board = BOARDS[options.board]
    program = Path(f"{options.board}.elf")
    try:
        build(board, options.sources, program, ["-O2", *flags])
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
    result = run(board, program, options.run, counted=6)
    print(result.stdout, end="")
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
