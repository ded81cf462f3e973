"""Where the folders that travel with the package lie: beside ``src/`` in a checkout, inside the package in a wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_folder"]

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
