"""What is logged beside TRL's metrics: parse failures, spread within groups, skipped videos, what sharing saves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from timelens_plugins.grpo.groups import Group
from timelens_plugins.spans import Span

__all__ = ["format_spans", "group_statistics", "sharing"]


def format_spans(spans: Sequence[Span | Sequence[float]]) -> str:
    """Spans for a table: ``1.0-4.5, 7.0-9.0``; ``-`` for none."""
    return ", ".join(f"{start:.1f}-{end:.1f}" for start, end in spans) or "-"


def group_statistics(rewards: Tensor, failures: Tensor, kept: Tensor, generations: int) -> dict[str, float]:
    """Metrics of a generation batch over the groups that count.

    Args:
        rewards: of all B rows on all processes, weighted sum of the reward functions, NaN where none of them gave one,
            which is left out, shape ``(B,)``. A group with less than two has no spread.
        failures: 1 where nothing could be parsed, shape ``(B,)``.
        kept: whether a row's group counts, shape ``(B,)``.
        generations: G.
    """
    groups = kept.view(-1, generations)[:, 0].bool()
    if not bool(groups.any()):
        return {"videos/skipped_share": 1.0}
    metrics = {
        "parse_failures": float(failures.view(-1, generations)[groups].float().mean()),
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
    prompts = sum(len(group.prompt) for group in groups)
    return generations * prompts + completion_tokens, (generations - 1) * prompts
