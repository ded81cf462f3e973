"""What can be set about vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["VllmSettings"]

_OURS = frozenset({"concurrency", "parity", "parity_tolerance", "on_failed_request"})


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM runs. Names that vLLM knows mean what they mean there, and None leaves them to vLLM.

    Attributes:
        tensor_parallel_size, pipeline_parallel_size: over how many GPUs layers, or groups of layers, are spread.
        gpu_memory_utilization: share of a GPU's memory.
        max_model_len: tokens of a prompt with its answer; None for as many as the model knows and the memory holds.
        enforce_eager: without compilation and CUDA graphs.
        concurrency: answers generated at the same time (vLLM's ``max_num_seqs``).
        parity: prompts that are compared with transformers before the first answer; 0 for none.
        parity_tolerance: by how much a log-prob may differ; None for what goes with the dtype, see ``parity``.
        on_failed_request: ``error`` stops at a prompt that vLLM does not take, such as one longer than
            ``max_model_len``; ``skip`` leaves its question unanswered, names and counts it.

    Raises:
        ValueError: a value out of range, by its name.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    enforce_eager: bool = False
    concurrency: int = 32
    parity: int = 2
    parity_tolerance: float | None = None
    on_failed_request: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        for name, kind, least in (
            ("tensor_parallel_size", int, 1),
            ("pipeline_parallel_size", int, 1),
            ("gpu_memory_utilization", (int, float), 0.01),
            ("max_model_len", int, 1),
            ("concurrency", int, 1),
            ("parity", int, 0),
            ("parity_tolerance", (int, float), 0.0),
        ):
            value = getattr(self, name)
            if value is None and _default(name) is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < float("inf"):
                raise ValueError(f"{name} must be a number of at least {least}, got {value!r}")
        if self.gpu_memory_utilization is not None and self.gpu_memory_utilization > 1:
            raise ValueError(f"gpu_memory_utilization must be at most 1, got {self.gpu_memory_utilization}")
        if not isinstance(self.enforce_eager, bool):
            raise ValueError(f"enforce_eager must be true or false, got {self.enforce_eager!r}")
        if self.on_failed_request not in ("error", "skip"):
            raise ValueError(f"on_failed_request must be 'error' or 'skip', got {self.on_failed_request!r}")

    @classmethod
    def names(cls) -> list[str]:
        """Of all settings, in alphabetical order."""
        return sorted(f.name for f in fields(cls))

    def passed_on(self) -> Mapping[str, Any]:
        """Arguments of ``vllm.LLM``."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OURS}
        return {name: value for name, value in given.items() if value is not None} | {"max_num_seqs": self.concurrency}


def _default(name: str) -> Any:
    return next(f.default for f in fields(VllmSettings) if f.name == name)
