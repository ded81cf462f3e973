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
_END_OF_TURN = re.compile(
    r"<(?:\|(?:im_end|endoftext|eot_id|end)\||end_of_turn|eos|/s)>|\n(?:Human|User):", re.IGNORECASE
)


def answer_regions(text: str) -> tuple[list[str], bool]:
    """The regions that may hold the answer, best first, and whether the text breaks off inside a thought.

    Of several ``<answer>`` blocks the last that says something counts: it is the model's last word. An ``<answer>``
    without its closing tag runs to the end, since the closing tag is often the stop string. One inside a thought that
    was never closed still counts; the rest of such a thought does not. A ``</think>`` without opening closes a thought
    that the chat template opened.
    """
    end = _END_OF_TURN.search(text, 1)
    if end:
        text = text[: end.start()]
    spoken, thought = _split_thought(text)
    answers = _tagged(spoken) or _tagged(thought or "", complete=True)
    if answers:
        return [_shorten(answer) for answer in reversed(answers)], False
    return [_shorten(spoken)], thought is not None


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


def _tagged(text: str, complete: bool = False) -> list[str]:
    """The contents of the ``<answer>`` blocks; with ``complete`` only of those that are closed."""
    blocks: list[str] = []
    opened = None
    for tag in _ANSWER_TAG.finditer(text):
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
