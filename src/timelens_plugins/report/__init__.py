"""Reports of runs: one self-contained HTML file, and static charts.

- ``folders``: the files of a run in a folder of lmms-eval
- ``runs``: result and difficulty files, read into cases (a moment and a run's answers to it)
- ``table``: the moments of all runs, matched
- ``scoring``, ``figures``: scores of cases; every number the page prints
- ``training``: curves out of ``trainer_state.json``
- ``clips``, ``strips``: video files of moments, and frames of them
- ``payload``, ``page``, ``writing``: all of it as data, as HTML, as a file
- ``charts``: the figures as PNG and SVG
- ``assets/``: style and script of the page
"""

from timelens_plugins.report.runs import Case, Run, load_run, load_runs
from timelens_plugins.report.strips import StripBudget
from timelens_plugins.report.writing import write_report

__all__ = ["Case", "Run", "StripBudget", "load_run", "load_runs", "write_report"]
