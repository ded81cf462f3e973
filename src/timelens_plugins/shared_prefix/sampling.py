"""Sampling for the rows of several groups at once, each group from random numbers of its own.

``generate`` draws the rows of a batch from one stream, so that what a group gets depends on the groups beside it. Here
a logits processor does the drawing: it warps the scores as ``generate`` would, draws for each group from that group's
generator, and leaves ``generate`` one token to choose.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

__all__ = ["NO_SAMPLING", "GroupSampler", "can_sample", "seeded"]

_WARPED = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}
"""Settings of sampling that are applied here, and the values ``generate`` falls back to at last."""

NO_SAMPLING: dict[str, float] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Values under which ``generate`` samples from the model's own distribution, whatever a checkpoint's settings say."""

_OTHER = {
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
    "no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "watermarking_config": None,
    "penalty_alpha": None,
}
"""Settings that are not, or that look at the text so far, whose padding differs here: their values that do nothing."""


def can_sample(config: GenerationConfig) -> bool:
    """Whether :class:`GroupSampler` does all that ``generate`` would do to the scores.

    A repetition penalty is ``generate``'s own business: rows are filled up with a token that their text has anyway.
    """
    return bool(config.do_sample) and all(
        getattr(config, name, None) in (None, nothing) for name, nothing in _OTHER.items()
    )


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed; afterwards they go on as if nothing had happened."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class GroupSampler(LogitsProcessor):
    """Chooses the next token of every row; to be the last processor of a ``generate`` that takes the best token.

    Args:
        config: of the sampling.
        completions: rows of a group, G. Rows of a group follow each other.
        seeds: of the groups.
        device: of the scores.
        own: the model's settings, for what ``config`` leaves open.
    """

    def __init__(
        self,
        config: GenerationConfig,
        completions: int,
        seeds: Sequence[int],
        device: torch.device,
        own: GenerationConfig | None = None,
    ) -> None:
        self.completions = completions
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.warpers = _warpers(config, own)
        self.config = copy.deepcopy(config)
        self.config.do_sample = False
        for name in _WARPED:
            setattr(self.config, name, None)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``(R, V)`` -> 0 for the chosen token of each row, minus infinity for the others."""
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        shares = scores.softmax(dim=-1)
        # The least of independent exponential times, at rates that are the shares, comes first with these shares.
        times = torch.empty_like(shares)
        for group, generator in zip(times.split(self.completions), self.generators, strict=True):
            group.exponential_(1.0, generator=generator)
        chosen = (shares / times).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen, 0.0)


def _warpers(config: GenerationConfig, own: GenerationConfig | None) -> list[LogitsProcessor]:
    """In the order of ``generate``."""
    values: dict[str, Any] = dict(_WARPED)
    for source in (own, config):
        values |= {name: value for name in _WARPED if (value := getattr(source, name, None)) is not None}
    warpers: list[LogitsProcessor] = []
    if values["temperature"] != 1.0:
        warpers.append(TemperatureLogitsWarper(values["temperature"]))
    if values["top_k"]:
        warpers.append(TopKLogitsWarper(top_k=values["top_k"]))
    if values["top_p"] < 1.0:
        warpers.append(TopPLogitsWarper(top_p=values["top_p"]))
    if values["min_p"] is not None:
        warpers.append(MinPLogitsWarper(min_p=values["min_p"]))
    return warpers
