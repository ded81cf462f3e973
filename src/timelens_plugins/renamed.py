"""Settings that had another name: the old one is an error that says the new one, in YAML, flags and model arguments."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["RENAMED", "refuse_renamed"]

RENAMED = {"share_prefill": "share_prefix", "decoder_threads": "clip_workers", "snap_targets": "snap_spans"}
"""Old name -> present name."""


def refuse_renamed(names: Iterable[str], where: str = "") -> None:
    """Look for old names.

    Args:
        names: of settings.
        where: they were written, for the message.

    Raises:
        ValueError: one of them is an old name.
    """
    if old := [name for name in names if name in RENAMED]:
        said = ", ".join(f"{name} is now called {RENAMED[name]}" for name in old)
        raise ValueError(f"{where + ': ' if where else ''}{said}")
