"""The lmms-eval model ``timelens`` with ``engine=api``: the same tasks, prompts and journal, another answerer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.inference.api.endpoint import read_key
from timelens_plugins.inference.api.engine import ApiEngine, ApiSettings
from timelens_plugins.renamed import refuse_renamed

__all__ = ["TimeLensApi"]


class TimeLensApi(TimeLens):
    """``lmms-eval --model timelens --model_args engine=api,pretrained=MODEL,base_url=URL,preset=gpt,…``.

    Args:
        pretrained: the model, by the endpoint's name.
        engine: ``api``.
        batch_size: 1; ``concurrency`` is how many requests are made at the same time.
        prompt: as with checkpoints; by default the preset's, and where that has none the task's.
        journal: as with checkpoints. Answers of the same endpoint, model and preset count.
        options: the other fields of :class:`~timelens_plugins.inference.api.engine.ApiSettings`.

    Raises:
        TypeError: an argument that does not exist, by name.
        ValueError: a value outside its range.
        EndpointError: the endpoint's key is not set.
    """

    def __init__(
        self,
        pretrained: str,
        engine: str = "api",
        batch_size: int | str = 1,
        prompt: str | None = None,
        journal: str | None = None,
        **options: Any,
    ) -> None:
        refuse_renamed(options, "--model_args")
        known = {f.name for f in fields(ApiSettings) if f.init} - {"model", "prompt"}
        if unknown := sorted(options.keys() - known):
            raise TypeError(f"engine=api has no argument {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        if str(batch_size) != "1":
            raise ValueError(
                f"engine=api takes no batch_size, got {batch_size!r}: concurrency= is how many requests "
                "are made at the same time"
            )
        self._api = ApiSettings(str(pretrained), **options)
        read_key(self._api.base_url, self._api.key_variable)  # what is wrong with it is said before any work
        self._set_up(prompt, journal, None, {"engine": engine, "model": pretrained})
        self._batch_size = 1

    @property
    def _own_prompt(self) -> str:
        return self._api.rules.prompt or GROUNDING_PROMPT

    def _engine(self, generation: Mapping[str, Any]) -> ApiEngine:
        return ApiEngine(self._api.among(self.world_size), generation)
