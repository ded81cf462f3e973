"""Texts that go to a model: the prompt, and the answer it should write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timelens_plugins.spans import Span, SpanLike, as_span

__all__ = [
    "GROUNDING_PROMPT",
    "PROMPTS",
    "SPAN_SET_PROMPT",
    "THINKING_PROMPT",
    "ask",
    "format_answer",
    "grounding_prompt",
    "normalize_query",
    "read_prompt",
]

GROUNDING_PROMPT = (
    "Please find the visual event described by the sentence '{query}', determining its starting and ending times. "
    "The format should be: 'The event happens in <start time> - <end time> seconds'."
)
"""The benchmark's prompt, word for word; it follows the video, with no system turn."""

THINKING_PROMPT = (
    "Find the visual event that the sentence '{query}' describes, and determine when it starts and ends. First think "
    "about what the video shows and when, then answer. The format should be: <think>your thoughts</think>"
    "<answer>The event happens in <start time> - <end time> seconds.</answer>"
)
"""Asks for a thought before the answer, in the form that ``rewards.format_reward`` pays for; our own words."""

SPAN_SET_PROMPT = (
    "Find all moments of the video that match the query '{query}'. Answer with a JSON array of [start, end] pairs in "
    "seconds, one pair for each moment and nothing else; with an empty array if the video has none."
)
"""Asks for sets of spans, as the benchmarks of sets do; our own words, as theirs are not published as one text."""

PROMPTS = {"grounding": GROUNDING_PROMPT, "thinking": THINKING_PROMPT, "span_set": SPAN_SET_PROMPT}
"""The prompts that a setting ``prompt`` knows by name."""

QUERY = "{query}"


def normalize_query(query: str) -> str:
    """A query as the benchmark's loader passes it on: white space collapsed and stripped, then full stops stripped.

    >>> normalize_query("  person turn  a light on. ")
    'person turn a light on'
    """
    if not isinstance(query, str):
        raise TypeError(f"a query is text, got {type(query).__name__}")
    return " ".join(query.split()).strip(".").strip()


def read_prompt(setting: str) -> str:
    """The template that a setting ``prompt`` stands for.

    Args:
        setting: a name in :data:`PROMPTS`, a text with ``{query}``, or a text file (UTF-8) that holds one. Other braces
            are text.

    Raises:
        ValueError: none of these.
    """
    if setting in PROMPTS:
        return PROMPTS[setting]
    if QUERY in setting:
        return setting
    try:
        template = Path(setting).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"prompt must be {' or '.join(PROMPTS)}, contain {QUERY}, or name a text file that does, got {setting!r}, "
            f"which cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if QUERY not in template:
        raise ValueError(f"prompt must contain {QUERY}, which {setting} does not")
    return template


def ask(template: str, query: str) -> str:
    """A prompt's template with its query; other braces stay as they are.

    >>> ask('When? {query} As {"start": …}', "a light")
    'When? a light As {"start": …}'
    """
    return template.replace(QUERY, query)


def grounding_prompt(query: str, template: str = GROUNDING_PROMPT) -> str:
    """The text that asks for ``query``, to stand after the video; time encodings may put a sentence before it.

    Args:
        query: the sentence that describes the event; normalised here, which changes nothing where it already is.
        template: with ``{query}``; by default the benchmark's.

    Raises:
        ValueError: nothing left of the query.
    """
    sentence = normalize_query(query)
    if not sentence:
        raise ValueError(f"the query {query!r} has no words")
    return ask(template, sentence)


def format_answer(spans: Sequence[SpanLike]) -> str:
    """The training target, one decimal: ``The event happens in 3.5 - 12.0 seconds.``

    Several spans are listed in the order given. More decimals are written only where one would print both ends alike,
    as an answer of no length cannot be read back.

    >>> format_answer([(3.5, 12), (15, 20.25)])
    'The event happens in 3.5 - 12.0, 15.0 - 20.2 seconds.'

    Raises:
        ValueError: no span, or one without length: there is no such answer.
    """
    pairs = [as_span(span) for span in spans]
    if not pairs:
        raise ValueError("no span to write: an answer needs at least one")
    return f"The event happens in {', '.join(map(_format_span, pairs))} seconds."


def _format_span(span: Span) -> str:
    for decimals in range(1, 10):
        start, end = f"{span.start:.{decimals}f}", f"{span.end:.{decimals}f}"
        if start != end:
            return f"{start} - {end}"
    raise ValueError(f"a span without length cannot be written as an answer, got [{span.start}, {span.end}]")
