"""A row in tokens: what the queries of a clip share, the queries, and the answers to learn."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timelens_plugins.answers import format_answer
from timelens_plugins.clips import LoadedClip, black_clip, chat_text
from timelens_plugins.encodings import InterleavedTimestampsMixin, build_messages, snap_spans, tokenize_text
from timelens_plugins.shared_prefix import Prompt, PromptTree, share_prompt
from timelens_plugins.training.dataset import warn_of_target_outside

__all__ = ["Example", "answer_tokens", "build_example", "check_stops", "placeholder_example"]

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
    snap: bool = False,
) -> Example | None:
    """The example of one clip's moments; None where no moment has a target.

    The answer to learn is the moment's own (``answer``), where it has one and its times are not snapped.

    A target that starts after the end of the clip is named in the log. One that snapping leaves without length (it lies
    between the last frame and the end of the clip) cannot be written as an answer: its moment is left out and named in
    the log.
    """
    prompts: list[Prompt] = []
    answers: list[Tensor] = []
    left_out: list[str] = []
    for moment in moments:
        spans = snap_spans(moment["spans"], clip.times) if snap else moment["spans"]
        if snap and any(span[0] == span[1] for span in spans):
            logger.warning("left out: %s, whose target lies beyond the last of the sampled times", moment["id"])
            left_out.append(moment["id"])
            continue
        if not snap:
            warn_of_target_outside(moment, clip.clip.duration)
        prompts.append(clip.prompt(moment["prompt"]))
        own = None if snap else moment.get("answer")
        try:
            answers.append(answer_tokens(processor, moment["prompt"], own or format_answer(spans)))
        except ValueError as error:
            raise ValueError(f"{moment['id']}: {error}") from error
    if not prompts:
        return None
    shared, queries = share_prompt(prompts)
    tree = PromptTree.of_queries(shared, [(q, [a]) for q, a in zip(queries, answers, strict=True)])
    return Example(row, tree, tuple(left_out))


def answer_tokens(
    processor: InterleavedTimestampsMixin, conversation: Sequence[Mapping[str, Any]], answer: str
) -> Tensor:
    """What the model is to write after a conversation: the answer and its end of turn, in the chat template's form.

    Where a template ends no turn, the end is the token that begins the user's next one: what its models stop at.

    Raises:
        ValueError: a chat template whose answers do not continue its prompts, or that does not end turns.
    """
    asked = chat_text(processor, conversation)
    reply, following = (
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("assistant", answer), ("user", "?"))
    )
    tokenizer = processor.tokenizer
    for turns in ([reply], [reply, following]):
        answered = chat_text(processor, [*conversation, *turns], add_generation_prompt=False)
        if not answered.startswith(asked):
            closed = (
                "think>" in answer and not processor.thinking and processor.has_thinking_mode(processor.chat_template)
            )
            raise ValueError(
                f"the chat template writes an answered conversation otherwise than a prompt and its answer {answer!r}"
                + ("; for answers with thoughts in them set thinking: true" if closed else "")
            )
        ids = tokenize_text(tokenizer, answered[len(asked) :])
        ends = [i for i, token in enumerate(ids) if token in tokenizer.all_special_ids]
        if ends:
            return torch.tensor(ids[: ends[0] + 1], dtype=torch.long)
    raise ValueError("the chat template ends an answer without a special token, so the model could never stop")


def check_stops(processor: InterleavedTimestampsMixin, model: Any) -> None:
    """Refuse answers that end with a token at which the model, once trained, would not stop.

    Raises:
        ValueError: as :func:`answer_tokens`; an end of turn that neither the model nor its tokenizer stops at.
    """
    end = int(answer_tokens(processor, build_messages("", "nothing", processor.encoding), "-")[-1])
    own = getattr(model.generation_config, "eos_token_id", None)
    stops = {processor.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    if end not in stops:
        token = processor.tokenizer.decode([end])
        raise ValueError(
            f"the chat template ends an answer with {token}, at which this model does not stop: its generation_config "
            f"has eos_token_id={own}; add {end} there"
        )


def placeholder_example(processor: InterleavedTimestampsMixin) -> Example:
    """A black clip with a query: what a process computes, with weight 0, when none of its videos can be read.

    Every process must take part in every step, or the others would wait for its gradients.
    """
    clip = black_clip(processor)
    messages = build_messages(clip.clip, "nothing", processor.encoding)
    example = build_example(processor, clip, -1, [{"id": "", "spans": [(0.0, 1.0)], "prompt": messages}])
    assert example is not None
    return example
