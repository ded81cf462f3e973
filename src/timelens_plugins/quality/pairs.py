"""Signs in two queries about one video: the same question twice, or a question that has two answers.

Words count by how rare they are in the file, so that "person" makes no two queries alike. A query *says no more* than
another where nearly all its weight stands in the other too: whatever the other describes, it describes as well.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from timelens_plugins.moments import Moment
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.quality.wording import content_words, opposite, says_no_more
from timelens_plugins.spans import set_iou

__all__ = ["pair_evidence"]

_ALIKE = 0.6  # similarity from which two queries may be one
_SAYS_NO_MORE = 0.95  # share of a query's weight that stands in the other
_SAME_TIME = 0.5  # IoU from which two spans are one
_APART = 0.1  # IoU up to which two spans are two
_MISSPELT = 0.85  # share of letters that two spellings of one word share


def pair_evidence(moments: Sequence[Moment]) -> Iterator[Evidence]:
    """Evidence from all pairs of queries about one video, or one window of it."""
    words = {moment.id: content_words(moment.query) for moment in moments}
    weight = _rarity(words.values())
    groups: dict[tuple[str, float | None, float | None], list[Moment]] = {}
    for moment in moments:
        groups.setdefault((moment.video_id, moment.video_start, moment.video_end), []).append(moment)
    for group in groups.values():
        for a, b in itertools.combinations(group, 2):
            yield from _pair(a, b, words[a.id], words[b.id], weight)


def _pair(
    a: Moment, b: Moment, own: frozenset[str], other: frozenset[str], weight: Mapping[str, float]
) -> Iterator[Evidence]:
    if opposite(a.query, b.query):
        return
    alike = _similarity(own, other, weight)
    overlap = set_iou(a.spans, b.spans)
    times = f"IoU {overlap:.2f}"
    if alike >= _ALIKE and overlap >= _SAME_TIME:
        reason = f"asks what {a.query!r} asks, at the same time ({times})"
        yield Evidence(b.id, "duplicate", "same question", alike, reason, (a.id,), _spans(a))
        return
    if alike >= _ALIKE and overlap > _APART:
        reason = f"asks what {{!r}} asks, and the spans differ ({times})"
        yield Evidence(a.id, "inaccurate", "spans disagree", alike, reason.format(b.query), (b.id,), _spans(b))
        yield Evidence(b.id, "inaccurate", "spans disagree", alike, reason.format(a.query), (a.id,), _spans(a))
        return
    if overlap > _APART:
        return
    for general, special, words, more in ((a, b, own, other), (b, a, other, own)):
        covered = _covered(words, more, weight)
        if words and covered >= _SAYS_NO_MORE and says_no_more(general.query, special.query):
            reason = f"is true of {special.query!r} too, at another time"
            strength = max(alike, covered * min(1.0, len(words) / 3))
            yield Evidence(general.id, "several", "says no more", strength, reason, (special.id,), _spans(special))
    if alike >= 0.8 and _covered(own, other, weight) < _SAYS_NO_MORE > _covered(other, own, weight):
        for one, two in ((a, b), (b, a)):
            reason = f"asks nearly what {two.query!r} asks, at another time"
            yield Evidence(one.id, "several", "nearly the same", alike, reason, (two.id,), _spans(two))


def _spans(moment: Moment) -> tuple[tuple[float, float], ...]:
    return tuple((span.start, span.end) for span in moment.spans)


def _rarity(queries: Iterable[frozenset[str]]) -> dict[str, float]:
    """Weight of each word: the logarithm of the share of queries without it, at least a tenth."""
    texts = list(queries)
    counts = Counter(word for words in texts for word in words)
    return {word: max(0.1, math.log((1 + len(texts)) / (1 + count))) for word, count in counts.items()}


def _covered(words: frozenset[str], by: frozenset[str], weight: Mapping[str, float]) -> float:
    total = sum(weight[word] for word in words)
    return sum(weight[word] for word in words & by) / total if total else 0.0


def _similarity(own: frozenset[str], other: frozenset[str], weight: Mapping[str, float]) -> float:
    """0..1: the weight of the words that both have, of all that either has. One word misspelt counts as the word."""
    only_own, only_other = own - other, other - own
    if len(only_own) == len(only_other) == 1:
        [one], [two] = only_own, only_other
        if min(len(one), len(two)) > 3 and SequenceMatcher(None, one, two, autojunk=False).ratio() > _MISSPELT:
            return 0.99
    union = sum(weight[word] for word in own | other)
    return sum(weight[word] for word in own & other) / union if union else 0.0
