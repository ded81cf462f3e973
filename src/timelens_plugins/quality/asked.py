"""What a chat row's question asks for: the query inside the prompts that others wrap around it, where that is certain.

Such a question holds an order ("Find the segment that shows …"), the query, and the form of the answer. Signs of label
errors lie in the query alone: an order has words of its own, and forms of answers have many.
"""

from __future__ import annotations

import re

from timelens_plugins.answers import PROMPTS, normalize_query

__all__ = ["asked_for"]

_TEMPLATES = tuple(
    re.compile(
        r"\s+".join(map(re.escape, before.split())) + r"(.+?)" + r"\s+".join(map(re.escape, after.split())), re.S
    )
    for before, _, after in (prompt.partition("{query}") for prompt in PROMPTS.values())
)

# The form of the answer, on lines of its own or in a last sentence: an order to write, and what is to be written.
_FORM_ORDER = (
    r"(?:please )?(?:format|return|respond|output|answer|provide|express|write|give|use|"
    r"for a single (?:match|interval))\b"
)
_WRITTEN = re.compile(
    r"[\[<({]\s*(?:start|\[start|HH:|MM:|\d)|\bstart\b.*\bend\b|\bformat|\bseconds\b|\bJSON\b|\btimestamp", re.I | re.S
)
_FORM_LINE = re.compile(rf"^{_FORM_ORDER}", re.I)
_LAST_SENTENCE = re.compile(rf"(?<=[.?!])\s+\(?({_FORM_ORDER}.*)$", re.I | re.S)

# One query in quotes, and around it no word that could belong to what is asked for.
_QUOTED = re.compile(r"""["“]([^"“”]+)["”]|(?<!\w)'([^"]+)'(?!\w)""")
_ORDER_WORDS = frozenset(
    """
    a an and answer answered answers are at based by corresponding corresponds describe described describes determine
    event evidence find following for from give given grounding identify in indicate interval is it its localize locate
    matches matching me moment needed of on part period please portion provide provides query question range relevant
    related return scene search second seconds segment sentence show shown shows span start starting end ending text
    that the this time times timestamp timestamps to video visual watch what when where which you your
    """.split()  # noqa: SIM905 - lists of so many words are read better so
)

# An order before a query without quotes.
_PLACE = r"(?:time(?: range| span| interval)?|moments?|parts?|scenes?|segments?|clips?|periods?|points?)"
_LEADS = (
    re.compile(
        r"^(?:please )?(?:show|find|locate|identify|pinpoint|specify|give|tell)(?: me)? (?:all )?(?:(?:the|every) )?"
        rf"(?:exact )?{_PLACE} (?:when|where|in which|during which|at which|that shows?|of)\s+",
        re.I,
    ),
    re.compile(
        r"^(?:please )?(?:show|find|locate|pinpoint|identify)(?: me)? (?:the )?"
        rf"{_PLACE} (?=(?:the|a|an|he|she|they|it)\b)",
        re.I,
    ),
    re.compile(r"^(?:please )?(?:show|find|locate|identify)(?: me)? when\s+", re.I),
    re.compile(
        rf"^(?:when|where|at what {_PLACE}|in (?:what|which) {_PLACE}) can (?:we|i|you) (?:see|observe|hear)\s+", re.I
    ),
    re.compile(rf"^(?:when|at what {_PLACE}|in (?:what|which) {_PLACE}) (?:is|are|was|were|does|do|did)\s+", re.I),
    re.compile(r"^(?:please )?show(?: me)?\s+(?=the |a |an )", re.I),
)


def asked_for(question: str) -> str | None:
    """The query in a question, normalised; None where no known wrapper holds it.

    >>> asked_for('Given "a dog barks", return the matching interval.\\nFormat your answer as [[start, end]].')
    'a dog barks'
    >>> asked_for("When does the man open the door? Return the answer as: 'From [start] to [end] seconds.'")
    'the man open the door'
    >>> asked_for("A man opens the door") is None
    True
    """
    for template in _TEMPLATES:
        if found := template.fullmatch(" ".join(question.split())):
            return normalize_query(found[1]) or None
    bare = _without_form(question)
    quoted = list(_QUOTED.finditer(bare))
    if len(quoted) == 1:
        [one] = quoted
        around = re.findall(r"[^\W\d_]+", f"{bare[: one.start()]} {bare[one.end() :]}".lower())
        if around and _ORDER_WORDS.issuperset(around):
            return normalize_query(one[1] or one[2]) or None
    for lead in _LEADS:
        if found := lead.match(bare):
            return normalize_query(bare[found.end() :].strip().rstrip("?")) or None
    return normalize_query(bare) if bare != question.strip() else None


def _without_form(question: str) -> str:
    """The question up to where it says how to answer."""
    lines = question.strip().splitlines()
    for number, line in enumerate(lines[1:], 1):
        if _FORM_LINE.match(line.strip()) and _WRITTEN.search(line):
            lines = lines[:number]
            break
    bare = " ".join(" ".join(lines).split())
    found = _LAST_SENTENCE.search(bare)
    return bare[: found.start()] if found and _WRITTEN.search(found[1]) else bare
