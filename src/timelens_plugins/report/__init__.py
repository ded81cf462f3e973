"""Reports of runs: one self-contained HTML file, and static charts.

- ``table``: the moments of all runs, matched
- ``figures``: every number the page prints
- ``training``: curves out of ``trainer_state.json``
- ``clips``, ``strips``: video files of moments, and frames of them
- ``payload``, ``page``, ``writing``: all of it as data, as HTML, as a file
- ``charts``: the figures as PNG and SVG
- ``assets/``: style and script of the page
"""

from timelens_plugins.report.strips import StripBudget
from timelens_plugins.report.writing import write_report

__all__ = ["StripBudget", "write_report"]
