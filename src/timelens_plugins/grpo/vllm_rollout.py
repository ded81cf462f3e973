"""Rollouts by vLLM in the training process, which has the trainer's weights, our frames and our prompt ids.

TRL's own way to vLLM carries no videos. What is TRL's: when weights are given on (before a rollout, if there was a step
since the last), and what is done with the log-probs that vLLM sampled by (``vllm_importance_sampling_correction``).
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib.util
import os
import random
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn

from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.groups import Group
from timelens_plugins.grpo.rollout import whole_model
from timelens_plugins.inference.engines import EngineNotInstalledError
from timelens_plugins.inference.vllm.parity import ParityError, agreed, check_parity, default_tolerance, probe_of
from timelens_plugins.inference.vllm.request import (
    VllmPrompt,
    encoding_problem,
    normalisation_problem,
    vllm_prompt,
)
from timelens_plugins.inference.vllm.starting import VllmError, start_llm
from timelens_plugins.upstream import check
from timelens_plugins.upstream.vllm import PROMPT_IDS, SUPPORTED, WEIGHTS

__all__ = ["VllmRollout", "check_vllm_installed", "named_weights", "without_own_vllm"]

_FORMAT = "timelens"
_INSTEAD = "use_vllm=False"
_PROBES = 2
_SUPPRESSED = -100.0  # added to logits, the least that vLLM takes


def check_vllm_installed() -> None:
    """For the start of a run with ``use_vllm=True``, before a model is loaded.

    Raises:
        EngineNotInstalledError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise EngineNotInstalledError(
            "use_vllm=True: vLLM is not installed. Its build goes with the GPU, so install it by itself "
            f"(docs/engines.md), or set {_INSTEAD}"
        )


@contextlib.contextmanager
def without_own_vllm(args: TimeLensGRPOConfig) -> Iterator[None]:
    """While TRL's trainer is made, so that it starts no vLLM of its own, which would be shown no videos."""
    use_vllm, args.use_vllm = args.use_vllm, False
    try:
        yield
    finally:
        args.use_vllm = use_vllm


