"""Tells models and processors apart by all that answers depend on, where a path says nothing.

What is told apart is what was loaded, and not files: a folder may be trained again, edited or replaced, an adapter
points to another folder, and a hub name to a snapshot. All values are read, so nothing is taken for unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import transformers
from torch import Tensor

import timelens_plugins
from timelens_plugins.encodings import InterleavedTimestampsMixin

__all__ = [
    "Weights",
    "answer_settings",
    "digest_of",
    "fingerprint",
    "processor_settings",
    "thought_settings",
    "weights_of",
]

_THREADS = 4

_NOT_COMPARED = frozenset(
    {
        "transformers_version",
        "dtype",
        "torch_dtype",
        "architectures",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "peft_version",
        "processor_class",
        "auto_map",
    }
)
"""Entries of configurations that say where something came from, or what is told apart by itself; so do private ones."""


@dataclass(frozen=True)
class Weights:
    """Digests of all parameters and saved buffers: names, shapes and values.

    Attributes:
        exact: of the values as they were loaded.
        rounded: of the values in bfloat16: estimating in bfloat16 and training with float32 master weights is still the
            same checkpoint. Loaded in float16, whose rounding is another, it passes for a different one.
    """

    exact: str
    rounded: str


def weights_of(model: torch.nn.Module, leave_out: Sequence[str] = ()) -> Weights:
    """Read every value of a model, about a second for each GB and thread; four threads share the work.

    Args:
        model: with whole parameters; where some are offloaded, they are brought back a module at a time.
        leave_out: parts of names, whose tensors do not count.
    """

    def digests(item: tuple[str, Tensor]) -> tuple[bytes, bytes]:
        name, tensor = item
        values = tensor.detach().cpu().contiguous()
        label = f"{name}{tuple(values.shape)}".encode()
        exact = _digest(f"{values.dtype}".encode() + label, values)
        if not values.is_floating_point() or values.dtype == torch.bfloat16:
            return exact, _digest(label, values) if values.is_floating_point() else exact
        return exact, _digest(label, values.to(torch.bfloat16))

    exact, rounded = (hashlib.blake2b(digest_size=8) for _ in range(2))
    waiting: deque[Future[tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="digest") as pool:
        for item in chain(_tensors(model), [None] * _THREADS):
            if item is not None and any(part in item[0] for part in leave_out):
                continue
            if item is not None:
                waiting.append(pool.submit(digests, item))
            if waiting and (item is None or len(waiting) > _THREADS):  # few at once: they are copies of weights
                one, other = waiting.popleft().result()
                exact.update(one)
                rounded.update(other)
    return Weights(exact.hexdigest(), rounded.hexdigest())


def fingerprint(model: torch.nn.Module) -> str:
    """The ``rounded`` digest of :func:`weights_of`: what a training run and estimates made for it have in common."""
    return weights_of(model).rounded


def answer_settings(model: Any, processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """All that greedy answers of a model depend on besides the question, as JSON types; without the weights.

    Digests stand for what is long: config, adapters, chat template, tokenizer, image and video processor.
    """
    own = getattr(model, "generation_config", None)
    adapters = {name: config.to_dict() for name, config in (getattr(model, "peft_config", None) or {}).items()}
    return {
        "config": digest_of(model.config.to_dict()),
        "adapters": digest_of(adapters) if adapters else None,
        "generation_config": _compared(own.to_diff_dict()) if own is not None else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": getattr(model.config, "_attn_implementation", None),
        **processor_settings(processor),
        **thought_settings(processor),
        "software": f"timelens-plugins {timelens_plugins.__version__}, transformers {transformers.__version__}",
    }


def processor_settings(processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """All that makes prompts out of clips and texts, as JSON types."""
    return {
        "chat_template": digest_of(processor.chat_template),
        "tokenizer": _tokenizer(processor.tokenizer),
        "image_processor": digest_of(processor.image_processor.to_dict()),
        "video_processor": digest_of(processor.video_processor.to_dict()),
        "encoding": processor.encoding,
        "timestamp_format": processor.timestamp_format,
        "thinking": processor.thinking,
        **processor.frame_sampling.to_dict(),
    }


def thought_settings(processor: InterleavedTimestampsMixin) -> dict[str, str]:
    """What a prompt opens of an answer, where it does: the answers' texts begin with it.

    It was left out of them once, and one cut off in its thought was read; those are not taken for answers again.
    """
    opened = processor.opened_thought
    return {"opened_thought": opened} if opened else {}


def digest_of(content: Any) -> str:
    """Of JSON types, and of what configurations hold besides; entries that only say where they came from left out."""
    text = json.dumps(_compared(content), sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers in the order of their names, those that are not here brought one module at a time.

    Offloaded ones come back; shards of DeepSpeed's ZeRO-3 are gathered, for which all processes have to ask.
    """
    for path, module in sorted(model.named_modules()):
        saved = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
        own = {k: v for k, v in sorted({**module._parameters, **saved}.items()) if v is not None}
        if any(value.device.type == "meta" for value in own.values()):
            from accelerate.utils import align_module_device

            with align_module_device(module, "cpu"):
                yield from [(f"{path}.{name}", getattr(module, name).detach().clone()) for name in own]
        elif any(hasattr(value, "ds_id") for value in own.values()):
            import deepspeed

            with deepspeed.zero.GatheredParameters(list(own.values())):
                whole = [(f"{path}.{name}", value.detach().clone()) for name, value in own.items()]
            yield from whole
        else:
            yield from ((f"{path}.{name}", value) for name, value in own.items())


def _digest(label: bytes, values: Tensor) -> bytes:
    digest = hashlib.blake2b(label, digest_size=16)
    if values.numel():
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _tokenizer(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_of([tokenizer.get_vocab(), tokenizer.special_tokens_map])
    content = json.loads(backend.to_str())
    # What the last call set is no property of the tokenizer. Words of a vocabulary are no settings: all of them count.
    text = json.dumps({k: v for k, v in content.items() if k not in ("padding", "truncation")}, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _compared(content: Any) -> Any:
    if isinstance(content, Mapping):
        kept = {str(k): v for k, v in content.items() if str(k) not in _NOT_COMPARED and str(k)[:1] != "_"}
        return {k: _compared(v) for k, v in kept.items()}
    if isinstance(content, list | tuple):
        return [_compared(item) for item in content]
    return content


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
