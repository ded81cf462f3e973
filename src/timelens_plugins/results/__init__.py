"""Finished runs, read back: the one reader of result files, samples files, difficulty files, folders and whole runs.

- ``json_files``: JSON in bounded memory
- ``rows``, ``predict_only``: a row of a result file
- ``result_file``, ``files``: what a file says, as cases (a moment and what was answered to it); reading it
- ``lmms_eval``: names and records of lmms-eval's files
- ``repetition``: which files of a run repeat others
- ``runs``: files, folders and globs, and which of them are one run
- ``scoring``: scores of cases
"""

from timelens_plugins.results.files import PredictOnly, collection_paused, load_file, load_results
from timelens_plugins.results.result_file import Case, Disagreement, ResultFile, Window
from timelens_plugins.results.runs import (
    Run,
    Source,
    annotations_for,
    check_names,
    find_sources,
    load_run,
    load_runs,
    load_source,
)
from timelens_plugins.results.scoring import score_cases

__all__ = [
    "Case",
    "Disagreement",
    "PredictOnly",
    "ResultFile",
    "Run",
    "Source",
    "Window",
    "annotations_for",
    "check_names",
    "collection_paused",
    "find_sources",
    "load_file",
    "load_results",
    "load_run",
    "load_runs",
    "load_source",
    "score_cases",
]