class VllmRollout:
    """A vLLM in each training process, in the place of TRL's: the trainer's ``vllm_generation``.

    Args:
        trainer: a :class:`~timelens_plugins.grpo.trainer.TimeLensGRPOTrainer`.
        dtype: in which vLLM holds the weights and computes.

    Raises:
        EngineNotInstalledError: vLLM is not installed.
        UpstreamChangedError: a release of vLLM that lacks what is relied on.
        ValueError: vLLM would not compute what the trainer does, or cannot do what is asked, with the reason.
    """

    def __init__(self, trainer: Any, dtype: torch.dtype) -> None:
        check_vllm_installed()
        check("vllm", SUPPORTED, PROMPT_IDS + WEIGHTS)
        processor = trainer.processing_class
        if (problem := encoding_problem(processor, _INSTEAD) or normalisation_problem(processor, _INSTEAD)) is not None:
            raise ValueError(f"use_vllm=True: {problem}")
        self._device: torch.device = trainer.accelerator.device
        if trainer.args.vllm_enable_sleep_mode and self._device.type != "cuda":
            raise ValueError(
                "vllm_enable_sleep_mode=True does not work here: vLLM gives up the memory of a GPU alone. Set "
                "vllm_enable_sleep_mode=False"
            )
        self._trainer, self._dtype = trainer, dtype
        self._llm: Any = None
        self._folder: TemporaryDirectory[str] | None = None
        self._asleep: set[str] = set()

    def sync_weights(self) -> None:
        """Give vLLM the weights and let go of what it computed by others; the first time, start it."""
        trainer = self._trainer
        with whole_model(trainer.model_wrapped, trainer.accelerator) as model, self._apart(), torch.no_grad():
            if self._llm is None:
                self._llm = self._start(model)
                return
            self._wake("weights")
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named_weights(model)})
        if not self._llm.reset_prefix_cache():
            raise VllmError("vLLM keeps prompts computed by earlier weights, as it is at work on requests")
        self._llm.llm_engine.reset_encoder_cache()

    def complete(
        self, groups: Sequence[Group], completions: int, seeds: Sequence[int]
    ) -> tuple[list[list[Tensor]], list[list[list[float]]]]:
        """Sampled continuations of prompts, and the log-probs they were sampled by.

        Args:
            groups: with their clips.
            completions: of each prompt.
            seeds: one for each prompt.

        Returns:
            For each prompt its completions: token ids of shape ``(n,)``, end-of-sequence token included; and for each
            token its log-prob under all that was set (temperature, top_p, …).

        Raises:
            VllmError: a prompt that does not fit, or that vLLM does not take.
            ParityError: vLLM read other prompt ids.
        """
        import vllm

        if not groups:
            return [], []
        self._wake("kv_cache")
        asked = [self._prompt(group) for group in groups]
        settings = self._sampling(completions)
        try:
            sampling = [vllm.SamplingParams(**settings, seed=seed >> 1) for seed in seeds]  # vLLM counts up from it
            with self._apart():
                outputs = self._llm.generate([dict(one.request) for one in asked], sampling, use_tqdm=False)
        except Exception as error:  # vLLM raises many kinds; whichever it is, it is raised again, named
            raise VllmError(f"vLLM: {type(error).__name__}: {error}. Set {_INSTEAD}, or mend what it says") from error
        tokens: list[list[Tensor]] = []
        log_probs: list[list[list[float]]] = []
        for group, one, output in zip(groups, asked, outputs, strict=True):
            if list(output.prompt_token_ids) != one.prompt.input_ids.tolist():
                raise ParityError(
                    f"{_name(group)}: vLLM read {len(output.prompt_token_ids)} prompt ids, the processor writes "
                    f"{len(one.prompt)}, and they are not the same. Set {_INSTEAD}, and report it with the versions "
                    "of timelens doctor"
                )
            answers = sorted(output.outputs, key=lambda answer: int(answer.index))
            tokens.append([torch.tensor(list(answer.token_ids), device=self._device) for answer in answers])
            log_probs.append(
                [
                    [step[token].logprob for token, step in zip(answer.token_ids, answer.logprobs, strict=True)]
                    for answer in answers
                ]
            )
        return tokens, log_probs

    def compare(self, model: nn.Module, groups: Sequence[Group]) -> str:
        """vLLM beside the trainer's model, in evaluation mode, on these prompts; a line for the log.

        Raises:
            ParityError: other ids or log-probs, with numbers and the likely cause.
        """
        processor = self._trainer.processing_class
        probes = [
            probe_of(model, processor, _name(group), group.clip.clip, group.row["prompt"])
            for group in groups[:_PROBES]
            if group.clip is not None
        ]
        tolerance = default_tolerance(self._dtype)
        remedy = f"Set {_INSTEAD}, or self_check=False if you know why they differ"
        with self._apart():
            found = check_parity(self._llm, probes, tolerance, remedy)
        return agreed(found, tolerance, self._dtype)

    def rest(self) -> None:
        """Give up the GPU's memory until the next rollout, where ``vllm_enable_sleep_mode`` says so."""
        if self._trainer.args.vllm_enable_sleep_mode:
            self._llm.sleep(level=2)
            self._asleep = {"weights", "kv_cache"}
            self._trainer._last_loaded_step = -1  # the weights are gone

    def close(self) -> None:
        """Give back memory and what was written; the next rollout starts vLLM again."""
        self._llm, self._asleep = None, set()
        self._trainer._last_loaded_step = -1
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _start(self, model: nn.Module) -> Any:
        """On a folder with what a checkpoint has beside its weights; those come from the model."""
        trainer, args, processes = self._trainer, self._trainer.args, self._trainer.accelerator.num_processes
        together = args.rollout_prompts or args.row_prompts * args.steps_per_generation
        base: Any = model.get_base_model() if is_peft_model(model) else model  # type: ignore[operator]
        self._folder = TemporaryDirectory(prefix="timelens-vllm-")
        config = copy.deepcopy(base.config)
        config.architectures = config.architectures or [type(base).__name__]
        # vLLM 0.32 on a CPU keeps a head in a layout of its own, and gives one that is the embeddings no new weights.
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        for part in (config, base.generation_config, trainer.processing_class):
            part.save_pretrained(self._folder.name)
        _load_from(model)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, where the weights are
        settings = {
            "load_format": _FORMAT,
            "logprobs_mode": "processed_logprobs",
            "max_model_len": args.vllm_max_model_length or -1,  # as many as fit
            "gpu_memory_utilization": args.vllm_gpu_memory_utilization,
            "max_num_seqs": together * args.num_generations,
            "enable_sleep_mode": args.vllm_enable_sleep_mode,
            "distributed_executor_backend": "uni" if processes == 1 else "external_launcher",
            "enforce_eager": self._device.type == "cpu",
        }
        return start_llm(
            self._folder.name, trainer.processing_class, self._dtype, settings, name="use_vllm=True", instead=_INSTEAD
        )

    def _wake(self, part: str) -> None:
        if part in self._asleep:
            self._llm.wake_up(tags=[part])
            self._asleep.discard(part)

    def _prompt(self, group: Group) -> VllmPrompt:
        assert group.clip is not None
        asked, most = vllm_prompt(group.clip, group.row["prompt"]), self._llm.model_config.max_model_len
        new = self._trainer.generation_config.max_new_tokens
        if len(asked.prompt) + new > most:
            raise VllmError(
                f"{_name(group)}: its prompt of {len(asked.prompt)} tokens and an answer of max_completion_length="
                f"{new} do not fit in the {most} that vLLM holds: raise vllm_max_model_length (or what limits it, "
                "vllm_gpu_memory_utilization), or show less of the video (total_tokens, max_frames)"
            )
        return asked

    def _sampling(self, completions: int) -> dict[str, Any]:
        """The trainer's sampling as arguments of ``vllm.SamplingParams``."""
        config = self._trainer.generation_config
        ends = config.eos_token_id
        return {
            "n": completions,
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k or 0,
            "min_p": config.min_p or 0.0,
            "repetition_penalty": config.repetition_penalty,
            "logit_bias": dict.fromkeys(config.suppress_tokens, _SUPPRESSED),
            "stop_token_ids": [ends] if isinstance(ends, int) else list(ends),
            "ignore_eos": True,  # the trainer's ends, and none that vLLM finds in the folder
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Out of the training's autocast, and leaving its random numbers as they are: vLLM seeds and draws in them."""
        python, numbers = random.getstate(), np.random.get_state()
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.autocast(self._device.type, enabled=False), torch.random.fork_rng(devices):
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numbers)


