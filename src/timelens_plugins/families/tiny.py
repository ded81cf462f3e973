"""Tiny checkpoints of all model families, built from configs and a tokenizer trained on the spot.

The classes, processors, special tokens and chat layout are the real ones; only the sizes are small and the weights
random. A checkpoint saved here loads through ``AutoModelForImageTextToText`` and ``AutoProcessor``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

__all__ = ["Family", "build_model", "build_processor", "build_tokenizer", "save_checkpoint"]

Family = Literal["qwen3_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "glm46v", "glm4v"]

_GLM = ("glm46v", "glm4v")
"""Model types of GLM-4.6V: its own class's, and the one that it has in common with GLM-4.1V."""

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

_GLM_TOKENS = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
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

# As GLM's: no token ends a turn, the next one's begins; and a model that is not to think is told so in two places.
_GLM_CHAT_TEMPLATE = """\
[gMASK]<sop>
{%- set quick = enable_thinking is defined and not enable_thinking %}
{%- for message in messages -%}
<|{{ message['role'] }}|>
{% if message['role'] == 'assistant' %}<think></think>
{% endif %}
{%- if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'video' %}{{ '<|begin_of_video|><|video|><|end_of_video|>' }}
{%- elif part['type'] == 'image' %}{{ '<|begin_of_image|><|image|><|end_of_image|>' }}
{%- elif 'text' in part %}{{ part['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}
{%- if message['role'] == 'user' and quick %}{{ '/nothink' }}{% endif %}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{{ '\\n<think></think>' if quick else '' }}{% endif -%}"""


def build_tokenizer(
    corpus: list[str] | None = None, vocab_size: int = 700, numbers: str = r"\p{N}", family: Family = "qwen3_vl"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the family's special tokens, by default Qwen's; any text round-trips.

    Args:
        corpus: texts to learn merges from; by default sentences of the benchmark's prompt and answer.
        vocab_size: upper bound on the number of tokens, special ones included.
        numbers: pattern of what a token may hold of a number; by default one digit, as in Qwen's tokenizers.
        family: whose special tokens.
    """
    special = _GLM_TOKENS if family in _GLM else _SPECIAL_TOKENS
    end = "<|endoftext|>" if family in _GLM else "<|im_end|>"
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
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus or _default_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in special if t not in (end, "<|endoftext|>")],
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
    _check(family)
    tokenizer = tokenizer or build_tokenizer(family=family)
    if family in _GLM:
        return Glm46VProcessor(
            Glm46VImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}),
            tokenizer,
            Glm46VVideoProcessor(size={"shortest_edge": 2 * 28 * 28, "longest_edge": 64 * 56 * 84}),
            chat_template=_GLM_CHAT_TEMPLATE,
        )
    if family != "qwen2_5_vl":
        return Qwen3VLProcessor(
            Qwen2VLImageProcessor(
                patch_size=16,
                size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128},
                image_mean=[0.5] * 3,  # as the family's video processor; the class has CLIP's values, as Qwen2.5-VL has
                image_std=[0.5] * 3,
            ),
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
    _check(family)
    tokenizer = tokenizer or build_tokenizer(family=family)
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
        elif family in ("qwen3_5", "qwen3_5_moe"):
            text |= {
                "head_dim": head_dim,
                # A quarter of each head is rotated upstream; so few dimensions need the whole head here.
                "rope_parameters": rope | {"mrope_interleaved": True, "partial_rotary_factor": 1.0},
                "linear_key_head_dim": head_dim,
                "linear_value_head_dim": head_dim,
                "linear_num_key_heads": kv_heads,
                "linear_num_value_heads": heads,
                "layer_types": ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(layers - 1)]
                + ["full_attention"],
            }
            vision |= {"patch_size": 16, "num_position_embeddings": 64}
            if family == "qwen3_5":
                model = Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=text, vision_config=vision, **common))
            else:
                del text["intermediate_size"]
                text |= {
                    "num_experts": 4,
                    "num_experts_per_tok": 2,
                    "moe_intermediate_size": hidden_size,
                    "shared_expert_intermediate_size": hidden_size,
                }
                model = Qwen3_5MoeForConditionalGeneration(
                    Qwen3_5MoeConfig(text_config=text, vision_config=vision, **common)
                )
        elif family in _GLM:
            text |= {"rope_parameters": rope}
            vision |= {"patch_size": 14, "image_size": 112}
            ends = {f"{kind}_{end}_token_id": token(f"<|{name}_of_{kind}|>")
                    for kind in ("image", "video") for end, name in (("start", "begin"), ("end", "end"))}  # fmt: skip
            options: dict[str, Any] = {
                "text_config": {"model_type": "glm4v_text"} | text,
                "vision_config": {"model_type": "glm4v_vision"} | vision,
                "tie_word_embeddings": tie_word_embeddings,
                "image_token_id": token("<|image|>"),
                "video_token_id": token("<|video|>"),
                **ends,
            }
            if family == "glm46v":
                model = Glm46VForConditionalGeneration(Glm46VConfig(**options))
            else:
                model = Glm4vForConditionalGeneration(Glm4vConfig(**options))
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
    others = ("<|user|>", "<|observation|>") if family in _GLM else (tokenizer.pad_token,)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *map(token, others)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def save_checkpoint(folder: str | Path, family: Family, **model_options: Any) -> Path:
    """Write model, tokenizer and processor of a tiny random checkpoint; options as :func:`build_model`.

    Raises:
        RuntimeError: no weights were written.
    """
    folder = Path(folder)
    tokenizer = build_tokenizer(family=family)
    model = build_model(family, tokenizer, **model_options)
    # In a process group transformers writes weights and config on the first process alone, and says nothing on others.
    model.should_save_on_this_rank = lambda is_main_process: True  # type: ignore[method-assign]
    model.save_pretrained(folder)
    if not (folder / "model.safetensors").is_file():
        raise RuntimeError(f"{folder}: this release of transformers wrote no weights on this process of a group")
    build_processor(family, tokenizer).save_pretrained(folder)
    return folder


def _check(family: str) -> None:
    if family not in get_args(Family):
        raise ValueError(f"unknown model family {family!r}; known: {', '.join(get_args(Family))}")
