"""Which part of a model's text is its answer: not the thought, not what follows the end of the turn."""

from __future__ import annotations

import re

__all__ = ["HEAD", "TAIL", "answer_regions"]

HEAD, TAIL = 1024, 3072
"""Characters read from the two ends of a longer text. The benchmark allows 512 tokens, about 2,000 characters; what is
longer is reasoning without tags, whose answer stands at an end."""

_THOUGHT_TAG = re.compile(
    r"< ?(?P<close>/?) ?(?:think|thinking|thought|reasoning) ?>|◁(?P<kimi>/?)think▷", re.IGNORECASE
)
_ANSWER_TAG = re.compile(r"< ?(?P<close>/?) ?(?:(?:final[_ ]?)?answer|ans) ?>", re.IGNORECASE)
_MARKS = ("<", "◁", "\n")  # a text without these has no tag and no end of turn
_GLUE_TAG = re.compile(r"< ?(?P<close>/?) ?glue ?>", re.IGNORECASE)
_END_OF_TURN = re.compile(
    r"<(?:\|(?:im_end|endoftext|eot_id|end)\||end_of_turn|eos|/s)>|\n(?:Human|User):", re.IGNORECASE
)


def answer_regions(text: str) -> tuple[list[str], bool]:
    """The regions that may hold the answer, best first, and whether the text breaks off inside a thought.

    The first region that states a span, or denies that there is one, is the answer.

    Of several ``<answer>`` blocks the last that says something counts: it is the model's last word. An ``<answer>``
    without its closing tag runs to the end, since the closing tag is often the stop string. One inside a thought that
    was never closed still counts; the rest of such a thought does not. A ``</think>`` without opening closes a thought
    that the chat template opened.

    Where no answer has a digit in it, it is a text or a letter: ``<glue>``, where VideoChat-R1 writes the span of such
    an answer, comes before it, and what stands outside of the tags behind it.
    """
    if not any(mark in text for mark in _MARKS):
        return [_shorten(text)], False
    end = _END_OF_TURN.search(text, 1)
    if end:
        text = text[: end.start()]
    spoken, thought = _split_thought(text)
    answers = _tagged(_ANSWER_TAG, spoken) or _tagged(_ANSWER_TAG, thought or "", complete=True)
    if not answers:
        return [_shorten(spoken)], thought is not None
    answers.reverse()
    glued = _tagged(_GLUE_TAG, spoken)
    if any(c.isdecimal() for answer in answers for c in answer):
        regions = [*answers, *glued]
    else:
        regions = [*glued, *answers, _outside(spoken)]
    return [_shorten(region) for region in regions], False


def _split_thought(text: str) -> tuple[str, str | None]:
    """Text outside of thoughts, and the inside of a last thought that never ends (None where all end)."""
    kept: list[str] = []
    position, opened = 0, None
    for tag in _THOUGHT_TAG.finditer(text):
        closing = bool(tag["close"] or tag["kimi"])
        if not closing and opened is None:
            kept.append(text[position : tag.start()])
            opened = tag.end()
        elif closing:
            if opened is None:
                kept.clear()
            position, opened = tag.end(), None
    if opened is not None:
        return "\n".join(kept), text[opened:]
    kept.append(text[position:])
    return "\n".join(kept), None


def _outside(text: str) -> str:
    """What stands outside of ``<answer>`` blocks."""
    kept: list[str] = []
    position, inside = 0, False
    for tag in _ANSWER_TAG.finditer(text):
        if not inside:
            kept.append(text[position : tag.start()])
        position, inside = tag.end(), not tag["close"]
    return "\n".join(kept if inside else [*kept, text[position:]])


def _tagged(pattern: re.Pattern[str], text: str, complete: bool = False) -> list[str]:
    """The contents of the blocks between two tags; with ``complete`` only of those that are closed."""
    blocks: list[str] = []
    opened = None
    for tag in pattern.finditer(text):
        if not tag["close"]:
            opened = tag.end()
        elif opened is not None:
            blocks.append(text[opened : tag.start()])
            opened = None
    if opened is not None and not complete:
        blocks.append(text[opened:])
    return blocks[-8:]


def _shorten(text: str) -> str:
    """The two ends of a text longer than both. The cut falls at white space where there is some, never inside a
    number."""
    if len(text) <= HEAD + TAIL:
        return text
    head, tail = text[:HEAD], text[-TAIL:]
    return head.rpartition(" ")[0] + "\n.\n" + tail.partition(" ")[2]
