"""A checkpoint for vLLM: loaded by transformers first, which says what it is and what its answers are, then by vLLM."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from timelens_plugins.encodings import InterleavedTimestampsMixin, build_messages
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.fingerprint import answer_settings, weights_of
from timelens_plugins.inference.vllm.adapters import base_of, merged_copy
from timelens_plugins.inference.vllm.parity import (
    Agreement,
    ParityError,
    agreed,
    check_parity,
    default_tolerance,
    probe_of,
)
from timelens_plugins.inference.vllm.request import encoding_problem, normalisation_problem
from timelens_plugins.inference.vllm.settings import VllmSettings
from timelens_plugins.inference.vllm.starting import VllmError, start_llm, vllm_version
from timelens_plugins.upstream import check
from timelens_plugins.upstream.vllm import ENGINE, PROMPT_IDS, SUPPORTED
from timelens_plugins.video import VideoClip

__all__ = ["VllmError", "VllmModel", "mark"]

logger = logging.getLogger(__name__)


class VllmModel:
    """A checkpoint that vLLM loads when it is first needed. Several engines may ask it.

    Args:
        path, revision: of the checkpoint or adapter, as :func:`~timelens_plugins.families.load.load_model`.
        processor: of the checkpoint.
        settings: of vLLM.
        dtype: of the weights; ``auto`` for the checkpoint's.

    Raises:
        ValueError: vLLM would not compute what transformers does, with the reason.
        VllmError: several processes, each of which would start a vLLM of its own.
    """

    def __init__(
        self,
        path: str,
        processor: InterleavedTimestampsMixin,
        settings: VllmSettings,
        *,
        dtype: str = "auto",
        revision: str = "main",
    ) -> None:
        if (problem := encoding_problem(processor) or normalisation_problem(processor)) is not None:
            raise ValueError(f"{path}: {problem}")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise VllmError(
                "engine=vllm runs in one process and spreads a model over GPUs by itself (tensor_parallel_size=); "
                "start it without accelerate or torchrun"
            )
        self.path, self.revision, self.processor, self.settings = path, revision, processor, settings
        self.parity: list[Agreement] = []
        """What the comparison with transformers found."""
        self._dtype = dtype
        base, base_revision = base_of(path, revision) or (path, revision)
        self._config = AutoConfig.from_pretrained(base, revision=base_revision)
        self.generation_config = _generation_config(base, base_revision, self._config)
        """The checkpoint's own: end-of-sequence tokens and penalties."""
        self._model: Any = None
        self._llm: Any = None
        self._merged: TemporaryDirectory[str] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in transformers and in vLLM."""
        if self._dtype != "auto":
            return getattr(torch, self._dtype)
        dtype = self._config.dtype or torch.float32
        return dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)

    def in_transformers(self) -> Any:
        """The model, loaded by transformers; given up when vLLM starts."""
        if self._model is None:
            logger.info("%s: loaded by transformers first, to be told apart and compared with", self.path)
            self._model, _ = load_model(
                self.path,
                processor=self.processor,
                dtype=self.dtype,
                device_map="auto" if torch.cuda.is_available() else None,
                revision=self.revision,
            )
        return self._model

    def identity(self) -> dict[str, Any]:
        """All that greedy answers depend on besides the question, as JSON types; every weight is read."""
        model = self.in_transformers()
        return {"weights": weights_of(model).exact, **answer_settings(model, self.processor), **mark()}

    def start(self, first: Sequence[tuple[str, VideoClip, str, str | None]]) -> Any:
        """The running ``vllm.LLM``; when it is started, after a comparison with transformers.

        Args:
            first: questions to compare by: a name, the clip, the text, a system prompt.

        Raises:
            VllmError: vLLM cannot load the checkpoint.
            UpstreamChangedError: a release of vLLM that lacks what is relied on.
            ParityError: it does not compute what transformers does.
        """
        if self._llm is not None:
            return self._llm
        probes = []
        if self.settings.parity:
            model = self.in_transformers()
            probes = [
                probe_of(
                    model,
                    self.processor,
                    name,
                    clip,
                    build_messages(clip, "", self.processor.encoding, question=text, system=system),
                )
                for name, clip, text, system in first[: self.settings.parity]
            ]
        else:
            logger.warning("parity=0: nobody knows whether vLLM computes what transformers does")
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._llm = self._load()
        tolerance = self.settings.parity_tolerance
        tolerance = default_tolerance(self.dtype) if tolerance is None else tolerance
        try:
            most = self._llm.model_config.max_model_len
            fitting = [probe for probe in probes if len(probe.expected) < most]
            if probes and not fitting:
                raise VllmError(
                    f"none of the first {len(probes)} prompts fits in max_model_len={most}, so that nothing can be "
                    f"compared (the first has {len(probes[0].expected)} tokens): show less of the videos "
                    "(total_tokens, max_frames), or raise max_model_len"
                )
            self.parity = check_parity(self._llm, fitting, tolerance)
        except (ParityError, VllmError) as error:
            self.close()
            raise type(error)(f"{self.path}: {error}") from error
        if probes:
            print(f"{self.path}: {agreed(self.parity, tolerance, self.dtype)}", flush=True)
        return self._llm

    def close(self) -> None:
        """Give back memory and what was written."""
        self._model = self._llm = None
        if self._merged is not None:
            self._merged.cleanup()
            self._merged = None
        gc.collect()

    def _load(self) -> Any:
        check("vllm", SUPPORTED, PROMPT_IDS + ENGINE)
        path, revision = self.path, self.revision
        if base_of(path, revision) is not None:
            self._merged = merged_copy(path, revision, self.processor, self.dtype)
            path, revision = self._merged.name, "main"
        # Without max_model_len: as many tokens as fit.
        settings = {"max_model_len": -1, **self.settings.passed_on(), "revision": revision}
        try:
            return start_llm(path, self.processor, self.dtype, settings, name=self.path)
        except VllmError:
            self.close()
            raise


def mark() -> dict[str, Any]:
    """What sets the settings of answers apart from those of transformers' answers by the same model."""
    return {"engine": "vllm", "vllm": vllm_version(), "attention": None}


def _generation_config(path: str, revision: str, config: Any) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:  # a checkpoint without one
        return GenerationConfig.from_model_config(config)
