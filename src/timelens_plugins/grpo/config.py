"""What can be set for video GRPO, on top of TRL's ``GRPOConfig``, and which of TRL's settings do not go with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from trl import GRPOConfig

from timelens_plugins.training.refusals import Wanted, refuse_below, refuse_settings
from timelens_plugins.training.settings import ClipSettings
from timelens_plugins.training.sharding import fsdp_version

__all__ = ["CARD_SETTINGS", "TimeLensGRPOConfig"]

_WANTED: Wanted = {
    "use_transformers_continuous_batching": (False, "transformers' continuous batching takes no videos"),
    "train_sampling_strategy": ("random", "prompts come in groups, by shuffle_dataset or by difficulty"),
    "ignore_data_skip": (False, "completions of a checkpoint would be followed by prompts that they are not of"),
    "chat_template_kwargs": (None, "the processor writes the prompts; thinking is a setting of its own"),
}

_COUNTS = (
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "max_completion_length",
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
)

_WITH_VLLM: Wanted = {
    "vllm_mode": (
        "colocate",
        "TRL's client, by which it speaks to a server, carries no video. vLLM runs in the training processes",
    ),
    "vllm_tensor_parallel_size": (1, "each process has a vLLM of its own, on its own GPU"),
    "vllm_model_impl": ("vllm", "weights are given on to vLLM's own models, by the names that these know"),
    "vllm_structured_outputs_regex": (None, "answers are sampled freely, and judged by the rewards"),
    "generation_kwargs": (None, "they are of transformers' generate"),
    "cache_implementation": (None, "it is of transformers' generate"),
    "keep_prefill": (False, "it trains on the prefill of a rollout by the training model"),
    "rollout_rows": (None, "vLLM decides by itself how many completions it decodes at the same time"),
}

CARD_SETTINGS = (
    "num_generations",
    "queries_per_video",
    "num_iterations",
    "steps_per_generation",
    "temperature",
    "max_completion_length",
    "loss_type",
    "scale_rewards",
    "beta",
    "epsilon",
    "epsilon_high",
    "snap_spans",
    "use_vllm",
)
"""What a model card says of a run."""


@dataclass
class TimeLensGRPOConfig(ClipSettings, GRPOConfig):
    """TRL's ``GRPOConfig`` with the settings of video prompts.

    All of the parent's fields mean what they mean there. Refused, with the reason: continuous batching, a vLLM that is
    not in the training processes (``vllm_mode="server"``), batch sizes that would tear a group apart, and what does not
    work in either trainer (:mod:`timelens_plugins.training.refusals`).

    ``loss_type="bnpo"``, the released recipe's, divides by the completion tokens of each micro-batch of each process,
    not by those of the whole step, as its definition is here and in TRL: with several of them a token counts more where
    its micro-batch has few, so the same step on 1 and on 2 processes, or with another ``gradient_accumulation_steps``,
    gives other gradients. ``"dapo"`` divides by the tokens of the whole step and does not depend on the split;
    ``"grpo"`` and ``"dr_grpo"`` do not either. A line in the log says so where it applies.
    """

    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Prefill a prompt once for all its completions, and score them in one packed row. False computes "
            "the repeated batch, as other trainers do: the same losses at several times the cost."
        },
    )
    queries_per_video: int = field(
        default=1,
        metadata={
            "help": "Prompts of a video that come together at most: it is decoded, encoded and prefilled once for all "
            "of them, in rollout and training. Prompts a step stay as many, from fewer videos. A training row holds a "
            "micro-batch: all of a video's where per_device_train_batch_size is queries_per_video * num_generations."
        },
    )
    rollout_rows: int | None = field(
        default=None,
        metadata={
            "help": "Completions of a group decoded at the same time. Default: the whole group. Lower it where the "
            "rollout runs out of memory; groups are then decoded one by one."
        },
    )
    rollout_prompts: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of a process whose groups are decoded together; those of one video, by queries_per_video, "
            "count as one. Each holds its keys and values meanwhile, about 2 GB for 14k tokens of an 8B model. "
            "Default: 4; 1 with rollout_rows. With use_vllm, completions of so many prompts, and by default of all."
        },
    )
    keep_prefill: bool = field(
        default=False,
        metadata={
            "help": "Train on the prefill of the rollout, whose graph is kept, and do not compute the prompt a second "
            "time: the same gradients. Takes the memory of a training forward already in the rollout, for all prompts "
            "of a process at once. Without sharding (FSDP2, DeepSpeed) and dropout, with one update per rollout."
        },
    )
    snap_spans: bool = field(
        default=False,
        metadata={
            "help": "Give reward functions the times the model was told as column 'times', to which they snap the "
            "target: start down, end up. For models trained on such targets, as TimeLens-7B."
        },
    )
    self_check: bool = field(
        default=True,
        metadata={
            "help": "Before the first update, compare shared with plain log-probs, change the video and see the "
            "log-probs change, and compare the token ids of rollout and training. A failure stops the run, with the "
            "reason."
        },
    )
    self_check_tolerance: float | None = field(
        default=None,
        metadata={
            "help": "Mean absolute difference of shared and plain log-probs, in nats, that the self-check accepts. "
            "Default: 1e-3 for fp32, 0.05 for bf16 and fp16."
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, dict.fromkeys(_COUNTS, 1))  # before the parent divides by them
        super().__post_init__()
        refuse_settings(
            self, {**_WANTED, **self._of_vllm()}, counts=("queries_per_video", "rollout_rows", "rollout_prompts")
        )
        refuse_below(self, {"epsilon": 0, "epsilon_high": 0, "delta": 0, "top_k": 0})
        for name, most in (("temperature", math.inf), ("top_p", 1.0), ("top_entropy_quantile", 1.0)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be above 0{f' and at most {most:g}' if most < math.inf else ''}, got "
                    f"{getattr(self, name)}"
                )
        if self.rollout_rows is not None and (self.rollout_prompts or 1) > 1:
            raise ValueError(
                "rollout_rows decodes a part of one group at a time: leave it out, or set rollout_prompts=1"
            )
        if self.reward_weights is not None and not all(map(math.isfinite, self.reward_weights)):
            raise ValueError(f"reward_weights must be numbers, got {self.reward_weights}")
        if self.reward_weights is not None and not any(self.reward_weights):
            raise ValueError(f"reward_weights={self.reward_weights} train for nothing: one must not be 0")
        self._check_groups()
        if self.keep_prefill:
            self._check_keep_prefill()

    @property
    def prompts_together(self) -> int:
        """``rollout_prompts``, or its default."""
        return self.rollout_prompts or (4 if self.rollout_rows is None else 1)

    @property
    def shares_videos(self) -> bool:
        """Whether prompts of a video are computed together."""
        return self.share_prefix and self.queries_per_video > 1

    @property
    def row_prompts(self) -> int:
        """Prompts of a micro-batch, which are trained in one packed row."""
        return int(self.per_device_train_batch_size // self.num_generations)

    @property
    def part_prompts(self) -> int:
        """Prompts of a part of the generation batch in which those of a video are: a micro-batch, so that one row has
        them; where that holds fewer than ``queries_per_video``, all of a process, which rolls them out together."""
        enough = self.row_prompts >= self.queries_per_video
        return self.row_prompts if enough else self.row_prompts * self.steps_per_generation

    def _check_keep_prefill(self) -> None:
        """The weights of the rollout's prefill must be those of the training forward, whole, and in one place."""
        if not self.share_prefix:
            raise ValueError("keep_prefill=True keeps what share_prefix=True computes: set both or neither")
        if self.num_iterations > 1 or self.gradient_accumulation_steps % self.steps_per_generation:
            raise ValueError(
                f"keep_prefill=True trains on the weights of the rollout, which num_iterations={self.num_iterations} "
                f"and steps_per_generation={self.steps_per_generation} with gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps} update in between: set num_iterations=1, and the other two alike"
            )
        if self.row_prompts > self.queries_per_video:
            raise ValueError(
                f"keep_prefill=True needs training rows of one video: per_device_train_batch_size="
                f"{self.per_device_train_batch_size} at most queries_per_video * num_generations = "
                f"{self.queries_per_video * self.num_generations}; more prompts a step by gradient_accumulation_steps"
            )
        if self.deepspeed_plugin is not None or fsdp_version(self) is not None:
            raise ValueError(
                "keep_prefill=True needs whole weights through the step: FSDP and DeepSpeed share them out"
            )

    def _of_vllm(self) -> Wanted:
        """What would have no effect, with vLLM and without."""
        defaults = {f.name: f.default for f in fields(GRPOConfig) if f.name.startswith("vllm_")}
        if not self.use_vllm:
            return {name: (value, "use_vllm is not set, so it has no effect") for name, value in defaults.items()}
        mode, corrected = self.vllm_importance_sampling_mode, self.vllm_importance_sampling_correction
        if self.loss_type == "vespo" and corrected and not mode.startswith("token_"):
            raise ValueError(f"loss_type='vespo' needs vllm_importance_sampling_mode='token_mask', got {mode!r}")
        server = {
            name: (value, "there is no server") for name, value in defaults.items() if name.startswith("vllm_server_")
        }
        return {**_WITH_VLLM, **server, "vllm_group_port": (defaults["vllm_group_port"], "there is no server")}

    def _check_groups(self) -> None:
        """One group's completions share their prompt's computation, so they must be on one process together."""
        if self.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} must be a multiple of "
                f"num_generations={self.num_generations}: it counts completions, and a group stays whole on a process"
            )
        if self.queries_per_video > self.part_prompts:
            raise ValueError(
                f"queries_per_video={self.queries_per_video} is more than the {self.part_prompts} prompts that a "
                "process generates for together: raise per_device_train_batch_size or steps_per_generation, or lower it"
            )
        generations = self.num_generations_eval or self.num_generations
        if self.eval_strategy != "no" and self.per_device_eval_batch_size % generations:
            raise ValueError(
                f"per_device_eval_batch_size={self.per_device_eval_batch_size} must be a multiple of the {generations} "
                "generations of an evaluation prompt: a group stays whole on a process"
            )
