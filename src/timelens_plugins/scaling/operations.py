"""Floating-point operations of a GRPO step, in multiplications and additions (2 for each weight of a matrix).

Counted are products of matrices and attention; norms, activations and the optimizer are left out. Causal attention
counts the pairs that are looked at, which fused kernels come near to.
"""

from __future__ import annotations

from dataclasses import dataclass

from timelens_plugins.families.shapes import ModelShape
from timelens_plugins.scaling.work import Work

__all__ = ["GroupOperations", "decoding", "group_operations", "prompt_operations", "vision_operations"]

_RECURRENT_CHUNK = 64  # tokens that the delta rule takes together


@dataclass(frozen=True)
class GroupOperations:
    """Operations of one video with all its completions.

    Attributes:
        vision: of the tower, in rollout and training together.
        prefill: of prompts in the rollout.
        decode: of completions in the rollout, token by token.
        training: forward, backward, and the second forward of gradient checkpointing.
    """

    vision: float
    prefill: float
    decode: float
    training: float

    @property
    def total(self) -> float:
        """Of the step."""
        return self.vision + self.prefill + self.decode + self.training


def group_operations(shape: ModelShape, work: Work, *, shared: bool, checkpointing: bool = True) -> GroupOperations:
    """What one video costs in a step: rollout and training, tower frozen, language model and mergers trained.

    Args:
        shape: of the model.
        work: of the video.
        shared: one prefix for all completions, whose video is encoded once; else the repeated batch, which encodes it
            for each completion, in rollout and in training.
        checkpointing: the forward is computed again in backward.
    """
    copies = work.videos(shared)
    tower = vision_operations(shape, work) * copies * (1 if shared else 2)
    prompts = prompt_operations(shape, work) if shared else work.completions * _text(shape, *_prompt(work))
    passes = 4 if checkpointing else 3
    scored = work.completions * work.completion_tokens
    forward = _text(shape, work.tokens(shared), work.pairs_attended(shared)) + _head(shape, scored)
    mergers = 2.0 * shape.vision.mergers * shape.vision.merger_weights() * work.vision_tokens * copies
    return GroupOperations(tower, prompts, decoding(shape, work), passes * forward + 3 * mergers)


def prompt_operations(shape: ModelShape, work: Work) -> float:
    """Of one prefill of a video and all its queries."""
    video, query = work.video_tokens, work.query_tokens
    pairs = video * (video + 1) / 2 + work.queries * query * (video + (query + 1) / 2)
    return _text(shape, video + work.queries * query, pairs)


def vision_operations(shape: ModelShape, work: Work) -> float:
    """Of one forward of tower and mergers over a video."""
    vision = shape.vision
    patches = work.vision_tokens * vision.merge**2
    frame = patches / work.pairs
    linear = 2.0 * patches * (vision.depth * vision.block_weights() + vision.patch_values * vision.hidden)
    whole = vision.full_blocks if vision.window else vision.depth
    window = (vision.window // vision.patch) ** 2 if vision.window else 0
    attention = 4.0 * vision.hidden * patches * (whole * frame + (vision.depth - whole) * min(window, frame))
    mergers = 2.0 * work.vision_tokens * vision.mergers * vision.merger_weights()
    return linear + attention + mergers


def decoding(shape: ModelShape, work: Work) -> float:
    """Of all completions of a video, from its keys and values."""
    c, n = work.completion_tokens, work.completions
    pairs = n * c * (work.prompt_tokens + (c + 1) / 2)
    return _text(shape, n * c, pairs) + _head(shape, n * c)


def _prompt(work: Work) -> tuple[int, float]:
    tokens = work.prompt_tokens
    return tokens, tokens * (tokens + 1) / 2


def _text(shape: ModelShape, tokens: int, pairs: float) -> float:
    text = shape.text
    linear = 2.0 * tokens * text.layer_weights()
    attention = 4.0 * text.query_width * pairs * text.attention_layers
    return linear + attention + tokens * text.recurrent_layers * _recurrence(shape)


def _recurrence(shape: ModelShape) -> float:
    """The chunked delta rule, a token and layer: within a chunk, and between it and the state."""
    text = shape.text
    state = 6.0 * text.value_heads * text.key_dim * text.value_dim
    chunk = 4.0 * text.value_heads * _RECURRENT_CHUNK * (text.key_dim + text.value_dim)
    convolution = 2.0 * text.convolution * (2 * text.recurrent_key_width + text.recurrent_value_width)
    return state + chunk + convolution


def _head(shape: ModelShape, tokens: int) -> float:
    return 2.0 * tokens * shape.text.hidden * shape.text.vocabulary
