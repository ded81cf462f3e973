"""Signs that a model gives when it is asked: several groundings of each query, and whether the event happens at all.

Asked and kept as estimates of difficulty are, clip by clip: the same call goes on where a run was killed, and asks no
clip twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timelens_plugins.answers import parse_answer
from timelens_plugins.difficulty.estimate import Answering, engine_settings, estimate_difficulty
from timelens_plugins.moments import Moment, find_video
from timelens_plugins.quality.asking import ModelChoice, open_engine
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.quality.grounding import evidence_of_spans
from timelens_plugins.video.errors import fault_of

__all__ = ["CHECK_PROMPT", "Questioned", "happens", "question_model"]

CHECK_PROMPT = "Does this happen in the video: {query}? Answer yes or no."
"""Asks for an event's presence, as often as it is grounded."""

_CHECK = "?"  # after a moment's id, so often that no moment has that id: the check question about it
_SAYS = re.compile(r"\b(yes|no)\b", re.I)


@dataclass(frozen=True)
class Questioned:
    """What a model's answers say.

    Attributes:
        evidence: signs in them.
        unanswered: path of a video that could not be looked at -> why.
        notes: what there is to say of the answers, a sentence each.
    """

    evidence: Sequence[Evidence]
    unanswered: Mapping[str, str]
    notes: Sequence[str]


def question_model(
    moments: Sequence[Moment],
    choice: ModelChoice,
    folder: str | Path,
    *,
    answering: Answering | None = None,
    progress: bool = False,
) -> Questioned:
    """Ask a model about every moment whose video is there.

    Args:
        moments: with paths of videos.
        choice: the model.
        folder: of finished answers; ``answers.jsonl`` there has them all, in rows of estimates of difficulty.
        answering: default: eight sampled answers to each question.

    Raises:
        ValueError: an option that does not exist; no video is there.
    """
    answering = answering or Answering(samples=8)
    there, missing = _with_videos(moments)
    if not there:
        raise ValueError(f"none of {len(missing)} videos is there, such as {next(iter(missing), '')}: set --videos")
    mark = _CHECK * (1 + max(len(m.id) - len(m.id.rstrip(_CHECK)) for m in there))
    checks = [replace(m, id=m.id + mark, question=CHECK_PROMPT.replace("{query}", m.query)) for m in there]
    engine = open_engine(choice, answering)
    output = Path(folder) / "answers.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = engine_settings(engine, choice.model, answering) | {"check": CHECK_PROMPT, "seed": answering.seed}
    outcome = estimate_difficulty(engine, [*there, *checks], output, settings, seed=answering.seed, progress=progress)
    assert outcome is not None, "one process alone"
    with output.open(encoding="utf-8") as lines:  # by line feeds alone: answers hold other ends of lines as they are
        rows = {row["id"]: row for row in map(json.loads, lines)}
    answers = {name: row.get("answers", [row["answer"]]) for name, row in rows.items()}
    evidence = [sign for moment in there if moment.id in answers for sign in _signs(moment, answers, mark)]
    unanswered = missing | dict(outcome.failed)
    notes = [f"{choice.model}: {sum(m.id in answers for m in there):,} of {len(moments):,} moments were asked about"]
    said = Counter(happens(text) for m in there for text in answers.get(m.id + mark, ()))
    if said[None]:
        notes.append(
            f"{said[None]:,} of {said.total():,} answers to whether an event happens say neither yes nor no"
            + (": this model finds no absent events" if said[None] == said.total() else "")
        )
    return Questioned(evidence, unanswered, notes)


def happens(text: str) -> bool | None:
    """Whether an answer to :data:`CHECK_PROMPT` says that the event happens; None where it says neither.

    >>> happens("Yes, it does."), happens("**No**"), happens("The event happens in 3 - 5 seconds.")
    (True, False, None)
    """
    found = _SAYS.search(text)
    return None if found is None else found.group().lower() == "yes"


def _signs(moment: Moment, answers: Mapping[str, Sequence[str]], mark: str) -> Iterator[Evidence]:
    texts = answers[moment.id]
    read = [parse_answer(text, query=moment.query, duration=moment.duration).spans for text in texts]
    yield from evidence_of_spans(moment, [spans[0] for spans in read if spans], len(texts))
    checks = [happens(text) for text in answers.get(moment.id + mark, ())]
    no = checks.count(False)
    if checks and no / len(checks) >= 0.5:
        reason = f"{no} of {len(checks)} answers say that it does not happen"
        yield Evidence(moment.id, "absent", "said not to happen", no / len(checks), reason)


def _with_videos(moments: Sequence[Moment]) -> tuple[list[Moment], dict[str, str]]:
    """Moments with the paths of files that are there, and why there are none for the others."""
    found: dict[str, str | None] = {}
    missing: dict[str, str] = {}
    for video in dict.fromkeys(moment.video for moment in moments):
        try:
            found[video] = str(find_video(video))
        except (OSError, ValueError) as error:
            found[video], missing[video] = None, fault_of(error, video)
    return [replace(m, video=path) for m in moments if (path := found[m.video]) is not None], missing
