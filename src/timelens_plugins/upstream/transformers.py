"""Every private name of transformers relied on. Supported: 5.16 to 5.24."""

from __future__ import annotations

import functools

from timelens_plugins.upstream import Name, check

__all__ = [
    "ADAPTERS",
    "FAMILIES",
    "GENERATION",
    "LINEAR_ATTENTION",
    "PROCESSORS",
    "RESUMING",
    "SAVING",
    "SUPPORTED",
    "check_generation",
    "check_processors",
]

SUPPORTED = "5.16 to 5.24"

PROCESSORS = (
    Name("transformers.processing_utils:ProcessorMixin._process_videos", ("self", "videos")),
    Name(
        "transformers.processing_utils:ProcessorMixin.get_text_with_replacements",
        ("self", "text", "images_replacements", "videos_replacements"),
    ),
    Name("transformers.processing_utils:ProcessorMixin.replace_video_token", ("self", "video_inputs", "video_idx")),
    Name("transformers.models.auto.processing_auto:PROCESSOR_MAPPING_NAMES"),
)
"""Overridden by the processor mixin, ``encodings/mixin.py``, or read by ``encodings/processors.py``."""

GENERATION = (
    Name("transformers.modeling_utils:ALL_ATTENTION_FUNCTIONS"),
    Name("transformers.cache_utils:CacheLayerMixin.get_mask_sizes", ("self", "query_length")),
    Name("transformers.cache_utils:CacheLayerMixin.lazy_initialization", ("self", "key_states", "value_states")),
    Name("transformers.cache_utils:DynamicLayer.update", ("self", "key_states", "value_states")),
    Name("transformers.cache_utils:LinearAttentionLayer.update_conv_state", ("self", "conv_states")),
    Name("transformers.cache_utils:LinearAttentionLayer.update_recurrent_state", ("self", "recurrent_states")),
    Name("transformers.generation.utils:GenerationMixin._prefill", line="next_sequence_length"),
    Name("transformers.vision_utils:get_vision_window_index"),
)
"""Wrapped, subclassed or leaned on by ``shared_prefix/``."""

_ATTENTION = "ALL_ATTENTION_FUNCTIONS.get_interface("

FAMILIES = tuple(
    name
    for module, prefix in (
        ("transformers.models.qwen3_vl.modeling_qwen3_vl", "Qwen3VL"),
        ("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "Qwen2_5_VL"),
    )
    for name in (
        Name(f"{module}:{prefix}Model.get_rope_index", ("self", "input_ids", "mm_token_type_ids")),
        Name(f"{module}:{prefix}Model.get_image_features", ("self", "pixel_values", "image_grid_thw")),
        Name(f"{module}:{prefix}Model.get_video_features", ("self", "pixel_values_videos", "video_grid_thw")),
        Name(f"{module}:{prefix}Model.forward", line="pooler_output"),
        Name(f"{module}:{prefix}VisionAttention.forward", line=_ATTENTION),
        Name(f"{module}:{'Qwen3VLText' if prefix == 'Qwen3VL' else prefix}Attention.forward", line=_ATTENTION),
    )
)
"""What a model family is expected to have: wrapped by ``shared_prefix/`` and ``encodings/positions.py``."""

LINEAR_ATTENTION = tuple(
    name
    for module, prefix in (
        ("transformers.models.qwen3_5.modeling_qwen3_5", "Qwen3_5"),
        ("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe", "Qwen3_5Moe"),
    )
    for name in (
        Name(f"{module}:causal_conv1d_fn", ("hidden_states", "weight")),
        Name(f"{module}:torch_chunk_gated_delta_rule", ("query", "key", "value", "g", "beta")),
        Name(f"{module}:{prefix}DecoderLayer.__init__", line="self.linear_attn = "),
        Name(f"{module}:{prefix}GatedDeltaNet.forward", line="mixed_qkv = causal_conv1d_fn("),
        Name(f"{module}:{prefix}GatedDeltaNet.forward", line="last_recurrent_state = torch_chunk_gated_delta_rule("),
    )
)
"""Wrapped by ``shared_prefix/recurrence.py`` in the modules of Qwen3.5."""

SAVING = (
    Name(
        "transformers.core_model_loading:revert_weight_conversion", line='getattr(model, "_weight_conversions", None)'
    ),
    Name("transformers.core_model_loading:WeightRenaming.was_used", ("self",)),
)
"""What a model loaded in shards is saved by, ``training/sharding.py``."""

RESUMING = (
    Name("transformers.trainer:Trainer._load_from_checkpoint", ("self", "resume_from_checkpoint", "model")),
    Name("transformers.trainer:Trainer._load_best_model", ("self",)),
    Name("transformers.trainer:Trainer._load_optimizer_and_scheduler", ("self", "checkpoint")),
)
"""Overridden by ``training/resumed_weights.py``."""

ADAPTERS = (
    Name("transformers.integrations.peft:PeftAdapterMixin.load_adapter", line="self._hf_peft_config_loaded = True"),
)
"""Read by ``training/parts.py``."""


@functools.cache
def check_processors() -> None:
    """Raises UpstreamChangedError where the processor mixin would not be called as it expects."""
    check("transformers", SUPPORTED, PROCESSORS)


@functools.cache
def check_generation() -> None:
    """Raises UpstreamChangedError where shared prefixes would not be computed as they should."""
    check("transformers", SUPPORTED, GENERATION)
