"""Runs of one's own among the published results on TimeLens-Bench.

- ``published``: the published rows, the benchmarks and the official protocol, as data (``published.json``)
- ``protocol``: in what a run differs from that protocol, as lmms-eval recorded it
- ``runs``: results of lmms-eval and TimeLens on disk, as one entry a run and benchmark
- ``board``: which entries may be ranked together, and their order
- ``rendering``: the board as text, Markdown, CSV or JSON
"""

from timelens_plugins.leaderboard.board import Board, build_board
from timelens_plugins.leaderboard.published import Entry, Published, load_published
from timelens_plugins.leaderboard.rendering import FORMATS, render
from timelens_plugins.leaderboard.runs import read_runs

__all__ = ["FORMATS", "Board", "Entry", "Published", "build_board", "load_published", "read_runs", "render"]
