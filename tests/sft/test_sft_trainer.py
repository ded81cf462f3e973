"""Three steps with every option, on both families: what is trained, saved, skipped and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from sft_runs import history
from transformers import AutoModelForImageTextToText
from trl import ModelConfig

from timelens_plugins.encodings import load_processor
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.recipe import DataArguments, parse
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.spans import Span
from timelens_plugins.training.checkpoints import STATE_FILE, last_checkpoint
from timelens_plugins.training.dataset import find_videos
from timelens_plugins.video import VideoError

LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}

OPTIONS: dict[str, dict[str, Any]] = {
    "full": {"vision": "full"},
    "frozen": {"vision": "frozen"},
    "merger": {"vision": "merger", "merger_learning_rate": 1e-2},
    "lora": {"vision": "frozen", "peft_config": LORA},
    "lora and merger": {"vision": "merger", "peft_config": LORA, "gradient_checkpointing": True},
    "checkpointing, accumulation": {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "bf16 weights": {"bf16": True, "dtype": "bfloat16"},
    "snapping": {"snap_spans": True, "encoding": "interleaved_timestamp"},
    "bounded rows": {"max_queries_per_row": 2, "clip_workers": 0},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_three_steps(family: str, option: str, make_trainer: Callable[..., TimeLensSFTTrainer]) -> None:
    settings = dict(OPTIONS[option])
    if "peft_config" in settings:
        settings["peft_config"] = LoraConfig(**settings["peft_config"])
    trainer = make_trainer(family, **settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    entries = history(trainer, "loss", "grad_norm", "queries")
    assert len(entries) == 3
    assert all(torch.tensor(entry).isfinite().all() for entry in entries)
    assert all(entry[2] > 0 for entry in entries)
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    allowed = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert changed <= allowed
    mergers = {name for name in changed if ".merger." in name or ".deepstack_merger_list." in name}
    towers = {name for name in changed if ".visual." in name} - mergers
    language = {name for name in changed if ".visual." not in name}
    assert language
    assert bool(mergers) == (trainer.args.vision != "frozen")
    assert bool(towers) == (trainer.args.vision == "full")
    if "peft_config" in settings:
        assert all("lora_" in name for name in language)
    elif trainer.model.dtype == torch.float32:  # bf16 weights may round small steps away
        # What the last deepstack merger adds to video tokens after the last layer of a model of two is seen by nobody.
        assert changed == {name for name in allowed if ".deepstack_merger_list.1." not in name}


def test_real_clips(family: str, real_data: Path, make_trainer: Callable[..., TimeLensSFTTrainer]) -> None:
    """Three steps on Charades-STA's own annotations of two real clips, packed and plain: the same losses and norms."""
    loaded = load_moments(real_data / "charades" / "charades_sta_test.json", video_root=real_data / "charades")
    rows = find_videos([m for m in loaded if m.video_id in ("3MSZA", "OHOFG")])
    assert {Path(m.video).name for m in rows} == {"3MSZA.mp4", "OHOFG.mp4"}
    logged = []
    for share in (True, False):
        trainer = make_trainer(family, rows=rows, share_prefix=share, per_device_train_batch_size=1)
        trainer.train()
        logged.append(history(trainer, "loss", "grad_norm", "queries"))
    assert [entry == pytest.approx(other, rel=1e-4) for entry, other in zip(*logged, strict=True)] == [True] * 3
    assert max(entry[2] for entry in logged[0]) > 1


RELEASED = {
    "learning_rate": 1e-5,
    "weight_decay": 0.1,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "num_train_epochs": 1,
    "vision": "merger",
}


@pytest.mark.parametrize("name", ["timelens_7b", "timelens_8b", "tiny"])
def test_configurations_are_understood_and_hold_the_released_settings(name: str, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "recipes" / "configs" / f"{name}_sft.yaml"
    flags = ["--config", str(config), "--output_dir", str(tmp_path), "--use_cpu", "true"]
    data, training, model = parse((DataArguments, TimeLensSFTConfig, ModelConfig), flags)
    assert training.output_dir == str(tmp_path)  # flags win
    if name == "tiny":
        return
    assert {key: getattr(training, key) for key in RELEASED} == RELEASED
    assert (data.fps, data.max_frames, data.min_tokens, data.total_tokens) == (2.0, 448, 64, 14336)
    assert (data.min_duration, data.max_duration, data.max_words, data.audio_queries) == (5, 500, 200, False)
    videos = 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps
    assert abs(videos * 96_586 / 19_466 - 128) < 96_586 / 19_466 * 8 / 2  # nearest to 128 annotations on 8 processes
    assert training.snap_spans == (name == "timelens_7b")
    assert data.encoding == ("interleaved_timestamp" if name == "timelens_7b" else None)
    assert model.dtype == "float32"


@pytest.mark.parametrize("length", [{"max_steps": 2}, {"max_steps": -1, "num_train_epochs": 2}])
def test_a_finished_run_takes_no_step_more(
    family: str, length: dict[str, Any], make_trainer: Callable[..., TimeLensSFTTrainer], tmp_path: Path
) -> None:
    settings = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3, **length}
    trainer = make_trainer(family, **settings)
    trainer.train()
    taken = trainer.state.global_step
    assert taken >= 2
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    again = make_trainer(family, **settings)
    again.train(resume_from_checkpoint=str(last_checkpoint(tmp_path)))
    assert again.state.global_step == taken
    assert all(torch.equal(p, weights[name]) for name, p in again.model.named_parameters())


