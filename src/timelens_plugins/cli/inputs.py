"""Arguments that several commands share: those of every command that reads finished runs, and ``--workers``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["EPILOG", "add_inputs", "check_workers", "names_and_paths", "text"]

EPILOG = """\
results:
  samples files of lmms-eval (--log_samples, or --predict_only with --annotations), its results.json, result files of
  TimeLens, difficulty files; folders, searched for the first three; globs of all these. Files that lmms-eval wrote at
  the same time are one run, as are those given the same name and those in one folder below a given one; every other
  file is a run of its own. One run in two formats counts once; files of a run that answer the same moments differently
  are an error. What is passed over or put together is said.
"""


def text(argument: str) -> str:
    """The type of an argument that is words and no path: bytes that are no text would break where it is used.

    Raises:
        ArgumentTypeError: which argparse tells with the option's name.
    """
    if not _is_text(argument):
        raise argparse.ArgumentTypeError(f"not UTF-8 text: {argument!a}")
    return argument


def _is_text(argument: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in argument)


def check_workers(args: argparse.Namespace) -> None:
    """``--workers``, of commands that look at videos where ``--videos`` is given.

    Raises:
        ValueError: there are no videos to look at.
    """
    if args.workers is not None and args.videos is None:
        raise ValueError("--workers needs --videos: without them no video is looked at")


def add_inputs(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """``RESULTS…``, ``--name``, ``--annotations``, ``--reparse``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs=nargs, metavar="[NAME=]RESULTS", help="files, folders and globs; see below")
    parser.add_argument(
        "--name", nargs="+", type=text, default=[], metavar="NAME", help="names of the runs, one for each RESULTS"
    )
    parser.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="annotations the results were made from, one file for all results or one for each, in order: unanswered "
        "moments then count as missing, and durations become known",
    )
    parser.add_argument(
        "--reparse",
        action="store_true",
        help="read predictions from the answers with this package's parser, instead of taking the stored ones",
    )


def names_and_paths(args: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """The names that were given, ``""`` for none, and the paths."""
    names, paths = [], []
    for given in args.results:
        name, found, path = given.partition("=")
        if not found or Path(given).exists():
            name, path = "", given
        elif not name or not path or not _is_text(name):
            raise ValueError(f"RESULTS {given!a}: expected NAME=PATH, the name as UTF-8 text")
        names.append(name)
        paths.append(Path(path))
    if args.name and any(names):
        raise ValueError("--name and NAME=PATH exclude each other")
    return args.name or names, paths
