"""How answers are generated: what a task says, what a checkpoint says where it does not, and where a text ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

from timelens_plugins.shared_prefix.sampling import NO_SAMPLING

__all__ = ["MAX_NEW_TOKENS", "cut_at", "generation_of", "task_generation"]

logger = logging.getLogger(__name__)

_GENERATION_KEYS = frozenset(
    {"max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty"}
)
MAX_NEW_TOKENS = 512  # where a task says nothing, the protocol's


def task_generation(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's generation settings in transformers' terms: greedy where neither asks for sampling.

    Raises:
        ValueError: an unknown setting; ``do_sample`` and ``temperature`` that contradict each other, as where only one
            of them was changed by ``--gen_kwargs``.
    """
    unknown = sorted(given.keys() - _GENERATION_KEYS - {"until"})
    if unknown:
        raise ValueError(
            f"task '{task}': unknown generation settings {', '.join(unknown)}; known: until, "
            f"{', '.join(sorted(_GENERATION_KEYS))}"
        )
    until = given.get("until") or []
    settings = {k: given[k] for k in _GENERATION_KEYS if given.get(k) is not None}
    settings.setdefault("max_new_tokens", MAX_NEW_TOKENS)
    temperature = settings.get("temperature", 0)
    settings["do_sample"] = bool(settings.get("do_sample", temperature > 0))
    if settings["do_sample"] != (temperature > 0):
        raise ValueError(
            f"task '{task}': do_sample={settings['do_sample']} with "
            f"{'no temperature' if 'temperature' not in settings else f'temperature={temperature}'}: for sampled "
            "answers set both, as in --gen_kwargs do_sample=True,temperature=0.7; for greedy ones do_sample=False and "
            "temperature=0"
        )
    if not settings["do_sample"]:
        for name in ("temperature", "top_p", "top_k"):
            settings.pop(name, None)
    return settings | {"until": [until] if isinstance(until, str) else list(until)}


def generation_of(settings: Mapping[str, Any], own: GenerationConfig) -> dict[str, Any]:
    """A task's generation settings, stop strings aside, and a checkpoint's own where the task says nothing."""
    # A checkpoint's sampling defaults do not apply: what a task does not set is off.
    off = NO_SAMPLING if settings["do_sample"] else {}
    # Its repetition penalty does: the released evaluation turns sampling off and leaves the penalty as it is.
    penalty = {} if own.repetition_penalty is None else {"repetition_penalty": own.repetition_penalty}
    found = off | penalty | {name: value for name, value in settings.items() if name != "until"}
    if found.get("repetition_penalty") not in (None, 1.0):
        logger.info("repetition_penalty=%s in every answer", found["repetition_penalty"])
    return found


def cut_at(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text
