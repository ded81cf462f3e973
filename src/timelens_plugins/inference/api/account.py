"""What a run asked of an endpoint and what became of it, counted where it happens; a run that continues counts on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from timelens_plugins.inference.api.replies import Reply

__all__ = ["Account"]


class Account:
    """Counts of a run; safe with several threads.

    Args:
        input_price, output_price: of a million tokens; None where no cost is counted.
    """

    def __init__(self, input_price: float | None = None, output_price: float | None = None) -> None:
        self._prices = input_price, output_price
        self._lock = threading.Lock()
        self.questions: Counter[str] = Counter()
        """``answered``, ``refused``, ``cut``, ``empty`` (each of these three is answered, too), ``failed``, ``earlier``
        (answered by an earlier run)."""
        self.requests: Counter[str] = Counter()
        """``sent``, and for each that was repeated, why."""
        self.tokens: Counter[str] = Counter()
        """``prompt`` and ``output`` of this run, ``earlier_prompt`` and ``earlier_output`` of those before it."""
        self.uncounted = 0
        """Replies that did not say how many tokens they took."""
        self.models: Counter[str] = Counter()
        """Which models the endpoint says have answered."""

    def sent(self) -> None:
        """A request goes out."""
        with self._lock:
            self.requests["sent"] += 1

    def repeated(self, why: str) -> None:
        """A request is made once more."""
        with self._lock:
            self.requests[why] += 1

    def replied(self, reply: Reply) -> None:
        """A reply is paid for, whatever becomes of it."""
        with self._lock:
            self._tokens("", reply.prompt_tokens, reply.output_tokens)
            if reply.model is not None:
                self.models[reply.model] += 1

    def answered(self, details: Mapping[str, Any]) -> None:
        """A question has its answer, with the ``details`` that go into the journal."""
        with self._lock:
            self.questions["answered"] += 1
            self._kinds(details)

    def earlier(self, details: Mapping[str, Any]) -> None:
        """A question was answered by an earlier run."""
        with self._lock:
            self.questions["earlier"] += 1
            self._kinds(details)
            self._tokens("earlier_", details.get("prompt_tokens"), details.get("output_tokens"))
            self.models.update(details.get("models", ()))

    def failed(self) -> None:
        """A question has no answer."""
        with self._lock:
            self.questions["failed"] += 1

    @property
    def cost(self) -> float | None:
        """Of this run and those before it; None without prices."""
        if None in self._prices:
            return None
        paid = 0.0
        for name, price in zip(("prompt", "output"), self._prices, strict=True):
            paid += (self.tokens[name] + self.tokens[f"earlier_{name}"]) * (price or 0.0) / 1e6
        return paid

    def summary(self) -> list[str]:
        """Lines for a person."""
        asked, requests, tokens = self.questions, self.requests, self.tokens
        notes = [f"{asked[kind]} {kind}" for kind in ("refused", "cut", "empty") if asked[kind]]
        lines = [
            f"{asked['answered']} questions answered, {asked['earlier']} by earlier runs, {asked['failed']} failed"
            + (f"; of the answers {', '.join(notes)}" if notes else "")
        ]
        why = [f"{n} after {kind}" for kind, n in sorted(requests.items()) if kind != "sent"]
        lines.append(f"{requests['sent']} requests" + (f"; repeated: {', '.join(why)}" if why else ""))
        line = f"{tokens['prompt']} prompt and {tokens['output']} output tokens"
        if asked["earlier"]:
            line += f", {tokens['earlier_prompt']} and {tokens['earlier_output']} in earlier runs"
        if self.uncounted:
            line += f"; {self.uncounted} replies did not say how many they took"
        lines.append(line + ("" if self.cost is None else f"; cost {self.cost:.4f}"))
        if len(self.models) > 1:
            lines.append(f"answered by {len(self.models)} models: {', '.join(sorted(self.models))}")
        return lines

    def _kinds(self, details: Mapping[str, Any]) -> None:
        for kind in ("refused", "cut", "empty"):
            self.questions[kind] += bool(details.get(kind))

    def _tokens(self, when: str, prompt: int | None, output: int | None) -> None:
        if prompt is None or output is None:
            self.uncounted += 1
        self.tokens[f"{when}prompt"] += prompt or 0
        self.tokens[f"{when}output"] += output or 0
