"""Private names of other packages that are relied on: one list a package, checked where they are first used.

A renamed function must be an error at the start that says what to install, not a function of ours that nobody calls
any more. TRL's list is in ``grpo/upstream.py``, beside the trainer that leans on it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Name", "UpstreamChangedError", "differences"]


class UpstreamChangedError(RuntimeError):
    """An installed package is not one of the releases this package was written for."""


@dataclass(frozen=True)
class Name:
    """One name that is overridden, wrapped or called.

    Attributes:
        path: ``module:name`` or ``module:Class.name``.
        parameters: its first parameters, where they matter.
        line: a piece of its source that shows what is leaned on.
    """

    path: str
    parameters: tuple[str, ...] = ()
    line: str = ""

    def difference(self) -> str | None:
        """What is not as expected in the installed release, or None."""
        module, _, attributes = self.path.partition(":")
        try:
            found: Any = functools.reduce(getattr, attributes.split("."), importlib.import_module(module))
        except (ImportError, AttributeError):
            return f"{self.path} is gone"
        if self.parameters:
            given = tuple(inspect.signature(found).parameters)
            if given[: len(self.parameters)] != self.parameters:
                return f"{self.path} takes {given}, expected {self.parameters} first"
        if self.line and self.line not in _source(found):
            return f"{self.path} no longer has {self.line!r}"
        return None


def _source(found: Any) -> str:
    """Source of a function or class; none of what is not written in Python, such as the constructor of ``object``."""
    try:
        return inspect.getsource(found)
    except (OSError, TypeError):
        return ""


def differences(names: Sequence[Name]) -> list[str]:
    """What of ``names`` is not as expected in the installed releases."""
    return [said for name in names if (said := name.difference()) is not None]


def check(package: str, supported: str, names: Sequence[Name]) -> None:
    """Compare the installed release of a package with what is relied on.

    Raises:
        UpstreamChangedError: naming the release, each difference and the remedy.
    """
    if found := differences(names):
        version = getattr(importlib.import_module(package), "__version__", "(unknown release)")
        raise UpstreamChangedError(
            f"{package} {version} is not supported: {'; '.join(found)}. Install a release from {supported}"
        )
