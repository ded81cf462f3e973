"""Files and folders that a command names: looked at before it works, and what is said of those that cannot be used."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from timelens_plugins.atomic import refuse_special

__all__ = ["FOLDERS", "READ", "WRITTEN", "check_places", "explained"]

READ = ("file", "findings", "apply", "against", "answers", "annotations", "path", "training", "prompts")
FOLDERS = ("videos", "against_videos", "video_root")
WRITTEN = (
    "output",
    "json",
    "fix",
    "plot",
    "contact_sheet",
    "charts",
    "clip",
    "sheet",
    "validation_output",
    "clean",
    "journal",
)
"""Arguments of all commands that name a file or folder to read, a folder of videos, and a file or folder to write.

``results``, ``video`` and the ``videos`` of annotate may be globs, addresses and files: their readers look them up."""
CHECKPOINTS = ("model", "processor")
"""Arguments that name a folder, or what the hub has under that name."""


def check_places(args: argparse.Namespace) -> None:
    """Stop before the work where something to read is not there, or the result could not be written.

    The folder of a file to write is made where it is missing.

    Raises:
        ValueError: a file to write is one that is read.
        OSError: nothing is there to read, or nothing can be written there.
    """
    written = dict(_places(args, WRITTEN))
    for name, path in _places(args, READ):
        if not path.exists():
            raise FileNotFoundError(f"{_option(name)}{path}: there is no such file or folder{_remedy(path)}")
    for name, path in _places(args, FOLDERS):
        if not path.is_dir() and (args.command, name) != ("annotate", "videos"):
            raise NotADirectoryError(f"{_option(name)}{path}: there is no folder of videos{_remedy(path)}")
    for name in CHECKPOINTS:
        value = getattr(args, name, None)
        if isinstance(value, str) and _is_path(value) and not Path(value).exists():
            raise FileNotFoundError(f"{_option(name)}{value}: there is no such file or folder{_remedy(Path(value))}")
    _refuse_overwriting(args, written)
    _refuse_one_for_two(written)
    _refuse_tables(args, written)
    for name, path in written.items():
        if path == Path("-"):
            raise ValueError(f"{_option(name)}{path}: nothing is written to the standard output; name a file")
        _make_room(_option(name), path, folder=name in ("charts", "clip", "sheet", "journal") or args.command == "demo")


def _places(args: argparse.Namespace, names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        value = getattr(args, name, None)
        yield from ((name, path) for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path))


def _is_path(text: str) -> bool:
    """Whether a text names a file of this machine: names on the hub are ``NAME`` or ``OWNER/NAME``."""
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or text.endswith("/")


def _option(name: str) -> str:
    """How the command line calls it; a place without a name is the path alone."""
    return "" if name in ("file", "path", "video") else f"--{name.replace('_', '-')} "


def _remedy(path: Path) -> str:
    """The part of a path that is there, so that a slip in it is seen."""
    if path.is_symlink():
        return "; the link leads nowhere"
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    missing = path.absolute().relative_to(there).parts[0]
    return f"; check the path: {there} has no {missing!r}"


def _refuse_overwriting(args: argparse.Namespace, written: dict[str, Path]) -> None:
    read: list[Path] = []
    for name, value in vars(args).items():
        if name not in written:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str | Path):
                    read += [Path(item), Path(str(item).partition("=")[2])]  # results may come as NAME=PATH
    for name, path in written.items():
        if path.is_file() and any(other.is_file() and other.samefile(path) for other in read):
            raise ValueError(
                f"{_option(name)}{path} would replace a file that is read: choose another, so nothing is lost"
            )


def _refuse_one_for_two(written: dict[str, Path]) -> None:
    """Two outputs of one name, of which the later one would replace the other; a folder may take both."""
    taken: dict[Path, str] = {}
    for name, path in written.items():
        other = taken.setdefault(path.resolve(), name)
        if other != name and (path.suffix or path.is_file()):
            raise ValueError(
                f"{_option(name)}{path}: the two outputs are one file, as {_option(other).strip()} names it, too; "
                "choose another for one of them"
            )


def _refuse_tables(args: argparse.Namespace, written: dict[str, Path]) -> None:
    """Annotations and findings are written as JSON Lines, which a program that opens a table would take for one."""
    of_rows: tuple[str, ...] = ("fix", "clean", "validation_output")
    rows = args.command in ("annotate", "audit", "convert") or getattr(args, "apply", None) is not None
    of_rows += ("output",) if rows else ()
    for name in of_rows:
        if name in written and written[name].suffix.lower() in (".csv", ".tsv"):
            raise ValueError(f"{_option(name)}{written[name]}: rows are written as JSON Lines; name it .jsonl")


def _make_room(option: str, path: Path, *, folder: bool) -> None:
    try:
        refuse_special(path)
    except OSError as error:
        raise OSError(f"{option}{error}") from None
    if path.is_dir() and not folder:
        raise IsADirectoryError(f"{option}{path}: a folder; name the file in it, such as {path / 'NAME'}")
    if path.is_file() and folder and not path.suffix:
        raise NotADirectoryError(f"{option}{path}: a file, where a folder is needed: choose another place")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{option}{path}: cannot be written there, {above} is a file and no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{option}{path}: cannot be written there, the folder {above} is not writable")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)


_REMEDIES: dict[type[OSError], str] = {
    FileNotFoundError: "there is no such file or folder",
    IsADirectoryError: "a folder, where a file is needed; name the file in it",
    NotADirectoryError: "a part of the path is a file and no folder; check the path",
    FileExistsError: "a file of this name is there already; choose another place, or move it away",
    PermissionError: "may not be read or written; change its permissions, or choose another place",
}


def explained(error: OSError, args: argparse.Namespace) -> str:
    """An error of the system as a sentence with the file and what to do; others as they are."""
    if error.errno is None or error.filename is None:
        asked = (value for name in CHECKPOINTS if isinstance(value := getattr(args, name, None), str))
        absent = next((value for value in asked if not Path(value).exists()), None)
        return (
            str(error)
            if absent is None or type(error) is not OSError
            else f"{absent}: there is no such folder here, and of the hub: {error}"
        )
    path = Path(os.fsdecode(error.filename))
    said = next((text for kind, text in _REMEDIES.items() if isinstance(error, kind)), None)
    if said is None:
        return f"{path}: {error.strerror}; free the disk or choose another place, then run the command again"
    return f"{path}: {said}{_remedy(path) if isinstance(error, FileNotFoundError) and not path.exists() else ''}"
