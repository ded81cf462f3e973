"""The types of arguments that are numbers: one out of range is an error that names the option and its bounds.

argparse, which calls them, adds the option's name.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

__all__ = ["POSITIVE", "SHARE", "Real", "Whole"]

_MOST = 2**31 - 1


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds, both included."""

    least: int = 1
    most: int = _MOST

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self.least - 1
        if not self.least <= value <= self.most:
            upper = f" and at most {self.most}" if self.most != _MOST or value > self.most else ""
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {self.least}{upper}, got {text!a:.80}")
        return value


@dataclass(frozen=True)
class Real:
    """A finite number within bounds; ``above`` and ``below`` say that the bound itself is not allowed."""

    least: float = 0.0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = math.isfinite(value) and self.least <= value <= self.most
        if not inside or (self.above and value == self.least) or (self.below and value == self.most):
            lower = f"{'above' if self.above else 'at least'} {self.least:g}"
            upper = "" if self.most == math.inf else f" and {'below' if self.below else 'at most'} {self.most:g}"
            raise argparse.ArgumentTypeError(f"must be a number, {lower}{upper}, got {text!a:.80}")
        return value


POSITIVE = Real(above=True)
SHARE = Real(most=1.0)
