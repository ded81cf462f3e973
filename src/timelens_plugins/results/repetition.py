"""Files of one run that answer the same moments: one run in two formats counts once, two runs are never summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from timelens_plugins.answers import normalize_query
from timelens_plugins.metrics import video_name
from timelens_plugins.results.result_file import Case, ResultFile
from timelens_plugins.spans import Span

__all__ = ["counted_once"]

_Moment: TypeAlias = tuple[str, str, tuple[Span, ...]]
_Answers: TypeAlias = frozenset[tuple[float, ...]]  # rounded spans, () for an answer without one


def counted_once(files: Sequence[ResultFile], *, evaluations_apart: bool = False) -> tuple[list[ResultFile], list[str]]:
    """The files of one run without those that repeat others of them, and a sentence about each of these.

    Moments are the same where video, query and spans are; subsets are not compared, as formats name them differently.
    Different tasks of lmms-eval may ask about the same moments. Samples of lmms-eval are kept rather than result files,
    as their settings are recorded.

    Args:
        files: of one folder, or of one name.
        evaluations_apart: samples of lmms-eval are runs of their own: only other files may repeat them.

    Raises:
        ValueError: two files answer the same moments in different ways.
    """
    kept: list[tuple[ResultFile, dict[_Moment, _Answers]]] = []
    notes: list[str] = []
    for file in sorted(files, key=lambda file: (not file.task, -len(file.cases) - len(file.absent))):
        answers = _answers(file)
        others = [
            (other, theirs)
            for other, theirs in kept
            if not (file.task and other.task and (evaluations_apart or file.task != other.task))
            and not theirs.keys().isdisjoint(answers)
        ]
        if not others:
            kept.append((file, answers))
            continue
        names = " and ".join(str(other.path) for other, _ in others)
        everywhere: dict[_Moment, _Answers] = {}
        for _, theirs in others:
            for moment, given in theirs.items():
                everywhere[moment] = everywhere.get(moment, frozenset()) | given
        shared = [moment for moment in answers if moment in everywhere]
        differing = [moment for moment in shared if not answers[moment] <= everywhere[moment]]
        if differing or len(shared) < len(answers):
            video, query, _ = next(iter(differing or answers.keys() - everywhere.keys()))
            raise ValueError(
                f"{file.path} and {names} answer {len(shared)} of the same moments and are not the same: video "
                f"{video!r}, query {query!r} is {'answered differently' if differing else 'only in the first'}. They "
                "are no one run: give each file by itself (NAME=FILE), or take one away"
            )
        notes.append(f"{file.path} repeats answers of {names}, which count once.")
    chosen = [id(file) for file, _ in kept]
    return [file for file in files if id(file) in chosen], notes


def _answers(file: ResultFile) -> dict[_Moment, _Answers]:
    """What every moment was answered with; a missing answer is none."""
    found: dict[_Moment, _Answers] = {}
    for case in (*file.cases, *file.absent):
        moment = (video_name(case.moment.video), normalize_query(case.moment.query), case.moment.target)
        if given := frozenset(_rounded(case)):
            found[moment] = found.get(moment, frozenset()) | given
    return found


def _rounded(case: Case) -> Iterator[tuple[float, ...]]:
    """The predictions, to a microsecond: formats write the same number differently."""
    for sample in case.samples:
        if sample.status != "missing":
            yield () if sample.predicted is None else tuple(round(second, 6) for second in sample.predicted)
