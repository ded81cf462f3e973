"""``audit``: every sign of a label error in a file, put together to ranked findings."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from timelens_plugins.atomic import write_whole
from timelens_plugins.moments import LoadedMoments, Moment, load_moments
from timelens_plugins.quality.asked import asked_for
from timelens_plugins.quality.calibration import Scorer
from timelens_plugins.quality.findings import KINDS, Evidence, Finding
from timelens_plugins.quality.lengths import length_evidence
from timelens_plugins.quality.pairs import pair_evidence
from timelens_plugins.quality.wording import unclear_reasons

if TYPE_CHECKING:
    from timelens_plugins.quality.asking import ModelChoice
    from timelens_plugins.quality.questioning import Questioned

__all__ = ["Audit", "audit", "findings_of", "read_findings", "wording_evidence", "write_findings"]

_REASONS = {
    "refers": (0.9, "refers to something outside the query"),
    "pronoun": (0.85, "names nobody and nothing: a pronoun stands for it"),
    "vague": (0.95, "has no word that tells it from the rest of a video"),
    "short": (0.5, "has one telling word"),
    "follows": (0.65, "tells what comes after something else"),
    "long": (0.55, "tells several events"),
}


@dataclass(frozen=True)
class Audit:
    """Findings with what they were made from.

    Attributes:
        findings: highest score first.
        unreadable: videos that could not be looked at, with the reason.
        notes: what there is to say of the answers, a sentence each.
    """

    moments: LoadedMoments
    findings: Sequence[Finding]
    unreadable: dict[str, str]
    notes: Sequence[str] = ()

    def table(self, shown: int = 3) -> str:
        """Counts by kind, with the findings of the highest scores."""
        report = self.moments.report
        lines = [f"{report.file} ({report.format}): {report.moments:,} moments of {report.videos:,} videos"]
        counts = Counter(finding.kind for finding in self.findings)
        for kind in KINDS:
            found = [finding for finding in self.findings if finding.kind == kind]
            likely = sum(finding.score >= 0.5 for finding in found)
            expected = sum(finding.score for finding in found)
            share = counts[kind] / len(self.moments)
            lines.append(
                f"{kind:11} {counts[kind]:7,} findings ({share:.1%} of moments), {likely:,} likely, "
                f"{expected:,.0f} expected wrong"
            )
            for finding in found[:shown]:
                spans = ", ".join(f"{a:g} - {b:g}" for a, b in finding.spans)
                reason = finding.evidence[0].reason
                lines.append(f"  {finding.score:.2f} {finding.moment}: {finding.query!r} [{spans} s] {reason}")
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} videos could not be looked at:")
            lines += [f"  {video}: {reason}" for video, reason in list(self.unreadable.items())[:shown]]
        lines += self.notes
        if self.moments.report.skipped:
            lines.append(f"{len(report.skipped):,} rows could not be read; `timelens validate` names them")
        return "\n".join(lines)


def audit(
    file: str | Path,
    videos: str | Path | None = None,
    *,
    answers: Sequence[str | Path] = (),
    model: ModelChoice | None = None,
    journal: str | Path | None = None,
    samples: int = 8,
    format: str | None = None,  # noqa: A002 - the word for it
    workers: int | None = None,
    progress: bool = False,
) -> Audit:
    """Signs of the five kinds of label error, without a model or with a model's answers.

    Args:
        file: annotations in any format of :func:`~timelens_plugins.moments.load_moments`.
        videos: folder that the paths of the videos start from, to hold spans against the pictures; None looks at none.
        answers: results of a model on these annotations, best several sampled answers to each moment: the rows of
            ``recipes/difficulty.py``, or result files of an evaluation.
        model: to ask ``samples`` times where each query is, and whether it happens at all.
        journal: folder of its finished answers, so that an interrupted audit goes on; needed with ``model``.
        workers: videos looked at at the same time.

    Raises:
        AnnotationError: nothing of the file can be read.
        ValueError: answers to other annotations; a model without videos or journal, or with an unknown option.
    """
    loaded = load_moments(file, format=format, video_root=videos, on_error="skip")
    judged, notes = _as_asked(loaded)
    evidence = [*pair_evidence(judged), *length_evidence(judged), *wording_evidence(judged)]
    if answers:
        seen, said = _answer_evidence(loaded, answers)
        evidence += seen
        notes += said
    unreadable: dict[str, str] = {}
    if model is not None:
        if videos is None or journal is None:
            raise ValueError("a model needs the videos' folder, and a journal for its answers")
        asked = _question(judged, model, journal, samples, progress)
        evidence += asked.evidence
        notes += asked.notes
        unreadable |= asked.unanswered
    if videos is not None:
        seen, unseen = picture_evidence(loaded, workers=workers, progress=progress)
        evidence += seen
        unreadable |= unseen
    return Audit(loaded, findings_of(judged, evidence), unreadable, tuple(notes))


def _as_asked(loaded: LoadedMoments) -> tuple[list[Moment], list[str]]:
    """Moments of chat rows with the query that their question asks for, and a note where it is not certain."""
    judged, whole = [], 0
    for moment in loaded:
        query = None if moment.question is None else asked_for(moment.question)
        whole += moment.question is not None and query is None
        judged.append(moment if query is None else replace(moment, query=query))
    if not whole:
        return judged, []
    return judged, [
        f"{whole:,} of {len(judged):,} questions are in no known form of prompt: what they ask for could not be told "
        "from how they ask, and their whole text was judged"
    ]


def _question(
    moments: Sequence[Moment], model: ModelChoice, journal: str | Path, samples: int, progress: bool
) -> Questioned:
    from timelens_plugins.difficulty.estimate import Answering
    from timelens_plugins.quality.questioning import question_model

    return question_model(moments, model, journal, answering=Answering(samples=samples), progress=progress)


def _answer_evidence(loaded: LoadedMoments, answers: Sequence[str | Path]) -> tuple[list[Evidence], list[str]]:
    """Signs in a model's answers, and what there is to say of the files."""
    from timelens_plugins.quality.grounding import answers_by_moment, grounding_evidence
    from timelens_plugins.results import load_run

    run = load_run(list(answers), "answers")
    found, foreign = answers_by_moment(loaded, run.cases)
    notes = list(run.remarks)
    if missing := len(loaded) - len(found):
        notes.append(f"{missing:,} of {len(loaded):,} moments have no answer: no sign of a model for them")
    if foreign:
        notes.append(f"{foreign:,} answers are to moments that the annotations do not hold")
    return list(grounding_evidence(loaded, found)), notes


