"""A row in tokens: what the queries of a clip share, the queries, and the answers to learn."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timelens_plugins.answers import format_answer
from timelens_plugins.shared_prefix import Prompt, PromptTree, share_prompt
from timelens_plugins.timestamps import InterleavedTimestampsMixin, build_messages, snap_spans
from timelens_plugins.training.clips import ClipKey, LoadedClip, chat_text, load_clip
from timelens_plugins.video import VideoClip

__all__ = ["Example", "answer_tokens", "build_example", "placeholder_example"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Example:
    """One row, ready for the model.

    Attributes:
        row: its number in the data.
        tree: the clip's prompt, a branch for each query, and below it the answer, which is scored.
        left_out: ids of moments without a target that can be written.
    """

    row: int
    tree: PromptTree
    left_out: tuple[str, ...] = ()

    @property
    def queries(self) -> int:
        """Number of queries with an answer."""
        return len(self.tree.branches)

    @property
    def scored_tokens(self) -> int:
        """Tokens the loss is over: the answers' and their ends of turn."""
        return sum(branch.tokens.numel() for branch in self.tree.scored_branches())

    @property
    def packed_tokens(self) -> int:
        """Tokens of the packed row; the last one of an answer needs no place in it."""
        own = sum(query.tokens.numel() + query.children[0].tokens.numel() - 1 for query in self.tree.branches)
        return len(self.tree.prompt) + own

    @property
    def plain_tokens(self) -> int:
        """Tokens without sharing: every query with its own copy of the prompt."""
        return self.packed_tokens + (self.queries - 1) * len(self.tree.prompt)


def build_example(
    processor: InterleavedTimestampsMixin,
    clip: LoadedClip,
    row: int,
    moments: Sequence[Mapping[str, Any]],
    snap_targets: bool = False,
) -> Example | None:
    """The example of one clip's moments; None where no moment has a target.

    A target that snapping leaves without length (it lies between the last frame and the end of the clip) cannot be
    written as an answer: its moment is left out and named in the log.
    """
    prompts: list[Prompt] = []
    answers: list[Tensor] = []
    left_out: list[str] = []
    for moment in moments:
        spans = snap_spans(moment["spans"], clip.times) if snap_targets else moment["spans"]
        if snap_targets and any(span[0] == span[1] for span in spans):
            logger.warning("left out: %s, whose target lies beyond the last of the sampled times", moment["id"])
            left_out.append(moment["id"])
            continue
        prompts.append(clip.prompt(moment["prompt"]))
        answers.append(answer_tokens(processor, moment["prompt"], format_answer(spans)))
    if not prompts:
        return None
    shared, queries = share_prompt(prompts)
    tree = PromptTree.of_queries(shared, [(q, [a]) for q, a in zip(queries, answers, strict=True)])
    return Example(row, tree, tuple(left_out))


def answer_tokens(
    processor: InterleavedTimestampsMixin, conversation: Sequence[Mapping[str, Any]], answer: str
) -> Tensor:
    """What the model is to write after a conversation: the answer and its end of turn, in the chat template's form.

    Raises:
        ValueError: a chat template whose answers do not continue its prompts, or that does not end turns.
    """
    asked = chat_text(processor, conversation)
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    answered = chat_text(processor, [*conversation, reply], add_generation_prompt=False)
    if not answered.startswith(asked):
        raise ValueError("the chat template writes an answered conversation otherwise than a prompt and its answer")
    tokenizer = processor.tokenizer
    ids: list[int] = tokenizer(answered[len(asked) :], add_special_tokens=False)["input_ids"]
    ends = [i for i, token in enumerate(ids) if token in tokenizer.all_special_ids]
    if not ends:
        raise ValueError("the chat template ends an answer without a special token, so the model could never stop")
    return torch.tensor(ids[: ends[0] + 1], dtype=torch.long)


def placeholder_example(processor: InterleavedTimestampsMixin) -> Example:
    """Two black frames with a query: what a process computes, with weight 0, when none of its videos can be read.

    Every process must take part in every step, or the others would wait for its gradients.
    """
    side = processor.frame_sampling.pixel_factor
    frames = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    times = np.array([0.0, 0.5])
    clip = VideoClip(
        path="",
        frames=frames,
        frame_indices=np.array([0, 1]),
        times=times,
        fps=2.0,
        total_frames=2,
        duration=1.0,
        backend="",
    )
    loaded = load_clip(processor, ClipKey(""), clip)
    messages = build_messages("", "nothing", processor.encoding)
    example = build_example(processor, loaded, -1, [{"id": "", "spans": [(0.0, 1.0)], "prompt": messages}])
    assert example is not None
    return example
