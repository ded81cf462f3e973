"""GRPO for video grounding: TRL's trainer with the video in every forward, and the prompt of a group computed once.

What is inherited: rewards, advantages, losses, reference model, logging, the training loop. What differs from
``trl.GRPOTrainer``:

- prompts carry videos. The parent generates from them and then trains without, and reports an ordinary loss;
- a group's completions share their prompt: one decode, one vision pass, one prefill, one training forward;
- groups stay whole, so shuffling and splitting a generation batch move groups, not rows;
- the next clips are decoded while the model computes; an unreadable one is named, and counted where it is skipped;
- a killed run continues with the losses of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from trl import GRPOTrainer

from timelens_plugins.difficulty import OnlineDifficulty
from timelens_plugins.grpo import resume, scoring, self_check, statistics, upstream
from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.groups import GROUPS, Group, by_group, by_row, split_groups
from timelens_plugins.grpo.online import DIFFICULTY_FILE, OnlineDraws
from timelens_plugins.grpo.prompts import PromptSource
from timelens_plugins.grpo.rollout import complete_groups, group_seed, whole_model
from timelens_plugins.grpo.sampler import GroupSampler, PromptOrder, shuffled
from timelens_plugins.grpo.weights import NORMALISATION, slice_weights
from timelens_plugins.rewards import read_completions
from timelens_plugins.shared_prefix import Prompt, encode_vision, install
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.timestamps import InterleavedTimestampsMixin, restore_text_positions
from timelens_plugins.training.checkpoints import checkpoint_to_resume, save_checkpoint
from timelens_plugins.training.clips import ClipLoader
from timelens_plugins.training.origin import Origin
from timelens_plugins.training.parts import adapter_modules_to_save, create_optimizer, set_trainable

__all__ = ["TimeLensGRPOTrainer"]

logger = logging.getLogger(__name__)


class TimeLensGRPOTrainer(GRPOTrainer):
    """Train a Qwen-VL model on moments with verifiable rewards.

    Example::

        processor = load_processor("Qwen/Qwen3-VL-8B-Instruct", max_frames=448)
        dataset = moments_dataset(load_moments("timelens-100k.jsonl", video_root="videos"), processor.encoding)
        trainer = TimeLensGRPOTrainer(
            model="Qwen/Qwen3-VL-8B-Instruct",
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
        processing_class: from :func:`timelens_plugins.timestamps.load_processor`; saved with every checkpoint.
        prompt_order: which prompts come when; by default all of them, shuffled in each epoch.
        difficulty: in the place of ``prompt_order``: each generation batch is drawn by what the rewards so far say,
            and its rewards are learned from. For the data set's moments: ``OnlineDifficulty(train_dataset["id"])``.

    Raises:
        ValueError: a setting that cannot work, with the reason and the remedy.
        UpstreamChangedError: a release of TRL that is not supported.
    """

    args: TimeLensGRPOConfig
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
        _check_arguments(args, processing_class, train_dataset)
        if peft_config is not None and args.vision == "merger" and isinstance(model, nn.Module):
            peft_config.modules_to_save = peft_config.modules_to_save or adapter_modules_to_save(model)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self._check_model()
        # Rows without ids cannot be told apart.
        self._origin = Origin.of(train_dataset["id"] if "id" in train_dataset.column_names else (), self.model)
        set_trainable(self.model, args.vision)
        self.rollout_func = self._rollout
        core = vision_language_model(self.model)
        own = self.generation_config.suppress_tokens or []
        # The parent keeps image tokens from being sampled; a video token would mismatch the features just as well.
        self.generation_config.suppress_tokens = sorted({*own, core.config.image_token_id, core.config.video_token_id})
        clips = ClipLoader(
            processing_class, args.clip_workers, args.on_bad_video, ahead=args.clips_ahead, backend=args.video_backend
        )
        self.prompts = PromptSource(clips, self.num_generations)
        self._online: OnlineDraws | None = None
        if difficulty is not None:
            prompts = args.generation_batch_size // self.num_generations
            self._online = OnlineDraws(difficulty, train_dataset, self.reward_funcs, prompts=prompts, seed=args.seed)
            prompt_order = self._online.order
        self._prompt_order = prompt_order or shuffled(len(train_dataset), args.seed, args.shuffle_dataset)
        self._rows: Sequence[Mapping[str, Any]] = []
        self._groups: list[Group] = []  # of the rows that are being generated or scored
        self._slice_weights = [1.0]
        self._pending_rollouts: Path | None = None
        precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        tolerance = self_check.default_tolerance(precision or self.model.dtype)
        self._first_batch = self_check.FirstBatchCheck(
            self.accelerator,
            enabled=args.self_check,
            share=args.share_prefix,
            temperature=self.temperature,
            tolerance=tolerance if args.self_check_tolerance is None else args.self_check_tolerance,
        )
        self._prompts_seen, self._log_time = 0, time.perf_counter()

    def _check_model(self) -> None:
        if self.aux_loss_enabled:
            raise ValueError(
                "the load-balancing loss of mixture-of-experts models is not computed here: set router_aux_loss_coef=0"
            )
        if self.accelerator.state.deepspeed_plugin is not None:
            raise ValueError("DeepSpeed is not supported: use DDP or FSDP2 (fsdp_version: 2) of accelerate")
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise ValueError("FSDP 1 is not supported: set fsdp_version: 2 in accelerate's configuration")
        for model in (self.model, self.ref_model):
            if model is not None:
                restore_text_positions(self.accelerator.unwrap_model(model))
                if self.args.share_prefix:
                    install(self.accelerator.unwrap_model(model))

    # ------------------------------------------------------------------ data

    def _get_train_sampler(self, dataset: Any = None) -> GroupSampler:
        """The parent's ``RepeatSampler`` has one order, and forgets its epoch when a run resumes."""
        dataset = self.train_dataset if dataset is None else dataset
        return GroupSampler(
            self._prompt_order,
            len(dataset),
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
        """The parent's, from complete checkpoints only; clips that are not needed any more are let go at the end.

        Raises:
            ValueError: a checkpoint that a kill left half-written, or one of ``save_only_model``.
        """
        folder = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        self._log_time = time.perf_counter()
        try:
            return super().train(folder, *args, **kwargs)
        finally:
            self.prompts.clear()

    # ------------------------------------------------------------------ rollout

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The parent's batch has rows, which lose their group when the parent shuffles and splits them.

        Here a training batch leaves as tensors ``(groups, G, …)`` with the groups beside them: what is shuffled and
        split then is groups.
        """
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        output[GROUPS], self._rows, self._groups = self._groups, [], []
        return by_group(output, len(output[GROUPS])) if self.model.training else output

    def _rollout(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """What the parent calls as its ``rollout_func``, in the place of its own tokenizing and generating.

        Those would decode the video once per completion, and forget it afterwards.
        """
        training = self.model.training
        generations = self.num_generations if training else self.num_generations_eval
        members = split_groups(self._rows, generations)
        self.prompts.expect([rows[0]["prompt"] for rows in members])
        self._groups = []
        plain: list[Group] = []
        completions: list[Tensor] = []
        index = self._step // (self.args.steps_per_generation * self.num_iterations)
        first = self.accelerator.process_index * len(members)
        with whole_model(self.model_wrapped, self.accelerator) as model, self.accelerator.autocast():
            encode = self._encoder(model)
            for rows in members:
                group = self.prompts.group(rows[0])
                self._groups.append(dataclasses.replace(group, prompt=encode(group.prompt)))
                plain.append(group)
            kept = [i for i, group in enumerate(self._groups) if group.kept]
            sampled = complete_groups(
                model,
                [self._groups[i].prompt for i in kept],
                self.generation_config,
                generations,
                [group_seed(self.args.seed, int(training), index, first + i) for i in kept],
                share=self.args.share_prefix,
                max_rows=self.args.rollout_rows,
                together=self.args.prompts_together,
            )
            by_number = dict(zip(kept, sampled, strict=True))
            for i, group in enumerate(plain):
                completions += by_number.get(i) or [torch.tensor([self._tokenizer.eos_token_id])] * generations
                if group.kept:
                    self._first_batch.remember(group, by_number[i])
            self._first_batch.scores(model, encode)
        rows_of = [group for group in self._groups for _ in range(generations)]
        output: dict[str, Any] = {
            "prompt_ids": [group.prompt.input_ids.tolist() for group in rows_of],
            "completion_ids": [c.tolist() for c in completions],
            "logprobs": None,
        }
        if self.args.snap_spans:
            output["times"] = [group.times for group in rows_of]
        if self.args.on_bad_video == "skip":
            output["env_mask"] = [
                [int(group.kept)] * len(ids) for group, ids in zip(rows_of, output["completion_ids"], strict=True)
            ]
        return output

    def _encoder(self, model: nn.Module) -> Callable[[Prompt], Prompt]:
        """``encode_vision`` that runs once for prompts of the same clip, which share their tensors."""
        done: dict[int, tuple[Prompt, Prompt]] = {}

        def encode(prompt: Prompt) -> Prompt:
            if not self.args.share_prefix:
                return prompt
            pixels = prompt.vision.get("pixel_values_videos", prompt.vision.get("pixel_values"))
            if id(pixels) not in done:
                done[id(pixels)] = (prompt, encode_vision(model, prompt))
            encoded = done[id(pixels)][1]
            return dataclasses.replace(prompt, vision=encoded.vision, features=encoded.features)

        return encode

    # ------------------------------------------------------------------ rewards

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> Tensor:
        """The parent's rewards, with none for skipped groups; what the completions state goes into the log."""
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        generations = len(inputs) // len(self._groups)
        queries = [row["query"] for row in inputs] if "query" in inputs[0] else None
        answers = read_completions(completions, queries)
        self._log_completion_extra("spans", [statistics.format_spans(a.spans) for a in answers])
        self._log_completion_extra("status", [str(a.status) for a in answers])
        self._log_completion_extra("target", [statistics.format_spans(row.get("spans") or []) for row in inputs])
        device = rewards.device
        kept = torch.tensor([g.kept for g in self._groups for _ in range(generations)], device=device)
        failures = torch.tensor([not a.spans for a in answers], device=device)
        kept, failures = self.accelerator.gather(kept), self.accelerator.gather(failures)
        rewards[~kept] = torch.nan
        totals = (rewards * self.reward_weights.to(device)).nansum(dim=1)
        totals[rewards.isnan().all(dim=1)] = torch.nan  # as TRL counts what no reward function could score
        mode = "train" if self.model.training else "eval"
        if mode == "train" and self._online is not None:
            # All processes learn from all rewards, so that they go on drawing the same prompts.
            ids, weights = gather_object([row["id"] for row in inputs]), self.reward_weights
            learned = self._online.update(ids, rewards.double().cpu().numpy(), weights.double().cpu().numpy())
            for name, value in learned.items():
                self._metrics[mode][name].append(value)
        metrics = statistics.group_statistics(totals, failures, kept, generations)
        tokens = torch.tensor(
            statistics.sharing(self._groups, sum(map(len, completion_ids_list)), generations), device=device
        )
        plain, saved = self.accelerator.gather(tokens).view(-1, 2).sum(0).tolist()
        if self.args.share_prefix:
            metrics |= {"sharing/saved_tokens": float(saved), "sharing/saved_share": saved / plain}
        if self.args.on_bad_video == "skip":
            metrics["videos/skipped"] = float(len(set(gather_object(list(self.prompts.clips.skipped)))))
        else:
            metrics.pop("videos/skipped_share", None)
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        if mode == "train":
            self._prompts_seen += len(kept) // generations
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
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """The parent's forward gets ids and images, but no videos. Here the groups bring their vision inputs."""
        groups, generations = self._groups, len(input_ids) // len(self._groups)
        self._first_batch.ids(groups, input_ids, attention_mask, logits_to_keep)
        per_chunk = max(1, (batch_size or len(input_ids)) // generations)
        scores: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(groups), per_chunk):
            rows = slice(start * generations, (start + per_chunk) * generations)
            chosen, ids, mask = groups[start : start + per_chunk], input_ids[rows], attention_mask[rows]
            with self.accelerator.autocast():
                if self.args.share_prefix:
                    # A completion that is masked as a whole keeps a token; the loss masks it.
                    lengths = mask[:, -logits_to_keep:].sum(1).clamp(min=1).tolist()
                    completions = ids[:, -logits_to_keep:]
                    scores.append(scoring.shared_scores(model, chosen, completions, lengths, self.temperature))
                else:
                    scores.append(scoring.plain_scores(model, chosen, ids, mask, logits_to_keep, self.temperature))
        log_probs, entropies = (torch.cat(parts) for parts in zip(*scores, strict=True))
        return log_probs, entropies if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The parent's buffer holds groups here and gives out rows; after a resume it is filled again first."""
        if not self.model.training:
            inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return inputs
        if self._pending_rollouts is not None:
            self._buffered_inputs = self._restored_rollouts(self._pending_rollouts)
            self._pending_rollouts = None
            self._slice_weights = self._weights_of_slices()
        buffer = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not buffer:
            self._slice_weights = self._weights_of_slices()
        return by_row(inputs)

    def _weights_of_slices(self) -> list[float]:
        slices = self._buffered_inputs
        if self.args.on_bad_video == "error":
            return [1.0] * len(slices)
        device = self.accelerator.device
        kept = (
            torch.tensor([sum(g.kept for g in part[GROUPS]) for part in slices], device=device) * self.num_generations
        )
        gathered = self.accelerator.gather(kept).view(-1, len(slices)).cpu()
        rows = self.args.per_device_train_batch_size
        return slice_weights(gathered, rows, self.loss_type, self.args.gradient_accumulation_steps)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The parent's loss, of the groups of this batch, as if skipped ones had not been there."""
        self._groups = inputs[GROUPS]
        try:
            loss: Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._groups = []
        if not self.model.training:
            return loss
        return loss * self._slice_weights[self._step % len(self._slice_weights)]

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """The parent's has one learning rate; the mergers may have their own."""
        if self.args.merger_learning_rate is None:
            return super().create_optimizer(model)
        return create_optimizer(self, model, self.args.merger_learning_rate)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The parent's metrics, and prompts per second of training, decoding and waiting included."""
        if self.model.training and self._prompts_seen:
            now = time.perf_counter()
            self._metrics["train"]["prompts_per_second"].append(self._prompts_seen / (now - self._log_time))
            self._prompts_seen, self._log_time = 0, now
        super().log(logs, start_time)

    # ------------------------------------------------------------------ resume

    def _layout(self) -> dict[str, int]:
        names = ("per_device_train_batch_size", "steps_per_generation", "num_iterations", "num_generations")
        return {"processes": self.accelerator.num_processes} | {name: getattr(self.args, name) for name in names}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent saves neither completions that are still to be used, nor the count of micro-steps.

        And it deletes older checkpoints before anything can be added to the new one.
        """
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        save = partial(super()._save_checkpoint, model, trial)
        save_checkpoint(self, folder, save, lambda: self._save_run_state(folder))

    def _save_run_state(self, folder: Path) -> dict[str, Any]:
        """Save what a process keeps for itself, and give the content of the state file."""
        every = self.args.steps_per_generation * self.num_iterations
        state = resume.RunState(
            self._step // every,
            self._step % every,
            self._layout(),
            dict(self.prompts.clips.skipped),
            {name: [float(v) for v in values] for name, values in self._metrics["train"].items()},
            **dataclasses.asdict(self._origin),
        )
        if state.used:
            resume.save_rollouts(resume.rollouts_file(folder, self.accelerator.process_index), self._buffered_inputs)
        if self._online is not None and self.args.should_save:
            self._online.save(folder)
        return state.content()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The parent would begin again at micro-step 0 and generate in the middle of a generation batch."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        state = resume.RunState.load(folder)
        state.check_layout(self._layout(), folder)
        self._origin.compare(Origin(state.data, state.model), folder)
        self._step = state.generation * self.args.steps_per_generation * self.num_iterations + state.used
        self.prompts.clips.skipped.update(state.skipped)
        for name, values in state.metrics.items():
            self._metrics["train"][name] = list(values)
        if self._online is not None:
            self._online.load(folder)
        elif (folder / DIFFICULTY_FILE).is_file():
            raise ValueError(
                f"{folder} was saved by a run with online difficulty: resume with it, or start over elsewhere"
            )
        if state.used:
            self._pending_rollouts = resume.rollouts_file(folder, self.accelerator.process_index)

    def _restored_rollouts(self, path: Path) -> list[dict[str, Any]]:
        slices, saved = resume.load_rollouts(path)
        self.prompts.expect([group.prompt for part in saved for group in part])
        with whole_model(self.model_wrapped, self.accelerator) as model, self.accelerator.autocast():
            encode = self._encoder(model)
            restored: list[dict[str, Any]] = []
            for tensors, part in zip(slices, saved, strict=True):
                groups = []
                for kept in part:
                    group = self.prompts.group({"prompt": kept.prompt})
                    if (group.error is None) != (kept.error is None):
                        raise ValueError(
                            f"{path}: a video was {'un' if kept.error else ''}readable when this was saved"
                        )
                    groups.append(dataclasses.replace(group, prompt=encode(group.prompt)))
                device = self.accelerator.device
                restored.append({k: v.to(device) for k, v in tensors.items()} | {GROUPS: groups})
        return restored


def _check_arguments(args: Any, processor: Any, dataset: Any) -> None:
    if not isinstance(args, TimeLensGRPOConfig):
        raise TypeError(f"args must be a TimeLensGRPOConfig, got {type(args).__name__}")
    if not isinstance(processor, InterleavedTimestampsMixin):
        raise TypeError(
            f"processing_class must be one of this package's, got {type(processor).__name__}: use "
            "timelens_plugins.timestamps.load_processor(checkpoint)"
        )
    if dataset is None or not hasattr(dataset, "__len__"):
        raise TypeError(
            "train_dataset must be a datasets.Dataset of known length; see training.dataset.moments_dataset"
        )
    if args.on_bad_video == "skip" and args.loss_type not in NORMALISATION:
        raise ValueError(f"on_bad_video='skip' does not know how loss_type={args.loss_type!r} counts completions")
