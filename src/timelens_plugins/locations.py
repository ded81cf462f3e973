"""Where the package comes from: the folders that travel with it (beside ``src/`` in a checkout, inside the package in a
wheel), and how to install more of it. No package index has it."""

from __future__ import annotations

from pathlib import Path

from timelens_plugins import __version__

__all__ = ["how_to_install", "shipped_folder"]

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """The folder ``name`` (``"tasks"`` or ``"recipes"``); ``FileNotFoundError`` for a broken install."""
    candidates = (_PACKAGE / "_shipped" / name, _PACKAGE.parents[1] / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"timelens-plugins is installed without its folder '{name}' (looked in {candidates[0]} and {candidates[1]}). "
        "Reinstall it from a wheel, or in editable mode from a complete checkout."
    )


def how_to_install(extras: str) -> str:
    """What to run for extras, such as ``"video"`` or ``"eval,train"``, from a clone or from a wheel."""
    return (
        f"in a clone pip install -c constraints.txt '.[{extras}]', with a wheel pip install "
        f"'timelens_plugins-{__version__}-py3-none-any.whl[{extras}]'"
    )
