"""For ``gpu.py``: random models in the shapes of real ones, built where they run, and prompts for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from timelens_plugins.families import family_of
from timelens_plugins.families.shapes import SHAPES, ModelShape, VisionShape
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.shared_prefix.locate import vision_language_model, vision_tower

REAL = {name: SHAPES[name] for name in ("Qwen3-VL-8B", "Qwen3.5-9B")}
QUERY_TOKENS = 40  # of the question and the turns around it
_ROOM = 14 * 2**30  # bytes for activations, caches and what the allocator cannot use
_PAIR_TOKENS, _SIDE, _STAMP = 64, 16, 6  # tokens of a frame pair, patches along its side, tokens of its time


def _toy(shape: ModelShape) -> ModelShape:
    """The same kind of model in sizes for a test."""
    sizes = {"layers": 4, "hidden": 64, "intermediate": 96, "heads": 4, "kv_heads": 2, "head_dim": 16}
    if shape.text.recurrent_layers:
        sizes |= {"recurrent_layers": 3, "key_heads": 2, "value_heads": 4, "key_dim": 16, "value_dim": 16}
    tower = VisionShape(3, 32, 64, 4, 16, 64, deepstack=shape.vision.deepstack, positions=64)
    return ModelShape(shape.name, dataclasses.replace(shape.text, vocabulary=512, **sizes), tower, "toy")


TOY = {name: _toy(shape) for name, shape in REAL.items()}


def with_layers(shape: ModelShape, layers: int) -> ModelShape:
    """With fewer layers in the language model, of the kinds it had in these proportions."""
    text = shape.text
    recurrent = layers - layers * text.attention_layers // text.layers
    return dataclasses.replace(shape, text=dataclasses.replace(text, layers=layers, recurrent_layers=recurrent))


def fitting(shape: ModelShape, memory: float) -> ModelShape:
    """With as many layers as fit in ``memory`` bytes, bf16 weights and their gradients.

    Raises:
        ValueError: not even a few.
    """
    step = shape.text.layers // shape.text.attention_layers
    for layers in range(shape.text.layers, 0, -step):
        smaller = with_layers(shape, layers)
        if 2 * (smaller.parameters() + smaller.trained()) + _ROOM <= memory:
            return smaller
    raise ValueError(f"{shape.name} does not fit {memory / 2**30:.0f} GiB with its gradients, not even {step} layers")


def configuration(shape: ModelShape) -> Any:
    """A configuration of transformers' own class; what a shape does not state is the class's default."""
    from transformers import Qwen3_5Config, Qwen3VLConfig

    text, vision = shape.text, shape.vision
    recurrent = bool(text.recurrent_layers)
    linear = {
        "linear_num_key_heads": text.key_heads,
        "linear_num_value_heads": text.value_heads,
        "linear_key_head_dim": text.key_dim,
        "linear_value_head_dim": text.value_dim,
        "linear_conv_kernel_dim": text.convolution,
    }
    shallow = {"deepstack_visual_indexes": list(range(vision.deepstack))}  # the class's own are 8, 16 and 24
    return (Qwen3_5Config if recurrent else Qwen3VLConfig)(
        text_config={
            "num_hidden_layers": text.layers,
            "hidden_size": text.hidden,
            "intermediate_size": text.intermediate,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "vocab_size": text.vocabulary,
        }
        | (linear if recurrent else {}),
        vision_config={
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.intermediate,
            "num_heads": vision.heads,
            "patch_size": vision.patch,
            "out_hidden_size": vision.output,
            "num_position_embeddings": vision.positions,
        }
        | (shallow if vision.deepstack and vision.depth <= 24 else {}),
        **{
            name: text.vocabulary - i
            for i, name in enumerate(
                ("video_token_id", "image_token_id", "vision_start_token_id", "vision_end_token_id"), start=1
            )
        },
    )


def build(shape: ModelShape, device: torch.device) -> Any:
    """The model in bf16 on ``device``, made there: tower frozen, language model and mergers trained, checkpointing.

    The head is three times as large as random ones are, so that some tokens are likelier than others.
    """
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(
            configuration(shape), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    core = vision_language_model(model)
    for name, parameter in vision_tower(core).named_parameters():
        parameter.requires_grad_(family_of(core).is_merger(name))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3.0)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # by release
    enable({"use_reentrant": False})
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 0
    return model


def random_tokens(model: Any, tokens: int, seed: int) -> Tensor:
    """Text, without the special tokens at both ends of the vocabulary."""
    high = model.config.get_text_config().vocab_size - 8
    return torch.randint(1, high, (tokens,), generator=torch.Generator().manual_seed(seed))


def video_prompt(model: Any, tokens: int, device: torch.device) -> Prompt:
    """What the queries of a video share: frame pairs of 64 tokens, each after six tokens for its time."""
    config = model.config
    pairs = max(1, (tokens - QUERY_TOKENS) // (_PAIR_TOKENS + _STAMP))
    left = max(1, tokens - QUERY_TOKENS - pairs * (_PAIR_TOKENS + _STAMP))
    parts = [random_tokens(model, left, 0)]
    for i in range(pairs):
        parts += [random_tokens(model, _STAMP, i + 1), torch.full((_PAIR_TOKENS,), config.video_token_id)]
    ids = torch.cat(parts)
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator(device).manual_seed(0)
    pixels = torch.randn(pairs * _SIDE**2, patch, generator=generator, device=device, dtype=torch.bfloat16)
    inputs = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[pairs, _SIDE, _SIDE]])}
    return Prompt(ids, (ids == config.video_token_id).long() * 2, inputs)


def continued(prompt: Prompt, query: Tensor) -> Prompt:
    """A whole prompt of what is shared and a query."""
    kinds = torch.cat([prompt.mm_token_type_ids, torch.zeros_like(query)])
    return dataclasses.replace(prompt, input_ids=torch.cat([prompt.input_ids, query]), mm_token_type_ids=kinds)
