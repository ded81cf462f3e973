"""Proof on the first batch that training sees the video, and sees the same as the rollout.

A trainer that drops the video from its training forward reports an ordinary loss. So the first group is scored again
in three ways, without gradients and on the weights of the rollout, before anything is updated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from timelens_plugins.grpo.groups import Group
from timelens_plugins.grpo.scoring import plain_scores, shared_scores
from timelens_plugins.shared_prefix import Prompt

__all__ = ["FirstBatchCheck", "SelfCheckError", "check_ids", "check_scores", "default_tolerance"]

_PIXELS = ("pixel_values", "pixel_values_videos")
_COMPLETIONS = 2  # of the group; scored one at a time, as the plain path's memory grows with them


class SelfCheckError(RuntimeError):
    """The first batch showed that training would not compute what it should."""


class FirstBatchCheck:
    """The checks of one run: once, on the first group that can be checked, on all processes together.

    Args:
        accelerator: of the trainer.
        enabled: False for no check at all.
        share, temperature, tolerance: as for :func:`check_scores`.
    """

    def __init__(
        self, accelerator: Accelerator, *, enabled: bool, share: bool, temperature: float, tolerance: float
    ) -> None:
        self._accelerator, self._enabled = accelerator, enabled
        self._settings: dict[str, Any] = {"share": share, "temperature": temperature, "tolerance": tolerance}
        self._group: Group | None = None
        self._completions: Sequence[Tensor] = ()

    def remember(self, group: Group, completions: Sequence[Tensor]) -> None:
        """A group with its pixels, as it was sampled; the first one is checked."""
        if self._enabled and self._group is None:
            self._group, self._completions = group, completions

    def scores(self, model: nn.Module, encode: Callable[[Prompt], Prompt]) -> None:
        """:func:`check_scores` of this process's group; called on all processes, it fails on all or on none."""
        if not self._enabled:
            return
        report = error = None
        if self._group is not None:
            try:
                report = check_scores(model, self._group, encode, self._completions, **self._settings)
            except SelfCheckError as failure:
                error = str(failure)
        # A process that goes on alone would wait for the others forever.
        outcomes: list[tuple[str | None, str | None]] = gather_object([(report, error)])
        for _, found in outcomes:
            if found is not None:
                raise SelfCheckError(found)
        if passed := [line for line, _ in outcomes if line is not None]:
            self._enabled = False
            self._accelerator.print(f"self-check passed: {passed[0]}", flush=True)

    def ids(self, groups: Sequence[Group], rows: Tensor, mask: Tensor, completion_tokens: int) -> None:
        """:func:`check_ids` where the remembered group is among those that are scored; it is forgotten then."""
        size = len(rows) // len(groups)
        for i, group in enumerate(groups):
            if self._group is not None and group.row is self._group.row:
                own = slice(i * size, (i + 1) * size)
                check_ids(self._group, self._completions, rows[own], mask[own], completion_tokens)
                self._group, self._completions = None, ()


def default_tolerance(dtype: torch.dtype) -> float:
    """Mean absolute difference in nats that rounding explains."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.05


def check_scores(
    model: nn.Module,
    group: Group,
    encode: Callable[[Prompt], Prompt],
    completions: Sequence[Tensor],
    *,
    share: bool,
    temperature: float,
    tolerance: float,
) -> str:
    """Compare the path that training will take with the plain one, and with itself on another video.

    Args:
        model: as training calls it, in its autocast context.
        group: the group with its pixels.
        encode: what is done to prompts before training: vision features computed once, where they may be kept.
        completions: of the group.
        tolerance: see :func:`default_tolerance`.

    Returns:
        One line for the log.

    Raises:
        SelfCheckError: with the figures.
    """
    chosen = completions[:_COMPLETIONS]
    training = [module for module in model.modules() if module.training]
    model.eval()  # dropout would make every comparison fail
    try:
        with torch.no_grad():
            plain = torch.cat([_plain(model, group, c, temperature) for c in chosen])
            same = dataclasses.replace(group, prompt=encode(group.prompt))
            used = torch.cat([_used(model, same, c, temperature, share) for c in chosen])
            again = torch.cat([_used(model, same, c, temperature, share) for c in chosen])
            changed = dataclasses.replace(group, prompt=encode(_other_video(group.prompt)))
            other = torch.cat([_used(model, changed, c, temperature, share) for c in chosen])
    finally:
        for module in training:
            module.training = True
    if not bool(plain.isfinite().all() and used.isfinite().all()):
        raise SelfCheckError("self-check: log-probs of the first batch are not finite")
    difference = float((used - plain).abs().mean())
    effect, noise = float((used - other).abs().max()), float((used - again).abs().max())
    path = "shared prefix" if share else "plain path"
    if difference > tolerance:
        raise SelfCheckError(
            f"self-check: log-probs by {path} differ from those of the plain model by {difference:.2e} nats on "
            f"average, more than the tolerance of {tolerance:.2e}. Something in this setup (attention kernel, patched "
            "layers, a version) computes otherwise. Set share_prefix=False to train without sharing, or "
            "self_check_tolerance if your precision explains the difference."
        )
    if effect <= noise:
        raise SelfCheckError(
            f"self-check: another video changes log-probs by {effect:.2e} nats at most, repeating the same one by "
            f"{noise:.2e}: the training forward does not see the video"
        )
    return (
        f"{path} and plain log-probs differ by {difference:.2e} nats on average (tolerance {tolerance:.2e}); "
        f"another video changes them by up to {effect:.2e} (noise {noise:.2e})"
    )


def check_ids(group: Group, completions: Sequence[Tensor], rows: Tensor, mask: Tensor, completion_tokens: int) -> None:
    """Compare the ids that training scores with those of the rollout.

    Args:
        rows, mask: the group's rows of the trainer's padded batch, shape ``(G, P + C)``.
        completion_tokens: C.

    Raises:
        SelfCheckError: at the first difference.
    """
    width = rows.shape[1] - completion_tokens
    for i, completion in enumerate(completions):
        prompt = rows[i, :width][mask[i, :width].bool()].cpu()
        answer = rows[i, width : width + completion.numel()].cpu()
        for what, trained, sampled in (
            ("prompt", prompt, group.prompt.input_ids.cpu()),
            ("completion", answer, completion.cpu()),
        ):
            if not torch.equal(trained, sampled):
                raise SelfCheckError(
                    f"self-check: the {what} ids of training are not those of the rollout ({len(trained)} and "
                    f"{len(sampled)} tokens, row {i} of its group)"
                )


def _used(model: nn.Module, group: Group, completion: Tensor, temperature: float, share: bool) -> Tensor:
    if not share:
        return _plain(model, group, completion, temperature)
    return shared_scores(model, [group], completion[None], [completion.numel()], temperature)[0][0]


def _plain(model: nn.Module, group: Group, completion: Tensor, temperature: float) -> Tensor:
    ids = torch.cat([group.prompt.input_ids.to(completion), completion])[None]
    return plain_scores(model, [group], ids, torch.ones_like(ids), completion.numel(), temperature)[0][0]


def _other_video(prompt: Prompt) -> Prompt:
    """The same prompt with the video's patches in reverse order and negated: other content, same shape."""
    vision = {k: -v.flip(0) if k in _PIXELS else v for k, v in prompt.vision.items()}
    return dataclasses.replace(prompt, vision=vision)