def test_saved_checkpoints_load_at_once_with_their_processor(
    family: str, make_trainer: Callable[..., TimeLensSFTTrainer]
) -> None:
    trainer = make_trainer(family, encoding="interleaved_timestamp", save_strategy="steps", save_steps=3)
    trainer.train()
    folder = last_checkpoint(trainer.args.output_dir)
    assert folder is not None
    processor = load_processor(folder)
    assert processor.encoding == "interleaved_timestamp"
    assert processor.frame_sampling == trainer.processing_class.frame_sampling
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


def test_adapters_and_mergers_are_saved(
    tiny_checkpoints: dict[str, Path], make_trainer: Callable[..., TimeLensSFTTrainer]
) -> None:
    from peft import PeftModel

    trainer = make_trainer(vision="merger", peft_config=LoraConfig(**LORA), save_strategy="steps", save_steps=3)
    trainer.train()
    folder = Path(trainer.args.output_dir) / "checkpoint-3"
    assert load_processor(folder).encoding == trainer.processing_class.encoding
    base = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen3_vl"])
    untouched = {name: p.clone() for name, p in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, folder).merge_and_unload()
    moved = {name for name, p in merged.named_parameters() if not torch.equal(p, untouched[name])}
    assert any(".visual.merger." in name for name in moved)
    assert any(".deepstack_merger_list." in name for name in moved)
    assert any("q_proj" in name for name in moved)


def test_an_unreadable_video_stops_or_is_skipped_and_counted(
    moments: list[Moment], tmp_path: Path, make_trainer: Callable[..., TimeLensSFTTrainer]
) -> None:
    """Skipped, the run equals one without that video: nothing stands in for it, and the mean is over the others."""
    videos = list(dict.fromkeys(m.video for m in moments))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows = [replace(m, video=str(broken)) if m.video == videos[1] else m for m in moments]
    common: dict[str, Any] = {"train_sampling_strategy": "sequential", "max_steps": 3}
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        make_trainer(rows=rows, **common).train()

    skipping = make_trainer(rows=rows, on_bad_video="skip", **common)
    skipping.train()
    assert history(skipping, "rows", "skipped_videos") == [(1, 1), (2, 1), (2, 1)]
    assert list(skipping.clips.skipped) == [str(broken)]

    # One video a micro-batch: one process then has nothing to compute in one of them, and still takes part.
    alone = make_trainer(
        rows=rows,
        on_bad_video="skip",
        **common,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
    )
    alone.train()
    for entry, expected in zip(
        history(alone, "loss", "grad_norm"), history(skipping, "loss", "grad_norm"), strict=True
    ):
        assert entry == pytest.approx(expected, rel=1e-4)


def test_interrupted_saving_is_not_resumed_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    for step in (2, 9):
        (tmp_path / f"checkpoint-{step}" / STATE_FILE).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_tokens_saved_and_operations_are_those_of_the_packed_row(
    make_trainer: Callable[..., TimeLensSFTTrainer],
) -> None:
    trainer = make_trainer()
    rows = [trainer.train_dataset[i] for i in range(2)]
    examples = trainer._examples(rows)
    parameters = trainer.model.num_parameters(exclude_embeddings=True)
    packed = trainer.floating_point_ops({"examples": examples})
    trainer.args.share_prefix = False
    plain = trainer.floating_point_ops({"examples": examples})
    assert packed == 6 * parameters * sum(e.packed_tokens for e in examples)
    trainer.args.share_prefix = True
    trainer._count(examples)
    trainer.log({"loss": 0.0})
    assert trainer.state.log_history[-1]["tokens_saved"] == pytest.approx(1 - packed / plain, abs=1e-4)


def test_a_row_without_any_target_is_counted(
    make_trainer: Callable[..., TimeLensSFTTrainer], moments: list[Moment]
) -> None:
    end = moments[0].duration or 0
    beyond = [replace(moments[0], id=name, query=name, spans=(Span(end - 0.2, end),)) for name in ("one", "other")]
    other = next(m for m in moments if m.video != moments[0].video)
    trainer = make_trainer(
        "qwen2_5_vl", encoding="interleaved_timestamp", rows=[*beyond, other], snap_spans=True, max_steps=1
    )
    trainer.train()
    [(left_out, queries)] = [(e["left_out_queries"], e["queries"]) for e in trainer.state.log_history if "loss" in e]
    assert (left_out, queries) == (2, 1)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"max_queries_per_row": 0}, "at least 1"),
        ({"average_tokens_across_devices": False}, "all processes"),
        ({"train_sampling_strategy": "group_by_length"}, "token lengths"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        TimeLensSFTConfig(output_dir=str(tmp_path), use_cpu=True, **setting)


def test_a_processor_and_attention_of_other_kinds_are_refused(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = tiny_checkpoints["qwen3_vl"]
    model = AutoModelForImageTextToText.from_pretrained(path, attn_implementation="eager")
    args = TimeLensSFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="load_processor"):
        TimeLensSFTTrainer(model=model, args=args, train_dataset=[], processing_class=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eager attention"):
        TimeLensSFTTrainer(model=model, args=args, train_dataset=[], processing_class=load_processor(path))
