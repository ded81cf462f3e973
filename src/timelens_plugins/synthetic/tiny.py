"""Tiny Qwen3-VL and Qwen2.5-VL checkpoints, built from configs and a tokenizer trained on the spot.

The classes, processors, special tokens and chat layout are the real ones; only the sizes are small and the weights
random. A checkpoint saved here loads through ``AutoModelForImageTextToText`` and ``AutoProcessor``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

__all__ = ["Family", "build_model", "build_processor", "build_tokenizer", "save_checkpoint"]

Family = Literal["qwen3_vl", "qwen2_5_vl"]

_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Letters in runs, numbers as the caller says, punctuation in runs: how text is cut before the merges.
_PRE_TOKENS = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# One turn per message, ChatML; a video or image part becomes a placeholder between vision markers, as upstream.
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'video' or 'video' in part %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'image' or 'image' in part %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part %}{{ part['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


def build_tokenizer(
    corpus: list[str] | None = None, vocab_size: int = 700, numbers: str = r"\p{N}"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens; any text round-trips.

    Args:
        corpus: texts to learn merges from; by default sentences of the benchmark's prompt and answer.
        vocab_size: upper bound on the number of tokens, special ones included.
        numbers: pattern of what a token may hold of a number; by default one digit, as in Qwen's tokenizers.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRE_TOKENS % numbers), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus or _default_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in _SPECIAL_TOKENS if t not in ("<|im_end|>", "<|endoftext|>")],
        padding_side="left",
    )


def _default_corpus() -> list[str]:
    from timelens_plugins.answers import GROUNDING_PROMPT, format_answer

    texts = [
        "user\nassistant\nsystem\n",
        "<3.5 seconds> 12.0s: ",
        GROUNDING_PROMPT.format(query="a red circle appears"),
    ]
    for color in ("red", "green", "blue", "yellow", "purple", "white", "orange", "black"):
        for shape in ("circle", "square", "triangle", "cross", "ring"):
            texts.append(GROUNDING_PROMPT.format(query=f"a {color} {shape} appears, moves and disappears"))
            texts.append(format_answer([(3.5, 12.0)]))
    return texts * 20


def build_processor(family: Family, tokenizer: PreTrainedTokenizerFast | None = None) -> ProcessorMixin:
    """The family's own processor class over the tiny tokenizer, with small pixel limits."""
    tokenizer = tokenizer or build_tokenizer()
    _check(family)
    if family == "qwen3_vl":
        return Qwen3VLProcessor(
            Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128}),
            tokenizer,
            Qwen3VLVideoProcessor(size={"shortest_edge": 2 * 32 * 32, "longest_edge": 64 * 64 * 96}, min_frames=2),
            chat_template=_CHAT_TEMPLATE,
        )
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=14, size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=14, size={"shortest_edge": 2 * 28 * 28, "longest_edge": 64 * 56 * 84}),
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(
    family: Family,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    intermediate_size: int | None = None,
    vision_hidden_size: int = 32,
    vision_depth: int = 2,
    tie_word_embeddings: bool = False,
    rope_theta: float = 1e4,
    initializer_range: float = 0.08,
    logit_scale: float = 4.0,
    seed: int = 0,
) -> PreTrainedModel:
    """A random model of the family's real class.

    Args:
        logit_scale: factor on the output head. Random weights give nearly uniform logits; a factor above 1 makes
            greedy answers depend on the input, which tests of information flow need. Ignored with tied embeddings.
        seed: of the weights; the global torch generator is left as it was.
    """
    tokenizer = tokenizer or build_tokenizer()
    _check(family)
    token = tokenizer.convert_tokens_to_ids
    half = head_dim // 2
    text: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 8) * 8,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size or 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 65536,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": initializer_range,
        "tie_word_embeddings": tie_word_embeddings,
    }
    rope = {
        "rope_type": "default",
        "rope_theta": rope_theta,
        "mrope_section": [half - 2 * (half // 4), half // 4, half // 4],
    }
    vision: dict[str, Any] = {
        "depth": vision_depth,
        "hidden_size": vision_hidden_size,
        "intermediate_size": 2 * vision_hidden_size,
        "num_heads": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": hidden_size,
        "initializer_range": initializer_range,
    }
    common: dict[str, Any] = {
        "tie_word_embeddings": tie_word_embeddings,
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if family == "qwen3_vl":
            text |= {"head_dim": head_dim, "rope_parameters": rope | {"mrope_interleaved": True}}
            vision |= {
                "patch_size": 16,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": list(range(min(vision_depth, layers))),
            }
            model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **common))
        else:
            if hidden_size != heads * head_dim:
                raise ValueError(
                    f"Qwen2.5-VL needs hidden_size == heads * head_dim, got {hidden_size}, {heads}, {head_dim}"
                )
            text |= {"rope_parameters": rope}
            vision |= {
                "patch_size": 14,
                "tokens_per_second": 2,
                "window_size": 56,
                "fullatt_block_indexes": [vision_depth - 1],
            }
            model = Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common)
            )
    if not tie_word_embeddings:
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(logit_scale)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def save_checkpoint(folder: str | Path, family: Family, **model_options: Any) -> Path:
    """Write model, tokenizer and processor of a tiny random checkpoint; options as :func:`build_model`."""
    folder = Path(folder)
    tokenizer = build_tokenizer()
    build_model(family, tokenizer, **model_options).save_pretrained(folder)
    build_processor(family, tokenizer).save_pretrained(folder)
    return folder


def _check(family: str) -> None:
    if family not in get_args(Family):
        raise ValueError(f"unknown model family {family!r}; known: {', '.join(get_args(Family))}")
