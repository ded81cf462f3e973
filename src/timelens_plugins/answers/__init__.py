"""Prompts out, spans in: every text that goes to a model, and the one parser that reads what comes back. Pure Python.

Reward, difficulty and evaluation all call :func:`parse_spans` (or :func:`parse_answer`, which also says why nothing was
found), so that they cannot disagree about what an answer states. The parser's steps, each in a file of its own::

    regions     which part of the text is the answer (thought, tags, end of turn)
    cleaning    one spelling for every dash, tilde, quote and markup
    vocabulary  the words that matter
    tokens      text -> times, connectors, words
    candidates  tokens -> everything that looks like a span
    choice      which of them the answer states
    denials     answers that say there is none
    parser      the steps in order; seconds, clipping and the status
"""

from timelens_plugins.answers.parser import AnswerStatus, ParsedAnswer, parse_answer, parse_spans
from timelens_plugins.answers.prompts import (
    GROUNDING_PROMPT,
    PREAMBLES,
    format_answer,
    grounding_prompt,
    normalize_query,
    text_prefix_instruction,
)

__all__ = [
    "GROUNDING_PROMPT",
    "PREAMBLES",
    "AnswerStatus",
    "ParsedAnswer",
    "format_answer",
    "grounding_prompt",
    "normalize_query",
    "parse_answer",
    "parse_spans",
    "text_prefix_instruction",
]
