"""Whether vLLM, given a clip, arrives at the prompt ids of this package's processor."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from timelens_plugins.answers import grounding_prompt
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.inference.vllm.request import encoding_problem, normalisation_problem, vllm_prompts
from timelens_plugins.inspection.findings import Finding
from timelens_plugins.inspection.made_clip import QUERY, made_clip

__all__ = ["check_vllm", "vllm_is_usable"]


def vllm_is_usable() -> bool:
    """Installed, with a GPU to run on."""
    return importlib.util.find_spec("vllm") is not None and torch.cuda.is_available()


def check_vllm(processor: InterleavedTimestampsMixin, path: str) -> Iterator[Finding]:
    """Starts vLLM on the checkpoint, generates one token, and compares prompt ids."""
    if (problem := encoding_problem(processor)) is not None:
        yield Finding("vllm", "warning", problem, "generate with transformers for this encoding")
        return
    if (problem := normalisation_problem(processor)) is not None:
        yield Finding("vllm", "broken", problem, "give both processors the values that the model was trained with")
        return
    text = grounding_prompt(QUERY, processor.prompt)
    [asked] = vllm_prompts(processor, made_clip(processor), [text])
    expected = asked.prompt.input_ids.tolist()
    found = _vllm_prompt_ids(path, asked.request)
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
