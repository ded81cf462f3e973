"""Proof on the first batch that training sees the video, and sees the same as the rollout.

A trainer that drops the video from its training forward reports an ordinary loss. So the first group, with another of
its video where they are computed together, is scored again in three ways, without gradients and on the weights of the
rollout, before anything is updated.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from timelens_plugins.grpo.groups import Group, with_trunks
from timelens_plugins.grpo.scoring import plain_scores, shared_scores
from timelens_plugins.inference.vllm.parity import ParityError
from timelens_plugins.shared_prefix import Prompt

__all__ = ["FirstBatchCheck", "SelfCheckError", "check_ids", "check_scores"]

_PIXELS = ("pixel_values", "pixel_values_videos")
_QUERIES, _SIBLINGS = 2, 4  # of a video: groups, and completions of all of them, in one tree


class SelfCheckError(RuntimeError):
    """The first batch showed that training would not compute what it should."""


class FirstBatchCheck:
    """The checks of one run: once, on the first group that can be checked, on all processes together.

    Args:
        accelerator: of the trainer.
        enabled: False for no check at all.
        share, temperature, tolerance: as for :func:`check_scores`.
        compare: what samples the completions, where that is not the model, with the model; a line for the log, or a
            ``ParityError``.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        enabled: bool,
        share: bool,
        temperature: float,
        tolerance: float,
        compare: Callable[[nn.Module, Sequence[Group]], str] | None = None,
    ) -> None:
        self._accelerator, self._enabled, self._compare = accelerator, enabled, compare
        self._settings: dict[str, Any] = {"share": share, "temperature": temperature, "tolerance": tolerance}
        self._groups: Sequence[Group] = ()
        self._completions: Sequence[Sequence[Tensor]] = ()

    def remember(self, groups: Sequence[Group], completions: Sequence[Sequence[Tensor]]) -> None:
        """Groups of a video that are computed together, with their pixels and as they were sampled; the first are
        checked."""
        if self._enabled and not self._groups:
            self._groups, self._completions = groups, completions

    def scores(self, model: nn.Module, encode: Callable[[Prompt], Prompt]) -> None:
        """:func:`check_scores` of this process's groups; called on all processes, it fails on all or on none."""
        if not self._enabled:
            return
        report = error = None
        if self._groups:
            try:
                report = check_scores(model, self._groups, encode, self._completions, **self._settings)
                if self._compare is not None:
                    with _evaluating(model):
                        report += f"; {self._compare(model, self._groups)}"
            except (SelfCheckError, ParityError) as failure:
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
        """:func:`check_ids` of the remembered groups among those that are scored; they are forgotten then."""
        size = len(rows) // len(groups)
        found = False
        places = {id(group.row): slice(i * size, (i + 1) * size) for i, group in enumerate(groups)}
        for group, completions in zip(self._groups, self._completions, strict=True):
            if (own := places.get(id(group.row))) is not None:
                check_ids(group, completions, rows[own], mask[own], completion_tokens)
                found = True
        if found:
            self._groups, self._completions = (), ()


def check_scores(
    model: nn.Module,
    groups: Sequence[Group],
    encode: Callable[[Prompt], Prompt],
    completions: Sequence[Sequence[Tensor]],
    *,
    share: bool,
    temperature: float,
    tolerance: float,
) -> str:
    """Compare the path that training will take with the plain one, and with itself on another video.

    Args:
        model: as training calls it, in its autocast context.
        groups: one, or several of a video that training computes together, with their pixels.
        encode: what is done to prompts before training: vision features computed once, where they may be kept.
        completions: of each group.
        tolerance: see :func:`~timelens_plugins.shared_prefix.logprobs.rounding_tolerance`.

    Returns:
        One line for the log.

    Raises:
        SelfCheckError: with the figures.
    """
    # Siblings are scored by one forward, as in training: that they do not see each other is for sharing to keep. The
    # plain path takes them one at a time, as its memory grows with them.
    members = groups[:_QUERIES]
    size = _SIBLINGS // len(members) if share else 1
    each = [(g, c) for g, own in zip(members, completions, strict=False) for c in own[:size]]
    vision = {k: -v.flip(0) if k in _PIXELS else v for k, v in groups[0].prompt.vision.items()}

    def scored(change: Callable[[Prompt], Prompt]) -> Tensor:
        made = [dataclasses.replace(g, prompt=encode(change(g.prompt))) for g in members]
        return _used(model, with_trunks(made), [completion for _, completion in each], temperature, share)

    with _evaluating(model):
        plain = torch.cat([_plain(model, group, completion, temperature) for group, completion in each])
        used, again = scored(lambda prompt: prompt), scored(lambda prompt: prompt)
        # The same prompts with the video's patches in reverse order and negated: other content, same shape.
        other = scored(lambda prompt: dataclasses.replace(prompt, vision=vision))
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


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without gradients, and without dropout, which would make every comparison fail."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


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


def _used(
    model: nn.Module, groups: Sequence[Group], completions: Sequence[Tensor], temperature: float, share: bool
) -> Tensor:
    if not share:
        return torch.cat([_plain(model, g, c, temperature) for g, c in zip(groups, completions, strict=True)])
    lengths = [completion.numel() for completion in completions]
    padded = torch.nn.utils.rnn.pad_sequence(list(completions), batch_first=True)
    found = shared_scores(model, groups, padded, lengths, temperature)[0]
    return torch.cat([row[:n] for row, n in zip(found, lengths, strict=True)])


def _plain(model: nn.Module, group: Group, completion: Tensor, temperature: float) -> Tensor:
    ids = torch.cat([group.prompt.input_ids.to(completion), completion])[None]
    return plain_scores(model, [group], ids, torch.ones_like(ids), completion.numel(), temperature)[0][0]