def _load_from(model: nn.Module) -> None:
    """Have vLLM's load format ``timelens`` stand for the weights of a model in this process.

    Its ``dummy``, to be overwritten, would leave random numbers where a checkpoint has nothing, as in the values that
    pixels are normalised by.
    """
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class Loader(BaseModelLoader):
        def download_model(self, model_config: Any) -> None:
            pass

        def load_weights(self, own: Any, model_config: Any) -> None:
            loaded = own.load_weights(named_weights(model))
            if missing := sorted({name for name, _ in own.named_parameters()} - loaded):
                raise VllmError(f"the model in training has nothing for vLLM's {', '.join(missing)}")

    register_model_loader(_FORMAT)(Loader)


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names they have in a model without adapters; those with one are merged, in a copy. A head that is
    the embeddings comes as well.

    Args:
        model: unwrapped and whole. Its own weights stay exactly as they are, which merging them, and taking the adapter
            out again, would not leave them.
    """
    adapted = is_peft_model(model)
    base: nn.Module = model.get_base_model() if adapted else model  # type: ignore[operator]
    for name, parameter in base.named_parameters(remove_duplicate=False):
        name = name.replace("_checkpoint_wrapped_module.", "")
        if adapted:
            layer, inside, own = name.rpartition(".base_layer.")
            if inside:
                yield f"{layer}.{own}", _merged(base.get_submodule(layer), own)
                continue
            module, saved, own = name.partition(f".modules_to_save.{model.active_adapter}.")
            if saved:
                name = f"{module}.{own}"
            elif any(part in name for part in (".original_module.", ".modules_to_save.", str(model.prefix))):
                continue
        yield name, parameter.detach()


@torch.no_grad()
def _merged(layer: Any, name: str) -> Tensor:
    """A parameter of the layer under an adapter, as it is with the adapter in it."""
    own = dict(layer.get_base_layer().named_parameters())
    kept = {key: parameter.clone() for key, parameter in own.items()}
    layer.merge()
    try:
        return own[name].clone()
    finally:
        layer.unmerge()
        for key, parameter in own.items():
            parameter.copy_(kept[key])


def _name(group: Group) -> str:
    return str(group.row.get("id") or group.row.get("video") or "a prompt")
