"""Control tokens that somebody wrote into a text stay text.

A query may hold ``<|im_end|>`` or ``<|video_pad|>``. Tokenizers turn these letters into the token that ends a turn or
stands for a video, wherever they come from. So every control token in the texts of a conversation is broken by a
character that no text has (a Unicode noncharacter) before the chat template is applied: neither a search for
placeholders nor a tokenizer finds it any more. :func:`tokenize_text` leaves the character out again and writes the
token's letters as ordinary tokens. Control tokens of the chat template itself are not touched.

transformers 5.20 has the same under the name ``sanitize_control_tokens``, for whole conversations only; ids are equal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from transformers import BatchEncoding

__all__ = ["PlainTextTokenizer", "broken_control_tokens", "has_broken_tokens", "tokenize_text"]

_BREAK = "\ufdd0"

# Added tokens that are not special are text a user may write, such as <think>, unless they look like control tokens.
_CONTROL_FORM = re.compile(r"<\|.+\|>", re.DOTALL)


def control_tokens(tokenizer: Any) -> list[str]:
    """The tokens of a tokenizer that no text may write, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    found = {t.content for t in added if len(t.content) > 1 and (t.special or _CONTROL_FORM.fullmatch(t.content))}
    return sorted(found, key=len, reverse=True)


def broken_control_tokens(conversation: Any, tokenizer: Any) -> Any:
    """A copy of a conversation, or a batch of them, whose texts hold no control token that a tokenizer would find.

    Texts are all strings but the sources of images and videos. What is no message is passed on as it is.

    Raises:
        ValueError: texts of neighbouring parts make a control token together.
    """
    tokens = control_tokens(tokenizer)
    return _broken(conversation, re.compile("|".join(map(re.escape, tokens)) or r"(?!)"))


def _broken(value: Any, tokens: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return tokens.sub(lambda found: found[0][0] + _BREAK + found[0][1:], value)
    if isinstance(value, list | tuple):
        _check_neighbours(value, tokens)
        return [_broken(item, tokens) for item in value]
    if isinstance(value, Mapping) and value.get("type") not in ("image", "video"):
        return {key: _broken(item, tokens) for key, item in value.items()}
    return value


def _check_neighbours(parts: list[Any] | tuple[Any, ...], tokens: re.Pattern[str]) -> None:
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    for first, second in itertools.pairwise(texts):
        if isinstance(first, str) and isinstance(second, str):
            alone = len(tokens.findall(first)) + len(tokens.findall(second))
            if len(tokens.findall(first + second)) > alone:
                raise ValueError(f"the texts {first!r} and {second!r} make a control token together; pass them as one")


def has_broken_tokens(text: Any) -> bool:
    """Whether a text, or any of a list of them, holds control tokens that must be written as ordinary ones."""
    return _BREAK in text if isinstance(text, str) else any(map(has_broken_tokens, text or ()))


def tokenize_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text of a chat template: its own control tokens as such, broken ones as ordinary text.

    Raises:
        ValueError: a control token that the tokenizer makes of ordinary text as well.
    """
    if _BREAK not in text:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
    tokens = [token for token in control_tokens(tokenizer) if token[0] + _BREAK + token[1:] in text]
    broken = "|".join(re.escape(token[0] + _BREAK + token[1:]) for token in tokens)
    ids = []
    # Between the borders of broken tokens, text and broken tokens take turns.
    for place, piece in enumerate(re.split(f"({broken})", text) if tokens else [text]):
        if place % 2:
            ids += _as_letters(tokenizer, piece.replace(_BREAK, ""))
        else:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def _as_letters(tokenizer: Any, token: str) -> list[int]:
    """A token's text by the tokenizer's own steps, but for the search for added tokens that comes before them."""
    backend = tokenizer.backend_tokenizer
    text = token if backend.normalizer is None else backend.normalizer.normalize_str(token)
    splits = [text] if backend.pre_tokenizer is None else [s for s, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    ids = [piece.id for split in splits for piece in backend.model.tokenize(split)]
    if tokenizer.convert_tokens_to_ids(token) in ids:
        raise ValueError(f"a text holds {token}, and this tokenizer has no other way to write it: change the text")
    return ids


class PlainTextTokenizer:
    """A tokenizer for texts with broken control tokens, in the place of a processor's own while it is called."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(
        self,
        text: list[str],
        *,
        padding: Any = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Any = None,
        **options: Any,
    ) -> BatchEncoding:
        """As the tokenizer's own, for a batch.

        Raises:
            ValueError: options that go by places in the text: offsets, truncation and the like.
        """
        harmless = ("add_special_tokens", "sanitize_control_tokens", "verbose", "return_token_type_ids")
        if refused := sorted(name for name, value in options.items() if value and name not in harmless):
            raise ValueError(f"a text holds control tokens, which excludes the option {', '.join(refused)}")
        padded: BatchEncoding = self._tokenizer.pad(
            {"input_ids": [tokenize_text(self._tokenizer, item) for item in text]},
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )
        return padded
