"""Starts a recipe: what is wrong with settings, data or the checkpoint is one message, and no trace of the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from timelens_plugins.recipe.parsing import parse

__all__ = ["before_training", "start"]

_FAULTS = (ValueError, OSError, ImportError)
_NOTE = "Nothing was trained or answered yet."


@contextmanager
def before_training() -> Iterator[None]:
    """Errors of values and files in this block are those of who wrote the settings or the data, and are marked so."""
    try:
        yield
    except _FAULTS as error:
        error.add_note(_NOTE)
        raise


def start(main: Callable[..., int | None], settings: Sequence[type]) -> NoReturn:
    """Run a recipe with the command line's settings and exit: with 2 and a message where they, or the data, are wrong.

    Args:
        main: of the recipe; what may fail so stands in it under :func:`before_training`. Returns the exit status.
        settings: as of :func:`~timelens_plugins.recipe.parsing.parse`.
    """
    try:
        with before_training():
            values = parse(settings)
        status = main(*values)
    except _FAULTS as error:
        if _NOTE not in getattr(error, "__notes__", ()):
            raise
        rank = f" (process {os.environ['RANK']})" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        said = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            said = f"{error.filename}: {error.strerror}"
        print(f"{Path(sys.argv[0]).name}{rank}: {said}", file=sys.stderr, flush=True)
        status = 2
    sys.exit(status)
