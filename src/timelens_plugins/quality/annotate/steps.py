"""The steps from videos to annotations, each asking about all videos before the next begins.

1. *propose*: the annotator lists events of a video, spread over its time.
2. *query*: for each, one sentence that fits no other moment, and exactly one span.
3. *verify*: whoever grounds gets the sentence alone, and not the span; see :func:`~.candidates.judge`.
4. *repair*: what was not confirmed goes back to the annotator, with what was found; corrected, it is verified again.
5. *refine*, where asked for: start and end once more, on a part of the video around them.
6. of annotations that ask the same about a video, one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from timelens_plugins.answers import parse_answer
from timelens_plugins.inference.answering import Answer, Question
from timelens_plugins.quality.annotate.candidates import (
    Candidate,
    Grounding,
    Reason,
    drop_doubles,
    fault_of_query,
    judge,
    spread,
)
from timelens_plugins.quality.annotate.prompting import Prompts
from timelens_plugins.quality.annotate.replies import Declined, ReplyFault, Said, read_events, read_query, read_span
from timelens_plugins.quality.asking import Asker
from timelens_plugins.spans import Span, set_iou, temporal_iou

__all__ = ["AnnotateSettings", "Grounder", "Steps"]

_MARGIN, _LEAST_MARGIN = 0.25, 2.0  # of the span's length, and seconds, that refinement sees before and after it
_SAME = 0.5  # IoU with the span before it from which a refined one is the same event


@dataclass(frozen=True)
class AnnotateSettings:
    """How annotations are made.

    Attributes:
        events: asked for in each video, and kept, at most.
        min_iou: set IoU with each independent grounding from which an annotation is confirmed.
        repairs: how often the annotator may correct what was not confirmed.
        refine: whether start and end are looked at once more.
    """

    events: int = 5
    min_iou: float = 0.5
    repairs: int = 1
    refine: bool = False

    def __post_init__(self) -> None:
        if self.events < 1:
            raise ValueError(f"events must be at least 1, got {self.events}")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou must lie above 0 and be at most 1, got {self.min_iou}")
        if self.repairs < 0:
            raise ValueError(f"repairs must be 0 or more, got {self.repairs}")


@dataclass(frozen=True)
class Grounder:
    """Who grounds independently, and with which text: one with ``{query}``."""

    asker: Asker
    prompt: str


class Steps:
    """One run over some videos.

    Args:
        durations: of the videos that can be opened, in seconds, by path.
        annotator: proposes, words, repairs and refines.
        grounders: all of which have to confirm.
        progress: show bars.
    """

    def __init__(
        self,
        durations: dict[str, float],
        annotator: Asker,
        grounders: Sequence[Grounder],
        prompts: Prompts,
        settings: AnnotateSettings,
        *,
        progress: bool = False,
    ) -> None:
        self.durations, self.annotator, self.grounders = durations, annotator, grounders
        self.prompts, self.settings, self.progress = prompts, settings, progress
        self.candidates: list[Candidate] = []
        self.unanswered: dict[str, str] = {}
        """Videos about which nothing could be asked -> why."""

    def run(self) -> None:
        """All steps."""
        self._propose()
        self._word([c for c in self.candidates if c.alive])
        waiting = self._verify([c for c in self.candidates if c.alive])
        for _ in range(self.settings.repairs):
            waiting = self._verify(self._repair(waiting))
        for candidate, reason, detail in waiting:
            candidate.drop(reason, detail)
        if self.settings.refine:
            self._refine([c for c in self.candidates if c.alive])
        drop_doubles([c for c in self.candidates if c.alive])

    def _propose(self) -> None:
        videos = list(self.durations)
        questions = [
            Question(video, self.prompts.ask("propose", duration=self.durations[video], events=self.settings.events))
            for video in videos
        ]
        for video, answer in zip(videos, self._ask(self.annotator, questions, "Propose"), strict=True):
            if answer.error is not None:
                self.unanswered[video] = answer.error
                continue
            found, faults = read_events(answer.texts[0], self.durations[video])
            kept = spread(found, self.settings.events)
            of_video = [Candidate(video, number, said) for number, said in enumerate(found, 1)]
            for index, candidate in enumerate(of_video):
                if index not in kept:
                    candidate.drop("too many", f"{len(found)} proposed, {self.settings.events} asked for")
            for number, fault in enumerate(faults, len(found) + 1):
                of_video.append(Candidate(video, number, dropped="unreadable answer", detail=f"proposal: {fault}"))
            self.candidates += of_video

    def _word(self, candidates: Sequence[Candidate]) -> None:
        def text(candidate: Candidate) -> str:
            assert candidate.proposed is not None
            event, span = candidate.proposed.text, candidate.proposed.span
            duration = self.durations[candidate.video]
            # What came from a model goes in last: it may hold a placeholder's name.
            return self.prompts.ask("query", duration=duration, start=span.start, end=span.end, event=event)

        self._take(candidates, text, "Word")

    def _verify(self, candidates: Sequence[Candidate]) -> list[tuple[Candidate, Reason, str]]:
        """Candidates that were not confirmed, and why; those whose sentence is at fault are not asked about."""
        waiting: list[tuple[Candidate, Reason, str]] = []
        asked: list[Candidate] = []
        for candidate in candidates:
            fault = fault_of_query(_said(candidate).text)
            if fault is None:
                asked.append(candidate)
            elif fault[0] == "audio query":
                candidate.drop(*fault)
            else:
                waiting.append((candidate, *fault))
        answers: list[list[Answer]] = []
        for grounder in self.grounders:
            questions = [Question(c.video, grounder.prompt.replace("{query}", _said(c).text)) for c in asked]
            answers.append(self._ask(grounder.asker, questions, "Verify"))
        for candidate, *of_candidate in zip(asked, *answers, strict=True):
            error = next((answer.error for answer in of_candidate if answer.error is not None), None)
            if error is not None:
                candidate.error = error
                continue
            said, duration = _said(candidate), self.durations[candidate.video]
            read = [parse_answer(answer.texts[0], query=said.text, duration=duration) for answer in of_candidate]
            candidate.groundings = tuple(
                Grounding(grounder.asker.name, tuple(one.spans), set_iou(one.spans, [said.span]) if one.spans else 0.0)
                for grounder, one in zip(self.grounders, read, strict=True)
            )
            if (against := judge(said.span, read, self.settings.min_iou)) is not None:
                waiting.append((candidate, *against))
        return waiting

    def _repair(self, waiting: Sequence[tuple[Candidate, Reason, str]]) -> list[Candidate]:
        """The candidates, corrected by the annotator where it can."""
        reasons = {id(candidate): reason for candidate, reason, _ in waiting}

        def text(candidate: Candidate) -> str:
            said = _said(candidate)
            return self.prompts.ask(
                "repair",
                duration=self.durations[candidate.video],
                start=said.span.start,
                end=said.span.end,
                found=_found(candidate),
                query=said.text,
            )

        candidates = [candidate for candidate, *_ in waiting]
        before = {id(candidate): _said(candidate) for candidate in candidates}
        self._take(candidates, text, "Repair")
        repaired = [candidate for candidate in candidates if candidate.alive]
        for candidate in repaired:
            candidate.repairs.append((before[id(candidate)], reasons[id(candidate)]))
            candidate.groundings = ()
        return repaired

    def _refine(self, candidates: Sequence[Candidate]) -> None:
        """A refined span counts where it is still the same event's; every other answer changes nothing."""
        windows, questions = [], []
        for candidate in candidates:
            span = _said(candidate).span
            margin = max(_LEAST_MARGIN, _MARGIN * span.length)
            window = max(0.0, span.start - margin), min(self.durations[candidate.video], span.end + margin)
            windows.append(window)
            text = self.prompts.ask("refine", length=window[1] - window[0], query=_said(candidate).text)
            questions.append(Question(candidate.video, text, *window))
        answers = self._ask(self.annotator, questions, "Refine")
        for candidate, (start, end), answer in zip(candidates, windows, answers, strict=True):
            if answer.error is not None:
                candidate.error = answer.error
                continue
            was = _said(candidate)
            try:
                inner = read_span(answer.texts[0], end - start)
            except ReplyFault:
                continue
            span = Span(
                round(inner.start + start, 2), min(round(inner.end + start, 2), self.durations[candidate.video])
            )
            if span != was.span and temporal_iou(span, was.span) >= _SAME:
                candidate.refined, candidate.said = was.span, Said(was.text, span)

    def _take(self, candidates: Sequence[Candidate], text: Callable[[Candidate], str], label: str) -> None:
        """Ask the annotator for a sentence and a span to each candidate."""
        questions = [Question(candidate.video, text(candidate)) for candidate in candidates]
        for candidate, answer in zip(candidates, self._ask(self.annotator, questions, label), strict=True):
            if answer.error is not None:
                candidate.error = answer.error
                continue
            try:
                candidate.said = read_query(answer.texts[0], self.durations[candidate.video])
            except Declined as fault:
                candidate.drop("declined", f"{label.lower()}: {fault}")
            except ReplyFault as fault:
                candidate.drop("unreadable answer", f"{label.lower()}: {fault}")

    def _ask(self, asker: Asker, questions: Sequence[Question], label: str) -> list[Answer]:
        return asker.ask(questions, label, progress=self.progress) if questions else []


def _said(candidate: Candidate) -> Said:
    assert candidate.said is not None
    return candidate.said


def _found(candidate: Candidate) -> str:
    """What independent groundings found, as the end of a sentence."""
    places = [", ".join(f"{s.start:.1f} to {s.end:.1f} seconds" for s in g.spans) for g in candidate.groundings]
    if not places:
        return "hard to understand by itself"
    return "; and ".join(f"at {place}" if place else "nowhere" for place in places)
