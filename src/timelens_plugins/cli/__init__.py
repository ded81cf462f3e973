"""The ``timelens`` command. One module per sub-command, imported only when it is used.

A command module has ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status); its docstring's first line is
the help text. Expected failures (``ValueError``, ``OSError``, missing packages) end in one line on stderr
and status 2.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from timelens_plugins import __version__

__all__ = ["main"]

COMMANDS = {
    "demo": "run the whole line on synthetic clips and a tiny model",
    "doctor": "check this machine, and a checkpoint, for what would make results wrong or slow",
    "inspect": "show the prompt that a model gets for a video and a query",
    "leaderboard": "show results among the published ones on TimeLens-Bench",
    "plateau": "replay the stop at a reward plateau on a finished run, and plot its rewards",
    "recipes": "print where the training recipes and their configurations lie",
    "report": "write an HTML report of one or several runs",
    "score": "score result files of TimeLens or lmms-eval under both readings",
}

EXTRAS = {"demo": "eval,train", "doctor": "video", "inspect": "video", "plateau": "train,report", "report": "report"}
"""What to install for a command, where that is more than the package alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``timelens``; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="timelens", description="Video temporal grounding: evaluate, inspect, train.")
    parser.add_argument("--version", action="version", version=f"timelens-plugins {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            try:
                module = importlib.import_module(f"timelens_plugins.cli.{name}")
                module.add_arguments(command)
            except ModuleNotFoundError as error:
                return _not_installed(name, error)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        status: int = args.run(args)
    except ModuleNotFoundError as error:
        return _not_installed(args.command, error)
    except (ValueError, OSError) as error:
        print(f"timelens {args.command}: {error}", file=sys.stderr)
        return 2
    return status


def _not_installed(command: str, error: ModuleNotFoundError) -> int:
    if error.name is None or error.name.split(".")[0] == "timelens_plugins" or command not in EXTRAS:
        raise error
    print(
        f"timelens {command}: {error.name} is not installed: pip install 'timelens-plugins[{EXTRAS[command]}]'",
        file=sys.stderr,
    )
    return 2
