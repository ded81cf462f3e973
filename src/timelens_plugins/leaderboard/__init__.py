"""Runs of one's own among the published results on TimeLens-Bench.

- ``published``: the published rows, the benchmarks and the official protocol, as data (``published.json``)
- ``protocol``: in what a run differs from that protocol, as lmms-eval recorded it
- ``entries``: results of runs, as one entry a run and benchmark
- ``board``: which entries may be ranked together, and their order
- ``rendering``: the board as text, Markdown, CSV or JSON
"""

from timelens_plugins.leaderboard.board import Board, build_board
from timelens_plugins.leaderboard.entries import entries_of, read_entries
from timelens_plugins.leaderboard.published import Entry, Published, load_published
from timelens_plugins.leaderboard.rendering import FORMATS, board_tables, render

__all__ = [
    "FORMATS",
    "Board",
    "Entry",
    "Published",
    "board_tables",
    "build_board",
    "entries_of",
    "load_published",
    "read_entries",
    "render",
]
