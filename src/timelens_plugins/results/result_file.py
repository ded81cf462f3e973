"""What one file of results says: its cases (a moment, and what was answered to it), and what to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from timelens_plugins.metrics import Sample, Window, count_failures, differing_duplicates
from timelens_plugins.results.json_files import short
from timelens_plugins.results.lmms_eval import Record
from timelens_plugins.spans import Span

__all__ = ["Case", "Disagreement", "Format", "Remark", "ResultFile", "Window", "samples_of"]

Format: TypeAlias = Literal["timelens", "lmms-eval", "lmms-eval --predict_only", "difficulty", "lmms-eval results"]
_T = TypeVar("_T")

EXAMPLES = 5  # that a remark names


@dataclass(frozen=True, slots=True)
class Case:
    """A moment and a run's answers to it.

    Attributes:
        samples: one per answer, at least one, all about the same annotation.
        path: of the video, as the file gives it.
    """

    samples: tuple[Sample, ...]
    path: str = ""

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("a case needs at least one answer (a sample of status 'missing' where there is none)")

    @property
    def moment(self) -> Sample:
        """The sample whose annotation, subset and duration are those of the case."""
        return self.samples[0]

    @property
    def window(self) -> Window | None:
        """Of a longer video, in seconds of the file, where the case is about one; spans count from its start."""
        return self.moment.window


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row whose stored prediction is not the first span that our parser reads in its answer.

    ``stored`` is a plain pair, as it may end before it starts; such a prediction counts as unparsed.
    """

    row: int
    stored: tuple[float, float] | None
    parsed: Span | None
    answer: str

    def __str__(self) -> str:
        stored, parsed = ("no span" if s is None else f"[{s[0]:g}, {s[1]:g}]" for s in (self.stored, self.parsed))
        return f"row {self.row}: stored {stored}, answer {parsed}: {short(self.answer)}"


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence, and a few of the ``count`` things it is about."""

    text: str
    examples: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        shown = "; ".join(self.examples[:3]) + ("; …" if self.count > 3 else "")
        return f"{self.text} ({shown})" if self.examples else self.text


@dataclass(frozen=True, slots=True)
class ResultFile:
    """What one file says.

    Attributes:
        path: the file.
        format: what kind of file it is; ``"lmms-eval results"`` holds scores, and no cases.
        cases: in the order of the file, repeated keys included; with annotations, one for each of them, in their order.
        absent: the same of events that are not in the video, which have no IoU: what counts is whether answers say so.
        task: the lmms-eval task, where the file's name says it.
        record: what lmms-eval recorded of the evaluation, where it was looked for and found.
        disagreements: rows where stored prediction and answer differ (``reparse`` says which of them counts).
        read_from_answer: rows without a stored prediction in which our parser found a span.
        videos_left_out: annotated videos that were absent and therefore not evaluated, as this package's tasks log it.
        reparse: whether the answers count, and not the stored predictions.
        annotations: the file of annotations that the results were joined with.
        loaded: what there is to say of these annotations.
        repeated: annotations that share the answer of an earlier exact duplicate.
        notes: what else to know of the file, a sentence each.
    """

    path: Path
    format: Format
    cases: tuple[Case, ...]
    task: str = ""
    record: Record | None = None
    disagreements: tuple[Disagreement, ...] = ()
    read_from_answer: int = 0
    videos_left_out: int = 0
    reparse: bool = False
    annotations: Path | None = None
    loaded: str = ""
    repeated: int = 0
    notes: tuple[str, ...] = ()
    absent: tuple[Case, ...] = ()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every answer of every case."""
        return samples_of(self.cases)

    @property
    def incomplete(self) -> str:
        """That the file lost rows, or gained some, since lmms-eval recorded how many were evaluated; or ``""``.

        With annotations, those without an answer count as missing instead.
        """
        evaluated = None if self.record is None or self.annotations else self.record.count(self.task)
        rows = len(self.cases) + len(self.absent)
        if not rows or evaluated in (None, rows):
            return ""
        return f"the samples file holds {rows} rows of the {evaluated} that were evaluated"

    def remarks(self) -> list[Remark]:
        """What a reader of figures has to know about the file."""
        said = [Remark(note) for note in self.notes]
        if self.incomplete:
            said.append(Remark(f"{self.incomplete}, and the figures are of these: copy it again, or repeat the run"))
        if self.loaded:
            said.append(Remark(f"annotations {self.loaded}"))
        if missing := [case.moment for case in self.cases if case.moment.status == "missing"]:
            said.append(_remark("annotations without an answer, counted with IoU 0", missing, Sample.describe))
        if missing := [case.moment for case in self.absent if case.moment.status == "missing"]:
            what = "annotations of events that are not in the video, without an answer"
            said.append(_remark(what, missing, Sample.describe))
        if failures := count_failures(self.samples):
            reasons = ", ".join(f"{count} {reason}" for reason, count in failures.items())
            said.append(Remark(f"answers without a span, counted with IoU 0: {sum(failures.values())} ({reasons})"))
        if self.repeated:
            said.append(Remark(f"annotations that share the answer of an earlier duplicate: {self.repeated}"))
        if self.format != "difficulty" and (differing := differing_duplicates(self.samples)):
            what = "duplicates answered differently (the last answer counts in the official reading)"
            said.append(Remark(f"{what}: {differing}"))
        if self.videos_left_out:
            remedy = "" if self.annotations else " (with --annotations their annotations count as missing)"
            said.append(Remark(f"videos absent from the evaluation and left out of it: {self.videos_left_out}{remedy}"))
        if self.read_from_answer:
            said.append(Remark(f"predictions not stored and read from the answer: {self.read_from_answer}"))
        if self.disagreements:
            counts = (
                "what the answer says counts" if self.reparse else "what is stored counts (--reparse for the answer)"
            )
            found = _remark("stored predictions that are not the first span of the answer", self.disagreements, str)
            said.append(replace(found, text=f"{found.text}; {counts}"))
        return said


def samples_of(cases: Iterable[Case]) -> tuple[Sample, ...]:
    """Every answer of every case."""
    return tuple(sample for case in cases for sample in case.samples)


def _remark(text: str, found: Sequence[_T], describe: Callable[[_T], str]) -> Remark:
    return Remark(f"{text}: {len(found)}", tuple(describe(one) for one in found[:EXAMPLES]), len(found))
