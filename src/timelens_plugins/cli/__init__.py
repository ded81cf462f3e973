"""The ``timelens`` command. One module per sub-command, imported only when it is used.

A command module has ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status); its docstring's first line is
the help text. Expected failures (``ValueError``, ``OSError``, missing packages) end in one line on stderr
and status 2.
"""

from __future__ import annotations

import argparse
import codecs
import importlib
import io
import locale
import os
import sys
from collections.abc import Sequence

from timelens_plugins import __version__
from timelens_plugins.cli.places import check_places, explained
from timelens_plugins.locations import how_to_install

__all__ = ["main"]

COMMANDS = {
    "annotate": "let a model annotate videos, each annotation confirmed by an independent grounding",
    "audit": "find signs of label errors in an annotation file, ranked",
    "compare-benchmarks": "hold scores on original annotations against those on refined ones",
    "convert": "write annotations as rows of ms-swift, verl or TRL",
    "demo": "run the whole line on synthetic clips and a tiny model",
    "doctor": "check this machine, and a checkpoint, for what would make results wrong or slow",
    "ground": "find when something happens in a video, cut it out, show it on a sheet",
    "inspect": "show the prompt that a model gets for a video and a query",
    "leaderboard": "show results among the published ones on TimeLens-Bench",
    "plan": "estimate memory, operations and hours of a training run, before it is started",
    "plateau": "replay the stop at a reward plateau on a finished run, and plot its rewards",
    "recipes": "print where the training recipes and their configurations lie",
    "report": "write an HTML report of one or several runs",
    "review": "decide an audit's findings on a page, and correct the annotations",
    "score": "score result files of TimeLens or lmms-eval under both readings",
    "validate": "find what is broken or doubtful in an annotation file and its videos",
}

EXTRAS = {
    "annotate": "quality,eval",
    "audit": "quality,video",
    "compare-benchmarks": "quality",
    "demo": "eval,train",
    "doctor": "video",
    "ground": "video",
    "inspect": "video",
    "plateau": "train,report",
    "report": "report",
    "review": "quality,video",
    "validate": "quality,video",
}
"""What to install for a command, where that is more than the package alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``timelens``; returns the exit status."""
    if argv is None:
        _read_names_as_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_terminal(), errors=_SPELT_OUT)
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="timelens", description="Video temporal grounding: evaluate, inspect, train.")
    parser.add_argument("--version", action="version", version=f"timelens-plugins {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            try:
                module = importlib.import_module(f"timelens_plugins.cli.{name.replace('-', '_')}")
                module.add_arguments(command)
            except ModuleNotFoundError as error:
                return _not_installed(name, error)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        _refuse_empty(arguments)
        check_places(args)
        status: int = args.run(args)
    except ModuleNotFoundError as error:
        return _not_installed(args.command, error)
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        said = explained(error, args) if isinstance(error, OSError) else error
        print(f"timelens {args.command}: {said}", file=sys.stderr)
        return 2
    return status


def _refuse_empty(arguments: Sequence[str]) -> None:
    """What a variable of the shell that is not set leaves: as a path it would mean the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            where = f"behind {before!a}" if not argument else f"of {argument[:-1]}"
            raise ValueError(f"the argument {where} is empty: is a variable not set?")


def _read_names_as_utf8() -> None:
    """Start anew in UTF-8 mode where Python takes the names of files for ASCII: those in annotations are UTF-8.

    Python itself does so in the C locale, unless ``PYTHONUTF8=0`` forbids it; see :func:`_terminal`.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii" and sys.executable:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _terminal() -> str | None:
    """What a terminal without UTF-8 shows; None for what Python found."""
    forbidden = os.environ.get("PYTHONUTF8") == "0" and sys.flags.utf8_mode and "PYTHONIOENCODING" not in os.environ
    return locale.getencoding() if forbidden else None


_PLAIN = {"–": "-", "−": "-", "…": "...", "→": "->", "▸": ">", "×": "x", "⏎": "$", "·": "-", "’": "'"}
_SPELT_OUT = "timelens_spelt_out"


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """What the terminal cannot show, and half characters that data may hold, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


codecs.register_error(_SPELT_OUT, _spell_out)


def _not_installed(command: str, error: ModuleNotFoundError) -> int:
    if error.name is None or error.name.split(".")[0] == "timelens_plugins" or command not in EXTRAS:
        raise error
    print(
        f"timelens {command}: {error.name} is not installed: {how_to_install(EXTRAS[command])}",
        file=sys.stderr,
    )
    return 2