def wording_evidence(moments: Iterable[Moment]) -> Iterator[Evidence]:
    """Signs in a query alone."""
    for moment in moments:
        for name in unclear_reasons(moment.query):
            strength, reason = _REASONS[name]
            yield Evidence(moment.id, "unclear", name, strength, reason)


def picture_evidence(
    moments: Sequence[Moment], *, workers: int | None = None, progress: bool = False
) -> tuple[list[Evidence], dict[str, str]]:
    """Signs in the pictures around the ends of spans, and the videos that could not be looked at."""
    from timelens_plugins.moments import find_video
    from timelens_plugins.quality.changes import boundary_evidence, change_curves
    from timelens_plugins.video.errors import fault_of

    clips: dict[tuple[str, float | None, float | None], list[Moment]] = defaultdict(list)
    for moment in moments:
        clips[moment.video, moment.video_start, moment.video_end].append(moment)

    def look(clip: tuple[str, float | None, float | None]) -> list[Evidence] | str:
        try:
            curves = change_curves(str(find_video(clip[0])), clip[1], clip[2])
        except (OSError, ValueError) as error:
            return fault_of(error, clip[0])
        return boundary_evidence(clips[clip], curves)

    evidence: list[Evidence] = []
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor(workers or cpu_count() or 1, thread_name_prefix="look") as pool:
        looked = tqdm(pool.map(look, clips), total=len(clips), desc="Videos", unit="clip", disable=not progress)
        for clip, found in zip(clips, looked, strict=True):
            if isinstance(found, str):
                unreadable[clip[0]] = found
            else:
                evidence += found
    return evidence, unreadable


def findings_of(moments: Sequence[Moment], evidence: Iterable[Evidence]) -> list[Finding]:
    """One finding a moment and kind, highest score first."""
    evidence = list(evidence)
    scorer = Scorer(evidence, len(moments))
    by_id = {moment.id: moment for moment in moments}
    gathered: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
    for sign in evidence:
        gathered[sign.moment, sign.kind].append(sign)
    found = []
    for (name, _), signs in gathered.items():
        moment = by_id[name]
        signs.sort(key=scorer.chance, reverse=True)
        spans = tuple((span.start, span.end) for span in moment.spans)
        found.append(
            Finding(name, moment.video, moment.query, spans, signs[0].kind, scorer.combined(signs), tuple(signs))
        )
    found.sort(key=lambda finding: -finding.score)
    return found


def write_findings(findings: Iterable[Finding], path: str | Path) -> None:
    """JSON Lines, one finding a line."""
    text = "".join(json.dumps(finding.to_row(), allow_nan=False) + "\n" for finding in findings)
    write_whole(path, text)


def read_findings(path: str | Path) -> list[Finding]:
    """The findings of a file that :func:`write_findings` wrote.

    Raises:
        ValueError: a line that is no finding, with its number.
    """
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(Finding.from_row(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return found
