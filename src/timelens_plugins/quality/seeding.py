"""Errors put into good annotations on purpose, to measure what finds them: one kind a moment, and a list of them.

- *absent*: the query is another video's.
- *several*: the query is shortened until it is true of another moment of the video, too.
- *duplicate*: a paraphrase of another moment of the video, at its time.
- *unclear*: what is asked about becomes a pronoun, a reference or a vague word.
- *inaccurate*: the span is moved, stretched, cut or made the whole clip, to an IoU below one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from timelens_plugins.moments import Moment, group_by_video
from timelens_plugins.quality.findings import KINDS, Kind
from timelens_plugins.quality.wording import content_words, same_words
from timelens_plugins.spans import Span, temporal_iou

__all__ = ["seed_errors"]

_PARAPHRASES = (
    "there is {}",
    "{} in the video",
    "in this video, {}",
    "we see that {}",
    "{} on the screen",
)
_UNCLEAR = (
    "it happens again",
    "he does it a second time",
    "the same thing as before",
    "something happens",
    "they do this once more",
    "this occurs",
)


def seed_errors(
    moments: Sequence[Moment], rates: Mapping[Kind, float] | float = 0.1, *, seed: int = 0
) -> tuple[list[Moment], dict[str, Kind]]:
    """A copy with errors, and which moments have which.

    Args:
        rates: share of the moments that get each kind. What a kind cannot be made of (a second moment in the video for
            *several*) stays as it is, so fewer may have it.

    Returns:
        The moments in order, a duplicate directly after its original, and the kind of error by id. Ids of moments that
        were changed stay; a duplicate's ends in ``+``.
    """
    if not isinstance(rates, Mapping):
        rates = dict.fromkeys(KINDS, rates)
    rng = np.random.default_rng(seed)
    free = [moments[i] for i in rng.permutation(len(moments))]
    by_video = group_by_video(moments)
    wrong: dict[str, Kind] = {}
    changed: dict[str, Moment] = {}
    extra: dict[str, Moment] = {}
    kept: set[str] = set()  # what makes another moment wrong stays as it is
    for kind in KINDS:
        wanted = round(rates.get(kind, 0.0) * len(moments))
        passed: list[Moment] = []
        while wanted and free:
            moment = free.pop()
            siblings = [m for m in by_video[moment.video_id] if m.id not in changed and m.id != moment.id]
            made, because = _make(kind, moment, siblings, moments, rng)
            if made is None or moment.id in kept:
                passed.append(moment)
                continue
            kept |= because
            wanted -= 1
            if kind == "duplicate":
                extra[moment.id] = made
            else:
                changed[moment.id] = made
            wrong[made.id] = kind
        free = passed[::-1] + free
    seeded = []
    for moment in moments:
        seeded.append(changed.get(moment.id, moment))
        if moment.id in extra:
            seeded.append(extra[moment.id])
    return seeded, wrong


def _make(
    kind: Kind, moment: Moment, siblings: Sequence[Moment], moments: Sequence[Moment], rng: np.random.Generator
) -> tuple[Moment | None, set[str]]:
    """The moment made wrong, and the others that make it so."""
    if kind == "several":
        return _several(moment, siblings)
    if kind == "duplicate":
        query = str(rng.choice(_PARAPHRASES)).format(moment.query)
        return replace(moment, id=f"{moment.id}+", query=query), {moment.id}
    if kind == "unclear":
        return replace(moment, query=str(rng.choice(_UNCLEAR))), set()
    if kind == "absent":
        return _absent(moment, siblings, moments, rng), set()
    return _inaccurate(moment, rng), set()


def _absent(
    moment: Moment, siblings: Sequence[Moment], moments: Sequence[Moment], rng: np.random.Generator
) -> Moment | None:
    """The query of another video, which no moment of this one asks."""
    asked = {same_words(other.query) for other in (moment, *siblings)}
    for _ in range(20):
        other = moments[int(rng.integers(len(moments)))]
        if other.video_id != moment.video_id and same_words(other.query) not in asked:
            return replace(moment, query=other.query)
    return None


def _several(moment: Moment, siblings: Sequence[Moment]) -> tuple[Moment | None, set[str]]:
    """The words that two moments of the video share, in the order of the first."""
    for sibling in siblings:
        if temporal_iou(sibling.spans[0], moment.spans[0]) > 0.1:
            continue
        shared = content_words(sibling.query)
        kept = [word for word in moment.query.split() if not content_words(word) - shared]
        query = " ".join(kept)
        if len(content_words(query)) >= 2 and same_words(query) != same_words(moment.query):
            return replace(moment, query=query), {sibling.id}
    return None, set()


def _inaccurate(moment: Moment, rng: np.random.Generator) -> Moment | None:
    duration = moment.duration
    if len(moment.spans) != 1 or not duration:
        return None
    [span] = moment.spans
    length = span.end - span.start
    for _ in range(50):
        way = rng.integers(4)
        if way == 0:  # moved
            start = span.start + rng.choice([-1, 1]) * rng.uniform(0.6, 1.5) * max(length, 2.0)
            made = (start, start + length)
        elif way == 1:  # one end moved out
            off = rng.uniform(1.2, 2.5) * max(length, 2.0)
            made = (span.start - off, span.end) if rng.random() < 0.5 else (span.start, span.end + off)
        elif way == 2:  # cut
            kept = rng.uniform(0.2, 0.45) * length
            start = span.start if rng.random() < 0.5 else span.end - kept
            made = (start, start + kept)
        else:
            made = (0.0, duration)
        start, end = (round(float(np.clip(t, 0, duration)), 1) for t in made)
        if end - start >= 0.5 and temporal_iou((start, end), span) < 0.5:
            return replace(moment, spans=(Span(start, end),))
    return None
