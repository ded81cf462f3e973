"""Every private name of TRL that the trainer relies on. Supported: TRL 1.7 to 1.16.

``check_upstream`` compares the installed release with this list, so that a renamed method is an error at start-up
and not a method of ours that nobody calls any more.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from timelens_plugins.upstream import Name, UpstreamChangedError
from timelens_plugins.upstream import differences as differences_of

__all__ = ["ATTRIBUTES", "HOOKS", "METHODS", "UpstreamChangedError", "check_upstream"]

SUPPORTED = "1.7 to 1.16"

METHODS: dict[str, tuple[str, ...]] = {
    "_get_train_sampler": ("self", "dataset"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_get_per_token_logps_and_entropies": ("self", "model"),
    "_log_completion_extra": ("self", "column", "values"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "compute_loss": ("self", "model", "inputs", "return_outputs", "num_items_in_batch"),
    "log": ("self", "logs", "start_time"),
    "create_optimizer": ("self", "model"),
    "get_train_dataloader": ("self",),
}
"""Methods of ``GRPOTrainer`` that are overridden or called, and their first parameters."""

ATTRIBUTES: dict[str, str] = {
    "rollout_func": "output = self.rollout_func(prompts, self)",
    "env_mask": 'extra_fields.pop("env_mask", None)',
    "_step": "self._step += 1",
    "_buffered_inputs": "self._buffered_inputs[self._step % self.args.steps_per_generation]",
    "shuffle_sequence_dict": "generation_batch = shuffle_sequence_dict(generation_batch)",
    "split_tensor_dict": "split_tensor_dict(generation_batch, self.args.steps_per_generation)",
    "_metrics": 'self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}',
    "generation_config": "self.generation_config = GenerationConfig(",
    "aux_loss_enabled": "self.aux_loss_enabled = ",
    "reward_weights": "self.reward_weights = ",
    "current_gradient_accumulation_steps": "self.current_gradient_accumulation_steps",
    "beta": "per_token_loss = per_token_loss + self.beta * per_token_kl",
    "advantages": 'advantages = inputs["advantages"]',
    "_last_loaded_step": "if self.use_vllm and self.state.global_step != self._last_loaded_step:",
    "vllm_generation": "self.vllm_generation.sync_weights()",
    "use_vllm": "if self.use_vllm and self.vllm_importance_sampling_correction:",
    "importance_sampling_ratio": 'output["importance_sampling_ratio"] = vllm_importance_sampling_ratio',
}
"""What the trainer reads, sets or leans on inside the parent's methods, and the source line that shows it there."""

HOOKS = (
    Name("trl.models.utils:add_hooks", ("model",)),
    Name("trl.models.utils:remove_hooks", ("model",)),
)
"""Functions that the rollout calls around the weights that DeepSpeed's ZeRO-3 gathers."""


def differences(grpo_trainer: ModuleType) -> list[str]:
    """What of the lists above is not found in a release's ``trl.trainer.grpo_trainer``."""
    cls: Any = grpo_trainer.GRPOTrainer
    found: list[str] = []
    for name, expected in METHODS.items():
        method = getattr(cls, name, None)
        if method is None:
            found.append(f"GRPOTrainer.{name} is gone")
            continue
        parameters = tuple(inspect.signature(method).parameters)
        if parameters[: len(expected)] != expected:
            found.append(f"GRPOTrainer.{name} takes {parameters}, expected {expected} first")
    source = inspect.getsource(cls)
    found += [f"GRPOTrainer no longer has the line {line!r}" for line in ATTRIBUTES.values() if line not in source]
    return [*found, *differences_of(HOOKS)]


def check_upstream() -> None:
    """Compare the installed TRL with what the trainer relies on.

    Raises:
        UpstreamChangedError: naming each difference.
    """
    import trl
    from trl.trainer import grpo_trainer

    if found := differences(grpo_trainer):
        raise UpstreamChangedError(
            f"TRL {trl.__version__} is not supported: {'; '.join(found)}. Install a release from {SUPPORTED}"
        )
