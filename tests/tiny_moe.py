"""A tiny random Qwen3-VL mixture of experts: the dense one's sizes, four experts of which two answer a token."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from timelens_plugins.families.tiny import build_model, build_processor, build_tokenizer

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": []}


def save_moe(folder: Path) -> Path:
    """Write model, tokenizer and processor."""
    tokenizer = build_tokenizer()
    dense = build_model("qwen3_vl", tokenizer)
    parts = dense.config.to_dict()
    for part in ("text_config", "vision_config"):
        parts[part].pop("model_type")
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen3VLMoeConfig(
        text_config=parts["text_config"] | _EXPERTS,
        vision_config=parts["vision_config"],
        tie_word_embeddings=False,
        **{name: parts[name] for name in tokens},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3VLMoeForConditionalGeneration(config)
    model.generation_config = dense.generation_config
    model.save_pretrained(folder)
    build_processor("qwen3_vl", tokenizer).save_pretrained(folder)
    return folder
