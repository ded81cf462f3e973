"""What is logged beside TRL's metrics: parse failures, spread within groups, skipped videos, what sharing saves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from timelens_plugins.answers import AnswerStatus, ParsedAnswer
from timelens_plugins.grpo.groups import Group, by_video
from timelens_plugins.spans import Span

__all__ = ["failure", "format_spans", "group_statistics", "sharing"]


def format_spans(spans: Sequence[Span | Sequence[float]]) -> str:
    """Spans for a table: ``1.0-4.5, 7.0-9.0``; ``-`` for none."""
    return ", ".join(f"{start:.1f}-{end:.1f}" for start, end in spans) or "-"


FAILURES = ("parse_failures", "parse_failures/swapped", "parse_failures/zero_length")


def failure(answer: ParsedAnswer) -> tuple[bool, bool, bool]:
    """Whether an answer holds no span, its first pair ends before it starts, its first pair has no length."""
    return not answer.spans, answer.status is AnswerStatus.SWAPPED, answer.status is AnswerStatus.ZERO_LENGTH


def group_statistics(rewards: Tensor, failures: Tensor, kept: Tensor, generations: int) -> dict[str, float]:
    """Metrics of a generation batch over the groups that count.

    Args:
        rewards: of all B rows on all processes, weighted sum of the reward functions, NaN where none of them gave one,
            which is left out, shape ``(B,)``. A group with less than two has no spread.
        failures: 1 where nothing could be parsed, where the first pair ends before it starts, and where it has no
            length, shape ``(B, 3)``.
        kept: whether a row's group counts, shape ``(B,)``.
        generations: G.
    """
    groups = kept.view(-1, generations)[:, 0].bool()
    if not bool(groups.any()):
        return {"videos/skipped_share": 1.0}
    shares = failures.view(-1, generations, 3)[groups].float().mean(dim=(0, 1))
    metrics = {
        **dict(zip(FAILURES, shares.tolist(), strict=True)),
        "videos/skipped_share": float((~groups).float().mean()),
    }
    scored = [group[~group.isnan()] for group in rewards.view(-1, generations)[groups].cpu()]
    deviations = [group.std() for group in scored if len(group) > 1]
    if deviations:
        deviation = torch.stack(deviations)
        metrics["reward_within_group_std"] = float(deviation.mean())
        metrics["zero_spread_groups"] = float(
            torch.isclose(deviation, torch.zeros_like(deviation), atol=1e-8).float().mean()
        )
    return metrics


def sharing(groups: Sequence[Group], completion_tokens: int, generations: int) -> tuple[int, int]:
    """Tokens of one forward over these groups: of the plain repeated batch, and of those how many sharing saves."""
    plain = generations * sum(len(group.prompt) for group in groups)
    shared = 0
    for members in by_video(groups):
        trunk = groups[members[0]].trunk
        shared += (0 if trunk is None else len(trunk)) + sum(groups[i].query.numel() for i in members)
    return plain + completion_tokens, plain - shared
