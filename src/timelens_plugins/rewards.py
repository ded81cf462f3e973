"""Reward functions for TRL: ``(completions, **columns) -> list[float]``, pure, on the one parser. No torch, no TRL.

    trainer = TimeLensGRPOTrainer(reward_funcs=[temporal_iou_reward, parse_penalty], …)

=================================  ==========  ===========================================================
reward                             range       unparsed answer
=================================  ==========  ===========================================================
:func:`temporal_iou_reward`        0 … 1       0; the recipe's reward: the first span counts
:func:`set_iou_reward`             0 … 1       0; all spans count
:func:`giou_reward`                -1 … 1      -1; tells a near miss from a far one
:func:`wasserstein_reward`         0 … 1       0; all spans count, no plateau outside the target
:func:`length_ratio_reward`        0 … 1       0; how long, not where
:func:`parse_penalty`              -1, 0       -1
:func:`format_reward`              0, 1        form only: a thought, then an answer
=================================  ==========  ===========================================================

Columns that are read, one entry per completion, as in :func:`timelens_plugins.training.dataset.moments_dataset`:

- ``spans``: the target, one or more pairs of seconds.
- ``query``: optional; numbers of the query that an answer repeats are not read as times.
- ``times``: optional, ascending seconds: the times the model was told. Targets are then snapped to them, start down and
  end up, as TimeLens-7B is trained; with ``snap_predictions=True`` (by ``functools.partial``) predictions are, too.

Answers are read as the evaluation reads them: the first pair decides, one that does not end after it starts is no
answer, what overruns the clip is not cut, and shares of the clip or ``until the end of the video`` are no answer: the
benchmark's script cannot read them, so a column ``duration`` is not looked at.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from timelens_plugins.answers import ParsedAnswer, parse_answer
from timelens_plugins.spans import (
    Span,
    SpanLike,
    as_span,
    merge_spans,
    set_iou,
    temporal_giou,
    temporal_iou,
    total_length,
)

__all__ = [
    "REWARDS",
    "REWARD_RANGES",
    "completion_text",
    "format_reward",
    "giou_reward",
    "length_ratio_reward",
    "parse_penalty",
    "read_completions",
    "set_iou_reward",
    "temporal_iou_reward",
    "wasserstein_distance",
    "wasserstein_reward",
]

Completion: TypeAlias = str | Sequence[dict[str, Any]]
Spans: TypeAlias = Sequence[Sequence[SpanLike]]
Times: TypeAlias = Sequence[Sequence[float] | None] | None


def temporal_iou_reward(
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None = None,
    times: Times = None,
    *,
    snap_predictions: bool = False,
    **columns: Any,
) -> list[float]:
    """IoU of the first span of the answer and the target, in 0..1: the reward of TimeLens (arXiv 2512.14698).

    Of several target spans the best counts, as in the evaluation.

    Example:
        >>> temporal_iou_reward(["The event happens in 2.0 - 6.0 seconds.", "I cannot tell."], spans=[[[4, 8]]] * 2)
        [0.3333333333333333, 0.0]
    """

    def score(predicted: list[Span], target: list[Span]) -> float:
        return max(temporal_iou(predicted[0], span) for span in target)

    return _score(score, 0.0, completions, spans, query, times, snap_predictions)


def set_iou_reward(
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None = None,
    times: Times = None,
    *,
    snap_predictions: bool = False,
    **columns: Any,
) -> list[float]:
    """IoU of the time that all spans of the answer cover and the time the target covers, in 0..1 (TimeLens2, arXiv
    2607.17423); for one span each it is the temporal IoU.

    Example:
        >>> set_iou_reward(["The event happens in 0 - 2, 6 - 8 seconds."], spans=[[[0, 2], [4, 8]]])
        [0.6666666666666666]
    """
    return _score(set_iou, 0.0, completions, spans, query, times, snap_predictions)


def giou_reward(
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None = None,
    times: Times = None,
    *,
    snap_predictions: bool = False,
    **columns: Any,
) -> list[float]:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of the first span of the answer and the target, in -1..1.

    Equal to the IoU where spans overlap; below 0, falling with the gap, where they do not. Of several target spans the
    best counts.

    Example:
        >>> giou_reward(["From 0 to 2 seconds.", "From 6 to 8 seconds."], spans=[[[8, 10]], [[8, 10]]])
        [-0.6, 0.0]
    """

    def score(predicted: list[Span], target: list[Span]) -> float:
        return max(temporal_giou(predicted[0], span) for span in target)

    return _score(score, -1.0, completions, spans, query, times, snap_predictions)


