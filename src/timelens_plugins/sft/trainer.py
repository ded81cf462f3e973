"""Supervised fine-tuning on moments: transformers' ``Trainer`` with rows of videos and one loss over their answers.

What is inherited: the training loop, schedule, precision, wrapping, saving and resuming. What differs from
``transformers.Trainer``:

- a batch is a list of videos, each with all its queries, packed so that a video is encoded and prefilled once;
- the loss is the mean over *tokens of answers* of the whole global batch: every token of an answer and its end of turn
  counts the same, whatever the video, the micro-batch and the process it is in. So it does not depend on packing,
  gradient accumulation or the number of processes;
- clips are decoded in the background; an unreadable one stops the run, or is skipped and counted;
- the merger of the vision tower may have a learning rate of its own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import EvalLoopOutput

from timelens_plugins.clips import ClipLoader
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.families import shares_prefix
from timelens_plugins.families.load import restore_positions
from timelens_plugins.sft.config import TimeLensSFTConfig
from timelens_plugins.sft.examples import Example, build_example, check_stops, placeholder_example
from timelens_plugins.sft.rows import VideoRows
from timelens_plugins.sft.scoring import answer_log_probs
from timelens_plugins.shared_prefix import install
from timelens_plugins.training.card import data_lines, write_card
from timelens_plugins.training.checkpoints import (
    ANOTHER_METHOD,
    checkpoint_to_resume,
    only_run,
    read_state,
    save_checkpoint,
)
from timelens_plugins.training.diverged import FiniteLoss, warn_of_rounding
from timelens_plugins.training.origin import Origin
from timelens_plugins.training.parts import adapter_modules_to_save, create_optimizer, refuse_adapter, set_trainable
from timelens_plugins.training.resumed_weights import ResumedWeights
from timelens_plugins.training.sharding import check_same_sharding, is_sharded, keep_used_conversions

__all__ = ["TimeLensSFTTrainer"]

logger = logging.getLogger(__name__)

_COUNTS = ("rows", "queries", "answer_tokens", "packed_tokens", "plain_tokens", "left_out_queries")


class TimeLensSFTTrainer(ResumedWeights, Trainer):
    """Train a model of a known family to write ``The event happens in 3.5 - 12.0 seconds.``

    Example::

        model, processor = load_model(checkpoint, dtype="bfloat16", max_frames=448)
        moments = load_moments("timelens-100k.jsonl", video_root="videos")
        trainer = TimeLensSFTTrainer(
            model=model,
            args=TimeLensSFTConfig(output_dir="out"),
            train_dataset=moments_dataset(moments, processor.encoding),
            processing_class=processor,
        )
        trainer.train(resume_from_checkpoint=last_checkpoint("out"))

    Args:
        model: with its language head.
        args: the settings.
        train_dataset, eval_dataset: rows of single moments, see
            :func:`timelens_plugins.training.dataset.moments_dataset`; grouped into videos here. As the parent's,
            ``eval_dataset`` may be several by name.
        processing_class: from :func:`timelens_plugins.encodings.load_processor`; saved with every checkpoint.
        callbacks, optimizers: as the parent's.
        peft_config: trains adapters; with ``vision="merger"`` and no ``modules_to_save`` of its own, the mergers are
            trained and saved whole beside them.

    Raises:
        ValueError: a setting that cannot work, with the reason and the remedy.
    """

    args: TimeLensSFTConfig
    processing_class: InterleavedTimestampsMixin

    def __init__(
        self,
        model: PreTrainedModel,
        args: TimeLensSFTConfig,
        train_dataset: Any,
        processing_class: InterleavedTimestampsMixin,
        eval_dataset: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ) -> None:
        if not isinstance(processing_class, InterleavedTimestampsMixin):
            raise ValueError(
                f"processing_class is a {type(processing_class).__name__}: make it with load_processor(path)"
            )
        refuse_adapter(model)
        if getattr(model.config.get_text_config(), "output_router_logits", False):
            raise ValueError(
                "the model's configuration asks for the load-balancing loss of a mixture of experts, and this loss is "
                "that of the answers alone: set output_router_logits to false there"
            )
        check_stops(processing_class, model)
        restore_positions(model)
        keep_used_conversions(model)
        args.share_prefix = shares_prefix(model, args.share_prefix)
        if args.share_prefix:
            install(model)  # refuses attention that cannot share before anything is spent
        else:
            logger.info("share_prefix=False: the prompt, video included, is computed once for each query of a row")
        if peft_config is not None:
            model = _with_adapters(model, peft_config, args)
        self.trained_parts = set_trainable(model, args.vision)
        self.clips = ClipLoader.by_settings(processing_class, args)
        rows = VideoRows.of(train_dataset, args.max_queries_per_row)
        super().__init__(
            model=model,
            args=args,
            data_collator=self._announce,
            train_dataset=rows,
            eval_dataset=_evaluated(eval_dataset, args.max_queries_per_row),
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.add_callback(FiniteLoss())
        warn_of_rounding(model, args)
        # The training loop must not divide by accumulation steps; before transformers 5.23 the second name says so.
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True
        self._origin = Origin()
        # Loaders that spare memory give the weights to the main process alone, or a shard to each.
        if self.accelerator.is_main_process or is_sharded(model):
            moments = (moment for row in range(len(rows)) for moment in rows[row]["moments"])
            self._origin = Origin.of(
                rows.names,
                moments,
                model,
                processing_class,
                args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            )
        self._data_lines = data_lines(rows.dataset)
        self._counts: Counter[str] = Counter()
        self._placeholder: Example | None = None
        self._parameters = model.num_parameters(exclude_embeddings=True)

    # ------------------------------------------------------------------ data

    def _announce(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The collator. accelerate collates one batch ahead of the one that is trained, so its clips get ready then."""
        self.clips.request(row["moments"][0] for row in rows)
        return {"rows": list(rows)}

    def _examples(self, rows: Sequence[Mapping[str, Any]], counts: Counter[str] | None = None) -> list[Example]:
        """The rows in tokens, without those whose video cannot be read, and without those of no target: counted."""
        examples = []
        for row in rows:
            clip = self.clips.take(row["moments"][0])
            if clip is None:
                continue
            example = build_example(self.processing_class, clip, row["row"], row["moments"], self.args.snap_spans)
            if example is not None:
                examples.append(example)
            elif counts is not None:
                counts["left_out_queries"] += len(row["moments"])
        return examples

    def get_train_dataloader(self) -> Any:
        """The parent's; what an earlier loop announced and never used is forgotten."""
        self.clips.clear()
        return super().get_train_dataloader()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimizer step in tokens, and how many tokens of answers all processes have in them.

        The parent counts labels that collators made. Here the answers are known only once the videos are: snapping
        needs their times, and unreadable ones do not count. And the parent asks whether a run is over only after a
        step, so that a finished one that is started again would take one more.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], torch.tensor(0, device=device)
        collated, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = [{"examples": self._examples(batch["rows"], self._counts)} for batch in collated]
        scored = sum(example.scored_tokens for batch in batches for example in batch["examples"])
        return batches, self.accelerator.reduce(torch.tensor(scored, device=device), "sum")

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Negative log-likelihood of the micro-batch's answers over the tokens of the global batch.

        Times the number of processes, which average gradients and logged losses.
        """
        if return_outputs or num_items_in_batch is None:
            raise ValueError("this loss has no outputs to return, and needs the number of tokens of the global batch")
        examples: list[Example] = inputs["examples"]
        loss = self._negative_log_likelihood(model, examples)
        self._count(examples)
        return loss * (self.accelerator.num_processes / max(1, int(num_items_in_batch)))

    def _negative_log_likelihood(self, model: nn.Module, examples: Sequence[Example]) -> Tensor:
        if examples:
            return -answer_log_probs(model, [example.tree for example in examples], self.args.share_prefix).sum()
        if self._placeholder is None:
            self._placeholder = placeholder_example(self.processing_class)
        return 0.0 * answer_log_probs(model, [self._placeholder.tree], self.args.share_prefix).sum()

    def create_optimizer(self, model: Any = None) -> Any:
        """The parent's choice of optimizer, with a group of its own for the mergers."""
        return create_optimizer(self, model, self.args.merger_learning_rate)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """The parent's estimate, 6 operations a token and parameter, of the tokens that are really computed."""
        share = self.args.share_prefix
        tokens = sum(e.packed_tokens if share else e.plain_tokens for e in inputs["examples"])
        return 6 * tokens * self._parameters

    # ------------------------------------------------------------------ logs

    def _count(self, examples: Sequence[Example]) -> None:
        self._counts["rows"] += len(examples)
        for example in examples:
            self._counts["queries"] += example.queries
            self._counts["answer_tokens"] += example.scored_tokens
            self._counts["packed_tokens"] += example.packed_tokens
            self._counts["plain_tokens"] += example.plain_tokens
            self._counts["left_out_queries"] += len(example.left_out)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The parent's, with what was trained on since the last log, summed over all processes.

        ``tokens_saved``: share of the tokens of the plain batch that packing did not compute. ``skipped_videos``: since
        the start of the run.
        """
        if "loss" in logs:
            own = [*(self._counts[name] for name in _COUNTS), len(self.clips.skipped)]
            totals = self.accelerator.reduce(torch.tensor(own, device=self.args.device), "sum").tolist()
            counts = dict(zip((*_COUNTS, "skipped_videos"), totals, strict=True))
            plain, packed = counts.pop("plain_tokens"), counts.pop("packed_tokens")
            saved = 1 - packed / plain if plain and self.args.share_prefix else 0.0
            logs = {**logs, **counts, "tokens_saved": round(saved, 4)}
            self._counts.clear()
        super().log(logs, start_time)

    # ------------------------------------------------------------------ checkpoints

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: list[str] | None = None
    ) -> Any:
        """The parent's, from complete checkpoints only; says so where one was saved with other data or another model.

        Raises:
            ValueError: a checkpoint that a kill left half-written, or one of ``save_only_model``.
        """
        folder = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir or ".")
        if folder is not None:
            check_same_sharding(Path(folder), self.accelerator)
            state = read_state(Path(folder))
            if "generation" in state:
                raise ValueError(f"{folder} was saved by GRPO, not by supervised fine-tuning: {ANOTHER_METHOD}")
            self._origin.compare(Origin.saved(state), folder)
        try:
            with only_run(self):
                return super().train(folder, trial, ignore_keys_for_eval)
        finally:
            self.clips.clear()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent's, which marks nothing as whole and deletes older ones too early."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        save = partial(super()._save_checkpoint, model, trial)
        save_checkpoint(self, folder, save, lambda: asdict(self._origin))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The parent's, and a card that says what was trained."""
        if self.args.should_save:
            self._write_card(output_dir or self.args.output_dir)
        super().save_model(output_dir, _internal_call)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The parent's card for the hub knows neither data nor settings of this trainer."""
        if self.args.should_save:
            self._write_card(self.args.output_dir)

    def _write_card(self, folder: str | None) -> None:
        write_card(
            self,
            folder or ".",
            method="supervised fine-tuning (SFT)",
            base=self._origin.model,
            data=self._data_lines,
            objective=["negative log-likelihood of the answers' tokens, the mean over those of the whole global batch"],
            settings=("snap_spans", "max_queries_per_row"),
        )

    # ------------------------------------------------------------------ evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The parent's, also for rows of single moments, as ``evaluate(dataset)`` brings them."""
        return super().get_eval_dataloader(_evaluated(eval_dataset, self.args.max_queries_per_row))

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As :meth:`get_eval_dataloader`."""
        return super().get_test_dataloader(_evaluated(test_dataset, self.args.max_queries_per_row))

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss over the tokens of all answers; a row that fills up the last batch of a process counts once.

        The parent's averages losses of batches, whatever their number of tokens.
        """
        model: Any = self.model_wrapped
        model.eval()
        own: list[tuple[int, float, int]] = []
        with torch.no_grad(), self.accelerator.autocast():
            for batch in dataloader:
                for row in batch["rows"]:
                    examples = self._examples([row])
                    loss = self._negative_log_likelihood(model, examples)
                    own += [(example.row, float(loss), example.scored_tokens) for example in examples]
        rows = {row: (loss, tokens) for row, loss, tokens in gather_object(own)}
        tokens = sum(tokens for _, tokens in rows.values())
        if not tokens:
            raise ValueError("no answer of the evaluation data could be scored")
        metrics = {
            f"{metric_key_prefix}_loss": sum(loss for loss, _ in rows.values()) / tokens,
            f"{metric_key_prefix}_answer_tokens": tokens,
            f"{metric_key_prefix}_left_out_rows": len(dataloader.dataset) - len(rows),
        }
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(rows))  # type: ignore[arg-type]


def _evaluated(dataset: Any, max_queries: int | None) -> Any:
    """Rows of single moments as rows of videos; several by name each so; names and None as they are."""
    if dataset is None or isinstance(dataset, str):
        return dataset
    if isinstance(dataset, dict):
        return {name: VideoRows.of(rows, max_queries) for name, rows in dataset.items()}
    return VideoRows.of(dataset, max_queries)


def _with_adapters(model: PreTrainedModel, peft_config: Any, args: TimeLensSFTConfig) -> Any:
    from peft import get_peft_model

    if args.vision == "merger" and not peft_config.modules_to_save:
        peft_config.modules_to_save = adapter_modules_to_save(model)
    return get_peft_model(model, peft_config)
