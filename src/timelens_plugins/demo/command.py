"""Runs a command: all of its output goes to a file, of that only the progress bars to the terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["CommandError", "run_command"]

_BAR = re.compile(r"\d+%\|")
_SILENCE = 15.0  # seconds between two lines where the output is not a terminal
_TAIL = 25


class CommandError(RuntimeError):
    """A command failed; the message has the end of its output."""


def run_command(
    command: Sequence[str], log: Path, *, label: str, environment: Mapping[str, str] | None = None, bars: str = ""
) -> None:
    """Run a command to its end.

    Args:
        command: program and arguments.
        log: file that its output is appended to, with the command itself.
        label: put before its progress bars.
        environment: variables on top of this process's own.
        bars: regular expression that a progress bar has to match to be shown; default: all.

    Raises:
        CommandError: it ended with another status than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    shown = " ".join(f"{name}={value}" for name, value in (environment or {}).items())
    # A pipe, not the file itself: should this process be killed, the command ends at its next line.
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shown} {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
        )
        assert process.stdout is not None
        try:
            _follow(process.stdout, file, label, re.compile(bars))
        finally:
            if process.poll() is None:
                process.terminate() if sys.exc_info()[0] else None
                process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        end = "\n".join(line for line in lines[-_TAIL:])
        raise CommandError(f"{label} failed with status {process.returncode}; the end of {log}:\n{end}")


def _follow(stream: IO[bytes], file: IO[str], label: str, wanted: re.Pattern[str]) -> None:
    terminal = sys.stderr.isatty()
    last, drawn = 0.0, False
    for piece, ended in _pieces(stream):
        if ended or not _BAR.search(piece):
            file.write(piece + "\n")
            file.flush()
        if not (_BAR.search(piece) and wanted.search(piece)):
            continue
        now = time.monotonic()
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + f"  {label}: {piece.strip()}"[:width].ljust(width))
            drawn = True
        elif now - last > _SILENCE:
            sys.stderr.write(f"  {label}: {piece.strip()}\n")
            last = now
        sys.stderr.flush()
    if drawn:
        sys.stderr.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        sys.stderr.flush()


def _pieces(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Text between line ends and carriage returns, as it comes; and whether a line ended with it."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *pieces, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for piece in pieces:
            text = piece.decode("utf-8", errors="replace")
            if text.strip():
                yield text.rstrip("\r\n"), text.endswith("\n")
    if rest.strip():
        yield rest.decode("utf-8", errors="replace"), True
