"""GRPO for video grounding: TRL's trainer with the video in every forward, and the prompt of a group computed once.

What is inherited: rewards, advantages, losses, reference model, logging, the training loop. What differs from
``trl.GRPOTrainer``:

- prompts carry videos. The parent generates from them and then trains without, and reports an ordinary loss;
- a group's completions share their prompt: one decode, one vision pass, one prefill, one training forward; with
  ``queries_per_video`` so do the groups of a video;
- groups stay whole, so shuffling and splitting a generation batch move groups, not rows;
- the next clips are decoded while the model computes; an unreadable one is named, and counted where it is skipped;
- a killed run continues with the losses of an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from trl import GRPOTrainer

from timelens_plugins.clips import ClipLoader
from timelens_plugins.difficulty import OnlineDifficulty
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.families import shares_prefix
from timelens_plugins.families.load import restore_positions
from timelens_plugins.grpo import resume, scoring, self_check, upstream
from timelens_plugins.grpo.checked_rewards import checked
from timelens_plugins.grpo.checks import SYNCED_REFERENCE, check_arguments, check_dropout, note_costs
from timelens_plugins.grpo.config import CARD_SETTINGS, TimeLensGRPOConfig
from timelens_plugins.grpo.groups import GROUPS, Group, by_row, by_unit, groups_of
from timelens_plugins.grpo.online import OnlineDraws
from timelens_plugins.grpo.prompts import PromptSource
from timelens_plugins.grpo.reward_log import RewardLog, Speed
from timelens_plugins.grpo.rollout import rollout
from timelens_plugins.grpo.sampler import PromptOrder, PromptSampler, drawing_of, epoch_order
from timelens_plugins.grpo.vllm_rollout import VllmRollout, without_own_vllm
from timelens_plugins.grpo.weights import SliceWeight, slice_weights
from timelens_plugins.plateau.callback import samples_per_step
from timelens_plugins.shared_prefix import install
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.logprobs import rounding_tolerance
from timelens_plugins.training.card import data_lines, write_card
from timelens_plugins.training.checkpoints import checkpoint_to_resume, only_run, save_checkpoint
from timelens_plugins.training.diverged import FiniteLoss, warn_of_rounding
from timelens_plugins.training.origin import Origin
from timelens_plugins.training.parts import adapter_modules_to_save, create_optimizer, set_trainable
from timelens_plugins.training.resumed_weights import ResumedWeights
from timelens_plugins.training.sharding import check_same_sharding, is_sharded, keep_used_conversions

__all__ = ["TimeLensGRPOTrainer"]

logger = logging.getLogger(__name__)


class TimeLensGRPOTrainer(ResumedWeights, GRPOTrainer):
    """Train a model of a known family on moments with verifiable rewards.

    Example::

        processor = load_processor(checkpoint, max_frames=448)
        dataset = moments_dataset(load_moments("timelens-100k.jsonl", video_root="videos"), processor.encoding)
        trainer = TimeLensGRPOTrainer(
            model=checkpoint,
            processing_class=processor,
            reward_funcs=temporal_iou_reward,
            train_dataset=dataset,
            args=TimeLensGRPOConfig(output_dir="out", per_device_train_batch_size=8, num_generations=8),
        )
        trainer.train(resume_from_checkpoint=last_checkpoint("out"))

    Args:
        model, reward_funcs, eval_dataset, callbacks, optimizers: as the parent's.
        peft_config: as the parent's; with ``vision="merger"``, a model that is loaded already and no
            ``modules_to_save`` of its own, the mergers are trained and saved whole beside the adapters.
        args: the settings.
        train_dataset: rows with a ``prompt`` that holds one video as a path; see
            :func:`timelens_plugins.training.dataset.moments_dataset`. All columns go to the reward functions.
        processing_class: from :func:`timelens_plugins.encodings.load_processor`; saved with every checkpoint.
        prompt_order: which prompts come when; by default all of them, shuffled in each epoch. Not with
            ``queries_per_video``, which brings those of a video together.
        difficulty: in the place of ``prompt_order``: each generation batch is drawn by what the rewards so far say,
            and its rewards are learned from. For the data set's moments: ``OnlineDifficulty(train_dataset["id"])``.

    Raises:
        ValueError: a setting that cannot work, with the reason and the remedy.
        UpstreamChangedError: a release of TRL that is not supported.
    """

    args: TimeLensGRPOConfig
    beta: float
    data_collator: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: TimeLensGRPOConfig,
        train_dataset: Any,
        processing_class: InterleavedTimestampsMixin,
        eval_dataset: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        prompt_order: PromptOrder | None = None,
        difficulty: OnlineDifficulty | None = None,
    ) -> None:
        upstream.check_upstream()
        if difficulty is not None and (prompt_order is not None or not args.shuffle_dataset):
            raise ValueError("difficulty decides the order of prompts: leave prompt_order and shuffle_dataset out")
        check_arguments(args, model, processing_class, train_dataset)
        if args.queries_per_video > 1 and prompt_order is not None:
            raise ValueError("queries_per_video brings the prompts of a video together: leave prompt_order out")
        if peft_config is not None and args.vision == "merger" and isinstance(model, nn.Module):
            peft_config.modules_to_save = peft_config.modules_to_save or adapter_modules_to_save(model)
        with without_own_vllm(args):
            super().__init__(
                model=model,
                reward_funcs=[checked(f) for f in (reward_funcs if isinstance(reward_funcs, list) else [reward_funcs])],
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                callbacks=callbacks,
                optimizers=optimizers,
                peft_config=peft_config,
            )
        self._prepare_models()
        note_costs(args, self.accelerator)
        # Rows without ids cannot be told apart.
        names = train_dataset["id"] if "id" in train_dataset.column_names else ()
        self._origin = Origin()
        # Loaders that spare memory give the weights to the main process alone, or a shard to each.
        if self.accelerator.is_main_process or is_sharded(self.model):
            self._origin = Origin.of(names, train_dataset, self.model, processing_class, samples_per_step(args))
        self._data_lines = data_lines(train_dataset)
        set_trainable(self.model, args.vision)
        warn_of_rounding(self.model, args)
        self.rollout_func = rollout
        core = vision_language_model(self.model)
        own = self.generation_config.suppress_tokens or []
        # The parent keeps image tokens from being sampled; a video token would mismatch the features just as well.
        self.generation_config.suppress_tokens = sorted({*own, core.config.image_token_id, core.config.video_token_id})
        self.prompts = PromptSource(ClipLoader.by_settings(processing_class, args), self.num_generations)
        self._online: OnlineDraws | None = None
        drawing = drawing_of(args, train_dataset)
        if difficulty is not None:
            self._online = OnlineDraws(difficulty, train_dataset, self.reward_funcs, seed=args.seed, **drawing)
            prompt_order = self._online.order
        self._prompt_order = prompt_order or epoch_order(len(train_dataset), args.seed, args.shuffle_dataset, **drawing)
        self._rows: Sequence[Mapping[str, Any]] = []
        self._groups: list[Group] = []  # of the rows that are being generated or scored
        self._slice_weights = [SliceWeight()]
        self._pending_rollouts: Path | None = None
        precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        dtype = precision or self.model.dtype
        if args.use_vllm:
            self.use_vllm, self.vllm_generation = True, VllmRollout(self, dtype)
            self._last_loaded_step = -1  # the step whose weights vLLM has
        tolerance = rounding_tolerance(dtype)
        self._first_batch = self_check.FirstBatchCheck(
            self.accelerator,
            enabled=args.self_check,
            share=args.share_prefix,
            temperature=self.temperature,
            tolerance=tolerance if args.self_check_tolerance is None else args.self_check_tolerance,
            compare=self.vllm_generation.compare if args.use_vllm else None,
        )
        self._reward_log = RewardLog(self, self._online)
        self.add_callback(Speed(self._reward_log, self._metrics["train"]))
        self.add_callback(FiniteLoss())

    def _prepare_models(self) -> None:
        self.args.share_prefix = shares_prefix(self.accelerator.unwrap_model(self.model), self.args.share_prefix)
        check_dropout(self.args, self.model)
        for model in (self.model, self.ref_model):
            if model is not None:
                restore_positions(self.accelerator.unwrap_model(model))
                keep_used_conversions(self.accelerator.unwrap_model(model))
                if self.args.share_prefix:
                    install(self.accelerator.unwrap_model(model))

    # ------------------------------------------------------------------ data

    def _get_train_sampler(self, dataset: Any = None) -> PromptSampler:
        """The parent's ``RepeatSampler`` has one order, and forgets its epoch when a run resumes."""
        return PromptSampler(
            self._prompt_order,
            len(self.train_dataset if dataset is None else dataset),
            prompts=self.args.generation_batch_size // self.num_generations,
            generations=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            epoch=lambda: int((self.state.epoch or 0.0) + 1e-6),
            over=lambda: self.control.should_training_stop or self.state.global_step >= self.state.max_steps,
        )

    def get_train_dataloader(self) -> Any:
        """The parent's hands rows through; here their clips are read as well, a generation batch ahead of their use."""
        collate, self.data_collator = self.data_collator, self.prompts.announce
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The parent's, from complete checkpoints only; clips and vLLM, not needed any more, are let go at the end.

        Raises:
            ValueError: a checkpoint that a kill left half-written, or one of ``save_only_model``.
        """
        folder = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        if folder is not None:
            check_same_sharding(Path(folder), self.accelerator)
            if self.args.sync_ref_model:
                raise ValueError(f"{folder}: {SYNCED_REFERENCE}")
        try:
            with only_run(self):
                return super().train(folder, *args, **kwargs)
        finally:
            self.prompts.clear()
            if self.args.use_vllm:
                self.vllm_generation.close()

    # ------------------------------------------------------------------ rollout

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The parent's batch has rows, which lose their group when the parent shuffles and splits them.

        Here a training batch leaves as tensors ``(units, …)`` with the groups beside them: what is shuffled and split
        then is groups, or whole micro-batches where these hold several groups of a video.
        """
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        groups, self._rows, self._groups = self._groups, [], []
        if not self.model.training:
            return output | {GROUPS: groups}
        one = self.args.queries_per_video == 1
        return by_unit(output, groups, len(groups) if one else self.args.steps_per_generation)

    # ------------------------------------------------------------------ rewards

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> Tensor:
        """The parent's rewards are looked at: faults stop the run, skipped groups have none, the rest is logged."""
        completions = self._reward_log.completions(completion_ids_list)
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        found = self._reward_log.look(rewards, inputs, completions, sum(map(len, completion_ids_list)), self._groups)
        for name, value in found.items():
            self._metrics["train" if self.model.training else "eval"][name].append(value)
        return rewards

    # ------------------------------------------------------------------ scoring and loss

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The parent's forward gets ids and images, but no videos. Here the groups bring their vision inputs."""
        groups, generations = self._groups, len(input_ids) // len(self._groups)
        self._first_batch.ids(groups, input_ids, attention_mask, logits_to_keep)
        per_chunk = max(1, (batch_size or len(input_ids)) // generations)
        scores: list[tuple[Tensor, Tensor, Tensor | None]] = []
        places: list[int] = []
        for start in range(0, len(groups), per_chunk):
            numbers = range(start, min(start + per_chunk, len(groups)))
            # Skipped groups route no tokens to experts. Where nothing else is left, they keep the forwards in step.
            kept = [i for i in numbers if groups[i].kept]
            used = kept or list(numbers)
            rows = [i * generations + k for i in used for k in range(generations)]
            chosen, ids, mask = [groups[i] for i in used], input_ids[rows], attention_mask[rows]
            with self.accelerator.autocast():
                if self.args.share_prefix:
                    # A completion that is masked as a whole keeps a token; the loss masks it.
                    lengths = mask[:, -logits_to_keep:].sum(1).clamp(min=1).tolist()
                    completions = ids[:, -logits_to_keep:]
                    found = scoring.shared_scores(
                        model, chosen, completions, lengths, self.temperature, compute_aux_loss
                    )
                else:
                    found = scoring.plain_scores(
                        model, chosen, ids, mask, logits_to_keep, self.temperature, compute_aux_loss
                    )
            scores.append(found if kept or found[2] is None else (*found[:2], found[2] * 0))
            places += rows
        where = torch.tensor(places, device=input_ids.device)
        found_rows = [torch.cat([part[i] for part in scores]) for i in (0, 1)]  # type: ignore[misc]
        log_probs, entropies = (x.new_zeros(len(input_ids), x.shape[1]).index_copy(0, where, x) for x in found_rows)
        balance = torch.stack([part[2] for part in scores]).mean() if compute_aux_loss else None  # type: ignore[misc]
        return log_probs, entropies if compute_entropy else None, balance

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The parent's buffer holds groups here and gives out rows; after a resume it is filled again first."""
        if not self.model.training:
            inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return inputs
        if self._pending_rollouts is not None:
            self._buffered_inputs = resume.restored(self, self._pending_rollouts)
            self._pending_rollouts = None
            self._slice_weights = self._weights_of_slices()
        buffer = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not buffer:
            self._slice_weights = self._weights_of_slices()
        return by_row(inputs)

    def _weights_of_slices(self) -> list[SliceWeight]:
        slices = self._buffered_inputs
        if self.args.on_bad_video == "error":
            return [SliceWeight()] * len(slices)
        device = self.accelerator.device
        kept = torch.tensor([sum(g.kept for g in groups_of(part)) for part in slices], device=device)
        gathered = self.accelerator.gather(kept * self.num_generations).view(-1, len(slices)).cpu()
        rows = self.args.per_device_train_batch_size
        return slice_weights(gathered, rows, self.loss_type, self.args.gradient_accumulation_steps)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The parent's loss, of the groups of this batch, as if skipped ones had not been there.

        It is a sum: the policy's loss, which advantages and the KL coefficient scale, and what is weighted otherwise.
        """
        if self.model.training:
            weight = self._slice_weights[self._step % len(self._slice_weights)]
        else:
            rows, groups = len(inputs["advantages"]), inputs[GROUPS]
            kept = torch.tensor([[sum(g.kept for g in groups) * rows // len(groups)]])
            weight = slice_weights(kept, rows, self.loss_type, 1)[0] if not bool(kept == rows) else SliceWeight()
        policy = weight.policy / weight.extras
        self._groups, beta = inputs[GROUPS], self.beta
        try:
            self.beta = beta * policy
            scaled = {**inputs, "advantages": inputs["advantages"] * policy}
            loss: Tensor = super().compute_loss(model, scaled, return_outputs, num_items_in_batch)
        finally:
            self._groups, self.beta = [], beta
        return loss * weight.extras

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """The parent's has one learning rate; the mergers may have their own."""
        if self.args.merger_learning_rate is None:
            return super().create_optimizer(model)
        return create_optimizer(self, model, self.args.merger_learning_rate)

    # ------------------------------------------------------------------ model card

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The parent's, and a card that says what was trained."""
        if self.args.should_save:
            self._write_card(output_dir or self.args.output_dir)
        super().save_model(output_dir, _internal_call)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The parent's card knows neither the data nor the rewards, and no base model that is a folder."""
        if self.args.should_save:
            self._write_card(self.args.output_dir)

    def _write_card(self, folder: str) -> None:
        weights = self.reward_weights.tolist()
        rewards = [f"reward {name}, weight {w:g}" for name, w in zip(self.reward_func_names, weights, strict=True)]
        write_card(
            self,
            folder,
            method="reinforcement learning with verifiable rewards (GRPO)",
            base=self._origin.model,
            data=self._data_lines,
            objective=[*rewards, f"loss {self.loss_type}, KL coefficient {self.beta:g}"],
            settings=CARD_SETTINGS,
        )

    # ------------------------------------------------------------------ resume

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent saves neither completions that are still to be used, nor the count of micro-steps.

        And it deletes older checkpoints before anything can be added to the new one.
        """
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        save = partial(super()._save_checkpoint, model, trial)
        save_checkpoint(self, folder, save, lambda: resume.save(self, folder))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The parent would begin again at micro-step 0 and generate in the middle of a generation batch."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self._pending_rollouts = resume.load(self, Path(checkpoint))