def wasserstein_reward(
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None = None,
    times: Times = None,
    *,
    snap_predictions: bool = False,
    **columns: Any,
) -> list[float]:
    """``exp(-W1 / length of the merged target)``, in 0..1 (TimeLens2, arXiv 2607.17423).

    ``W1`` is :func:`wasserstein_distance`. It falls smoothly with every second that a prediction is off, also where
    nothing overlaps, so that fewer groups have equal rewards. TimeLens2 adds :func:`set_iou_reward` and
    :func:`parse_penalty` with weight 1 each.

    Example:
        >>> wasserstein_reward(["From 4 to 8 seconds.", "From 8 to 12 seconds."], spans=[[[4, 8]]] * 2)
        [1.0, 0.36787944117144233]
    """

    def score(predicted: list[Span], target: list[Span]) -> float:
        distance, length = wasserstein_distance(predicted, target), total_length(target)
        if length == 0:  # a target snapped to one time: the limit of the formula
            return float(distance == 0)
        return math.exp(-distance / length)

    return _score(score, 0.0, completions, spans, query, times, snap_predictions)


def length_ratio_reward(
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None = None,
    times: Times = None,
    *,
    snap_predictions: bool = False,
    **columns: Any,
) -> list[float]:
    """Shorter over longer of the time the answer covers and the time the target covers, in 0..1, wherever they lie.

    To be used beside a reward for the place: it keeps answers from growing towards the whole clip.

    Example:
        >>> length_ratio_reward(["The event happens in 0.0 - 8.0 seconds."], spans=[[[20, 22]]])
        [0.25]
    """

    def score(predicted: list[Span], target: list[Span]) -> float:
        shorter, longer = sorted((total_length(predicted), total_length(target)))
        return shorter / longer if longer else 1.0

    return _score(score, 0.0, completions, spans, query, times, snap_predictions)


def parse_penalty(completions: Sequence[Completion], query: Sequence[str] | None = None, **columns: Any) -> list[float]:
    """-1 for an answer that states no span, 0 for any other (the penalty of TimeLens2, arXiv 2607.17423).

    Example:
        >>> parse_penalty(["The event happens in 2.0 - 6.0 seconds.", "It does not happen."])
        [0.0, -1.0]
    """
    return [0.0 if answer.spans else -1.0 for answer in read_completions(completions, query)]


_THOUGHT_THEN_ANSWER = re.compile(
    r"\s*<think>(?:(?!</?think>|</?answer>).)*</think>\s*<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*", re.DOTALL
)


def format_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """1 for ``<think>…</think><answer>…</answer>`` and nothing else, each tag once and in this order, 0 otherwise.

    For runs that think before they answer (DeepSeek-R1, arXiv 2501.12948). What the answer says is not looked at. Where
    the chat template itself opens the thought, completions lack ``<think>`` and score 0, unless the trainer puts it in
    front, as this package's does.

    Example:
        >>> format_reward(["<think>red, then blue</think><answer>2 - 6 seconds</answer>", "2 - 6 seconds"])
        [1.0, 0.0]
    """
    return [float(_THOUGHT_THEN_ANSWER.fullmatch(completion_text(c)) is not None) for c in completions]


REWARDS: dict[str, Callable[..., list[float]]] = {
    "temporal_iou": temporal_iou_reward,
    "set_iou": set_iou_reward,
    "giou": giou_reward,
    "wasserstein": wasserstein_reward,
    "length_ratio": length_ratio_reward,
    "parse_penalty": parse_penalty,
    "format": format_reward,
}
"""The rewards by the names that configurations use."""

