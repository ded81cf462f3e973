"""``timelens recipes``: the folder of the training recipes, which travels with the package."""

from __future__ import annotations

import argparse

from timelens_plugins.locations import shipped_folder

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(shipped_folder("recipes"))
    return 0
