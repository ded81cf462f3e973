"""Signs in a span itself: nearly the whole clip, next to nothing, unlike the spans of equal queries elsewhere."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import log

from timelens_plugins.moments import Moment
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.quality.wording import content_words

__all__ = ["length_evidence"]

_NEARLY_ALL = 0.9  # share of the clip
_NEXT_TO_NOTHING = 0.015
_BEYOND = 0.5  # seconds
_ELSEWHERE = 8  # spans of the same words needed to tell what is usual
_UNUSUAL = 3.0  # robust standard deviations of the logarithm of the length,
_SPREAD = 0.35  # which are at least so much: a span within a factor of 2.9 of the usual is never unusual


def length_evidence(moments: Sequence[Moment]) -> Iterator[Evidence]:
    """Evidence from the lengths of spans, one clip at a time and against the rest of the file."""
    usual = _usual_lengths(moments)
    for moment in moments:
        length = sum(span.end - span.start for span in moment.spans)
        if moment.duration:
            share = length / moment.duration
            if share >= _NEARLY_ALL:
                yield Evidence(moment.id, "inaccurate", "whole clip", share, f"covers {share:.0%} of the clip")
            if share <= _NEXT_TO_NOTHING:
                reason = f"covers {length:.1f} s of {moment.duration:.0f} s"
                yield Evidence(moment.id, "inaccurate", "next to nothing", 1 - share / _NEXT_TO_NOTHING, reason)
            beyond = max(span.end for span in moment.spans) - moment.duration
            if beyond > _BEYOND:
                reason = f"ends {beyond:.1f} s after the clip"
                yield Evidence(moment.id, "inaccurate", "beyond the clip", min(1.0, beyond / 2), reason)
        known = usual.get(content_words(moment.query))
        if known is not None and length > 0:
            middle, spread, count = known
            off = (log(length) - middle) / spread
            if abs(off) > _UNUSUAL:
                reason = f"lasts {length:.1f} s; {count} spans of the same words last {2.718281828**middle:.1f} s"
                yield Evidence(moment.id, "inaccurate", "unusual length", min(1.0, abs(off) / (2 * _UNUSUAL)), reason)


def _usual_lengths(moments: Sequence[Moment]) -> dict[frozenset[str], tuple[float, float, int]]:
    """For words asked about often enough: median and spread of the logarithm of their spans' lengths, and how often."""
    lengths: dict[frozenset[str], list[float]] = defaultdict(list)
    for moment in moments:
        length = sum(span.end - span.start for span in moment.spans)
        if length > 0:
            lengths[content_words(moment.query)].append(log(length))
    found = {}
    for words, values in lengths.items():
        if len(values) >= _ELSEWHERE:
            middle = statistics.median(values)
            spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
            found[words] = (middle, max(spread, _SPREAD), len(values))
    return found
