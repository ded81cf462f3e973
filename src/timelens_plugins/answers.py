"""Prompts out, spans in: every text that goes to a model and the one parser that reads what comes back. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence

from timelens_plugins.spans import Span, SpanLike, as_span

GROUNDING_PROMPT = (
    "Please find the visual event described by the sentence '{query}', determining its starting and ending times. "
    "The format should be: 'The event happens in <start time> - <end time> seconds'."
)


def format_answer(spans: Sequence[SpanLike]) -> str:
    """The training target, one decimal: ``The event happens in 3.5 - 12.0 seconds.``"""
    return "The event happens in " + ", ".join(f"{s:.1f} - {e:.1f}" for s, e in map(as_span, spans)) + " seconds."


__all__ = ["GROUNDING_PROMPT", "Span", "format_answer"]
