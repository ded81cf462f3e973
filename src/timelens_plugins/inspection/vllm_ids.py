"""Whether vLLM, given a clip, arrives at the prompt ids of this package's processor.

vLLM expands placeholders by itself, so it is given unexpanded ids, frames at their final size and
``do_sample_frames=False``; the ids it reports back show what the model really read.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from timelens_plugins.inspection.findings import Finding
from timelens_plugins.inspection.made_clip import QUERY, made_clip
from timelens_plugins.timestamps import InterleavedTimestampsMixin
from timelens_plugins.video import VideoClip

__all__ = ["check_vllm", "vllm_is_usable", "vllm_request"]


def vllm_is_usable() -> bool:
    """Installed, with a GPU to run on."""
    return importlib.util.find_spec("vllm") is not None and torch.cuda.is_available()


def vllm_request(
    processor: InterleavedTimestampsMixin, clip: VideoClip, query: str
) -> tuple[dict[str, Any], list[int]]:
    """What to pass to ``LLM.generate`` for a question about a clip, and the prompt ids to expect back.

    Raises:
        ValueError: vLLM cannot produce this encoding: it always writes Qwen3-VL's own time markers.
    """
    messages = processor.grounding_messages(clip, query)
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[prompt], videos=[clip], return_tensors="pt")
    expected: list[int] = inputs["input_ids"][0].tolist()
    if "image_grid_thw" in inputs:
        step = processor.video_processor.temporal_patch_size
        pictures = [frame.permute(1, 2, 0).numpy() for frame in clip.frames[::step]]
        pad = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        ids = [i for i, run in itertools.groupby(expected) for i in ([i] if i == pad else run)]
        return {"prompt_token_ids": ids, "multi_modal_data": {"image": pictures}}, expected
    if processor.encoding != "native" and "second_per_grid_ts" not in inputs:
        raise ValueError(
            f"vLLM writes Qwen3-VL's own time markers, which encoding {processor.encoding!r} must not have"
        )
    pad = processor.tokenizer.convert_tokens_to_ids(processor.video_token)
    ids = processor.tokenizer(prompt)["input_ids"]
    if processor.encoding == "text_prefix":
        ids = [i for i, run in itertools.groupby(expected) for i in ([i] if i == pad else run)]
    frames = processor.drawn_frames(clip.frames, clip.times.tolist()).permute(0, 2, 3, 1).numpy()
    request = {
        "prompt_token_ids": ids,
        "multi_modal_data": {"video": [(frames, dict(clip.metadata()))]},
        "mm_processor_kwargs": {"do_sample_frames": False},
    }
    return request, expected


def check_vllm(processor: InterleavedTimestampsMixin, path: str) -> Iterator[Finding]:
    """Starts vLLM on the checkpoint, generates one token, and compares prompt ids."""
    try:
        request, expected = vllm_request(processor, made_clip(processor), QUERY)
    except ValueError as error:
        yield Finding("vllm", "warning", str(error), "generate with transformers for this encoding")
        return
    found = _vllm_prompt_ids(path, request)
    if found == expected:
        yield Finding("vllm", "ok", f"vLLM reads the same {len(found)} prompt ids")
        return
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, expected, strict=False)))
    theirs, ours = (processor.tokenizer.decode(ids[same : same + 8]) for ids in (found, expected))
    yield Finding(
        "vllm",
        "broken",
        f"vLLM reads {len(found)} prompt ids, the processor writes {len(expected)}; the first {same} agree, then vLLM "
        f"has {theirs!r} and the processor {ours!r}",
        "generate with transformers, or install a vLLM whose processor agrees",
    )


def _vllm_prompt_ids(path: str, request: dict[str, Any]) -> list[int]:
    vllm: Any = importlib.import_module("vllm")
    kinds = {kind: len(items) for kind, items in request["multi_modal_data"].items()}
    llm = vllm.LLM(model=path, max_model_len=4096, limit_mm_per_prompt=kinds, enforce_eager=True)
    outputs = llm.generate(request, vllm.SamplingParams(max_tokens=1, temperature=0))
    return list(outputs[0].prompt_token_ids)
