"""What an endpoint sends back: a reply is read whole or not at all, and what it is taken for is decided here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Reply", "UnreadableReplyError", "read_refusal", "read_reply", "server_message"]

_REFUSED = "content_filter"
_SHOWN = 300


class UnreadableReplyError(ValueError):
    """A reply that is no chat completion: a fault of the server, or of something on the way."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One completion.

    Attributes:
        text: what the model wrote; where it refused, what it said instead.
        finish: ``stop``, ``length``, ``content_filter`` or what else the endpoint calls it.
        refused: by the model, or by a filter of the endpoint.
    """

    text: str
    finish: str
    refused: bool

    @property
    def cut(self) -> bool:
        """Whether the limit of new tokens ended it."""
        return self.finish == "length"


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion.

    Attributes:
        choices: at least one.
        prompt_tokens, output_tokens: as the endpoint counts them, thoughts among the latter; None where it does not.
        model: which model the endpoint says it was.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    model: str | None = None


def read_reply(body: bytes) -> Reply:
    """The reply in the body of a response with status 200.

    Raises:
        UnreadableReplyError: it is none, with the reason.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableReplyError(f"not JSON ({error}): {_short(body)}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("choices"), list):
        raise UnreadableReplyError(f"no list of choices: {_short(body)}")
    if not content["choices"]:
        raise UnreadableReplyError("an empty list of choices")
    usage = content.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    model = content.get("model")
    return Reply(
        tuple(_choice(choice, body) for choice in content["choices"]),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        model if isinstance(model, str) else None,
    )


def read_refusal(body: bytes) -> Reply | None:
    """A request that was turned down for what it shows or asks, as a reply; None where it was for another reason."""
    error = _error(body)
    codes = {str(error.get(name)) for name in ("code", "type")}
    if not codes & {_REFUSED, "content_policy_violation"}:
        return None
    return Reply((Choice(str(error.get("message") or ""), _REFUSED, True),), 0, 0)


def server_message(body: bytes) -> tuple[str, str]:
    """Code and message of an error, for a person."""
    error = _error(body)
    return str(error.get("code") or error.get("type") or ""), str(error.get("message") or _short(body))[:_SHOWN]


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = content.get("error", content) if isinstance(content, Mapping) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, Mapping) else {}


def _choice(choice: Any, body: bytes) -> Choice:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise UnreadableReplyError(f"a choice without a message: {_short(body)}")
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):  # parts, as some endpoints give them
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str | None):
        raise UnreadableReplyError(f"a message whose content is no text: {_short(body)}")
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else "not said"
    refused = finish == _REFUSED or (isinstance(refusal, str) and bool(refusal))
    return Choice(content or (str(refusal) if refused and refusal else ""), finish, refused)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _short(body: bytes) -> str:
    text = body[: _SHOWN + 1].decode(errors="replace")
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
