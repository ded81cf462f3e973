"""Prompts out, spans in: every text that goes to a model, and the one parser that reads what comes back. Pure Python.

Reward, difficulty and evaluation all call :func:`parse_spans` (or :func:`parse_answer`, which also says why nothing was
found), so that they cannot disagree about what an answer states. The parser's steps, each in a file of its own::

    regions     which part of the text is the answer (thought, tags, end of turn)
    cleaning    one spelling for every dash, tilde, quote, number and markup
    options     of a list of options the one that is named behind it
    vocabulary  the kinds of tokens, the words of each, patterns written with their names
    phrases     what is read as one word
    numbers     how times are written, and the seconds they are
    tokens      text -> times, connectors, words
    candidates  tokens -> everything that looks like a span
    negation    which of them it says are not
    choice      which of them the answer states
    denials     answers that say there is none
    parser      the steps in order; seconds, clipping and the status
    ordinary    the most frequent forms of answers, read at once

A new word goes into ``vocabulary``, a phrase into ``phrases``, a new way to write a time into ``numbers``, a new form
of span into the table in ``candidates``; and the answers that call for it into ``tests/data/answers.jsonl``.
"""

from timelens_plugins.answers.parser import AnswerStatus, ParsedAnswer, parse_answer, parse_spans
from timelens_plugins.answers.prompts import (
    GROUNDING_PROMPT,
    PROMPTS,
    SPAN_SET_PROMPT,
    THINKING_PROMPT,
    ask,
    format_answer,
    grounding_prompt,
    normalize_query,
    read_prompt,
)

__all__ = [
    "GROUNDING_PROMPT",
    "PROMPTS",
    "SPAN_SET_PROMPT",
    "THINKING_PROMPT",
    "AnswerStatus",
    "ParsedAnswer",
    "ask",
    "format_answer",
    "grounding_prompt",
    "normalize_query",
    "parse_answer",
    "parse_spans",
    "read_prompt",
]