REWARD_RANGES: dict[str, tuple[float, float]] = {
    "temporal_iou": (0.0, 1.0),
    "set_iou": (0.0, 1.0),
    "giou": (-1.0, 1.0),
    "wasserstein": (0.0, 1.0),
    "length_ratio": (0.0, 1.0),
    "parse_penalty": (-1.0, 0.0),
    "format": (0.0, 1.0),
}
"""The least and the greatest value of each."""


def wasserstein_distance(a: Iterable[SpanLike], b: Iterable[SpanLike]) -> float:
    """1-D Wasserstein distance in seconds between the uniform distributions on the time that two sets of spans cover.

    That is the area between the two distribution functions, which are piecewise linear: between neighbouring ends of
    spans their difference runs straight from ``d0`` to ``d1`` and encloses ``h (|d0| + |d1|) / 2``, or, where it
    changes sign, ``h (d0² + d1²) / (2 (|d0| + |d1|))``. A set of zero length stands for its first instant.

    >>> wasserstein_distance([(0, 2)], [(3, 5)]), wasserstein_distance([(0, 4)], [(1, 3)])
    (3.0, 0.5)

    Raises:
        ValueError: an empty set.
    """
    first, second = merge_spans(a), merge_spans(b)
    if not first or not second:
        raise ValueError("the distance to an empty set of spans is not defined")
    ends = sorted({end for span in (*first, *second) for end in span})
    areas = []
    for left, right in itertools.pairwise(ends):
        # The limits from within the interval: a set of zero length makes a step at an end.
        d0 = _covered_share(first, left, True) - _covered_share(second, left, True)
        d1 = _covered_share(first, right, False) - _covered_share(second, right, False)
        size = abs(d0) + abs(d1)
        if d0 * d1 >= 0:
            areas.append((right - left) * size / 2)
        else:
            areas.append((right - left) * (d0 * d0 + d1 * d1) / (2 * size))
    return math.fsum(areas)


def _covered_share(merged: Sequence[Span], time: float, inclusive: bool) -> float:
    """Distribution function of the uniform distribution on ``merged``; at a step, after it where ``inclusive``."""
    total = math.fsum(span.length for span in merged)
    if total == 0:
        start = merged[0].start
        return float(time > start or (inclusive and time == start))
    return math.fsum(min(time, span.end) - span.start for span in merged if time > span.start) / total


def completion_text(completion: Completion) -> str:
    """The text of a completion as TRL hands it over: plain text, or messages of which the last one counts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def read_completions(completions: Sequence[Completion], query: Sequence[str] | None = None) -> list[ParsedAnswer]:
    """What each completion states, as every reward here and the evaluation read it."""
    queries = [None] * len(completions) if query is None else query
    return [_parsed(completion_text(c), q) for c, q in zip(completions, queries, strict=True)]


def _parsed(text: str, query: str | None) -> ParsedAnswer:
    """A list of its own for every caller."""
    answer = _parsed_once(text, query)
    return answer._replace(spans=list(answer.spans))


@functools.lru_cache(maxsize=4096)
def _parsed_once(text: str, query: str | None) -> ParsedAnswer:
    """Several rewards and the log read the same completions, and completions of a group are often equal."""
    return parse_answer(text, query=query)


def _score(
    score: Callable[[list[Span], list[Span]], float],
    unparsed: float,
    completions: Sequence[Completion],
    spans: Spans,
    query: Sequence[str] | None,
    times: Times,
    snap_predictions: bool,
) -> list[float]:
    """``score(predicted, target)`` of every completion that states a span."""
    if snap_predictions and times is None:
        raise ValueError("snap_predictions=True needs a column 'times': the times the model was told, in seconds")
    if times is not None:
        from timelens_plugins.encodings import snap_spans  # whoever told a model times has torch

    rewards = []
    grids = [None] * len(completions) if times is None else times
    for answer, row, grid in zip(read_completions(completions, query), spans, grids, strict=True):
        target, predicted = [as_span(span) for span in row], answer.spans
        if not target:
            raise ValueError("a target without spans: every row needs at least one")
        if grid is not None:
            target = snap_spans(target, grid)
            if snap_predictions:
                predicted = snap_spans(predicted, grid)
        rewards.append(score(predicted, target) if predicted else unparsed)
    return rewards
