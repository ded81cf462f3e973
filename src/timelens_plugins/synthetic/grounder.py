"""The demo's tiny Qwen3-VL: large enough to learn grounding in the synthetic world, small enough for one CPU core.

Real classes throughout; only sizes and tokenizer are its own. The processor scales every frame to 32 x 32 pixels, which
is one visual token per pair of frames: at 2 fps one token a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from timelens_plugins.answers import GROUNDING_PROMPT, format_answer
from timelens_plugins.encodings import TimeLensQwen3VLProcessor
from timelens_plugins.families.tiny import build_model, build_processor, build_tokenizer
from timelens_plugins.synthetic.shapes import COLORS, SHAPES
from timelens_plugins.synthetic.world import ACTIONS

__all__ = [
    "BASE_CHECKPOINT",
    "FRAME_SIZE",
    "TRAINED_CHECKPOINT",
    "build_grounder",
    "build_grounder_processor",
    "build_grounder_tokenizer",
]

BASE_CHECKPOINT = Path(__file__).parent / "base"
"""What ``recipes/demo/train_base.py`` teaches: it knows when things happen, but not the benchmark's way to ask."""

TRAINED_CHECKPOINT = Path(__file__).parent / "trained"
"""What the demo makes of it: it answers the benchmark's question, about coloured shapes and nothing else."""

FRAME_SIZE = 32
"""Pixels a side of a frame as the model sees it."""

_VOCABULARY = 1024


def build_grounder_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer in which each word of the world, of the official prompt and each number below 100 is one token.

    A decimal with its point is one token too: in ``<12.3 seconds>`` no other token than ``12`` means 12.
    """
    texts = ["user\nassistant\nsystem\n", "List the events.", "; ; ;"]
    for color in COLORS:
        for shape in SHAPES:
            for action in ("appears", *ACTIONS):
                texts.append(GROUNDING_PROMPT.format(query=f"a {color} {shape} {action}"))
                texts.append(GROUNDING_PROMPT.format(query=f"the {color} {shape} {action}"))
                texts.append(f" {color} {shape} {action}")
    for number in range(100):
        texts += [f"<{number}.2 seconds>", format_answer([(number, 100)])] * 3
    return build_tokenizer(texts * 3, vocab_size=_VOCABULARY, numbers=r"\.\p{N}|\p{N}{1,2}")


def build_grounder_processor(tokenizer: PreTrainedTokenizerFast | None = None) -> TimeLensQwen3VLProcessor:
    """Qwen3-VL's processor with native times, the grounder's tokenizer, and one visual token a pair of frames.

    Both the frame sampling (for clips read by this package) and the video processor's own bounds (for frames from
    elsewhere) lead to frames of 32 x 32 pixels.
    """
    parts = build_processor("qwen3_vl", tokenizer or build_grounder_tokenizer())
    pixels = 2 * FRAME_SIZE * FRAME_SIZE  # of the whole clip: the upper bound always takes the smallest frame
    parts.video_processor.size = {"shortest_edge": pixels, "longest_edge": pixels}
    return TimeLensQwen3VLProcessor(
        parts.image_processor,
        parts.tokenizer,
        parts.video_processor,
        chat_template=parts.chat_template,
        frame_sampling={"min_tokens": 1, "total_tokens": 1},
    )


def build_grounder(
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    hidden_size: int = 96,
    layers: int = 4,
    vision_hidden_size: int = 64,
    vision_depth: int = 2,
    rope_theta: float = 1000.0,
    seed: int = 0,
) -> Qwen3VLForConditionalGeneration:
    """The grounder with random weights.

    Tied embeddings are drawn larger, and what is added to the residual stream smaller, than the usual initialisation
    does: the identity of a token is then what the first steps of training see best.
    """
    model = build_model(
        "qwen3_vl",
        tokenizer or build_grounder_tokenizer(),
        hidden_size=hidden_size,
        layers=layers,
        heads=4,
        kv_heads=4,
        head_dim=32,
        vision_hidden_size=vision_hidden_size,
        vision_depth=vision_depth,
        tie_word_embeddings=True,
        rope_theta=rope_theta,
        initializer_range=0.1,
        seed=seed,
    )
    model = cast(Qwen3VLForConditionalGeneration, model)
    with torch.no_grad():
        embeddings = cast(torch.nn.Embedding, model.get_input_embeddings())
        embeddings.weight.mul_(2.0)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(0.5)
            layer.mlp.down_proj.weight.mul_(0.5)
        for merger in model.model.visual.deepstack_merger_list:  # starts as if absent
            merger.linear_fc2.weight.zero_()
            merger.linear_fc2.bias.zero_()
    return model
