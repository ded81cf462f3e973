"""Checkpoints of both trainers: kills while one is saved or deleted, weights alone, other data, and what is chosen."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, TrainerCallback

from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.spans import Span
from timelens_plugins.training.checkpoints import STATE_FILE, chosen_checkpoint, last_checkpoint
from timelens_plugins.training.dataset import moments_dataset
from timelens_plugins.training.origin import Origin

MakeTrainer = Callable[..., Any]


def letters(completions: list[Any], **_: Any) -> list[float]:
    return [len(set(completion[0]["content"])) / 50 for completion in completions]


@pytest.fixture(params=["sft", "grpo"])
def make_trainer(
    request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> MakeTrainer:
    """``make_trainer(**settings)``: for two steps of two prompts or videos, with a checkpoint after each."""

    def make(rows: list[Moment] = moments, checkpoint: Path = tiny_checkpoints["qwen3_vl"], **settings: Any) -> Any:
        processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
        common: dict[str, Any] = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 2,
            "save_strategy": "steps",
            "save_steps": 1,
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "clip_workers": 0,
        }
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        data = {"train_dataset": moments_dataset(rows, processor.encoding), "processing_class": processor}
        if request.param == "sft":
            common |= {"per_device_train_batch_size": 2}
            return TimeLensSFTTrainer(model=model, args=TimeLensSFTConfig(**(common | settings)), **data)
        common |= {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4}
        common |= {"gradient_checkpointing": False, "self_check": False}
        args = TimeLensGRPOConfig(**(common | settings))
        return TimeLensGRPOTrainer(model=model, reward_funcs=letters, args=args, **data)

    return make


class KilledError(BaseException):
    """In the place of ``kill -9``: nobody catches it."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "checkpoint" in path.name)


def test_a_kill_before_a_checkpoint_is_whole_leaves_the_one_before(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    original = os.replace

    def kill(source: Any, target: Any) -> None:
        if Path(target) == run / "checkpoint-2" / STATE_FILE:
            raise KilledError
        original(source, target)

    trainer = make_trainer()
    trainer.args.save_total_limit = 1  # the hardest case, which the settings refuse
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KilledError):
            trainer.train()
    assert names(run) == ["checkpoint-1", "checkpoint-2"]
    assert last_checkpoint(run) == str(run / "checkpoint-1")
    again = make_trainer()
    again.args.save_total_limit = 1
    again.train(resume_from_checkpoint=True)  # not the half-written one, which transformers would take
    assert names(run) == ["checkpoint-2"]
    assert last_checkpoint(run) == str(run / "checkpoint-2")
    assert torch.load(run / "checkpoint-2" / "training_args.bin", weights_only=False).save_total_limit == 1


def test_a_kill_while_a_checkpoint_is_deleted_leaves_none_half(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def kill(path: Any, **_: Any) -> None:
        os.unlink(Path(path) / "model.safetensors")
        raise KilledError

    trainer = make_trainer(max_steps=3, save_total_limit=2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KilledError):
            trainer.train()
    assert names(run) == [".checkpoint-1.deleted", "checkpoint-2", "checkpoint-3"]
    assert last_checkpoint(run) == str(run / "checkpoint-3")
    make_trainer(max_steps=4, save_total_limit=2).train(resume_from_checkpoint=True)
    assert names(run) == ["checkpoint-3", "checkpoint-4"]


def test_a_checkpoint_that_is_written_over_is_not_whole_meanwhile(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    make_trainer().train()
    trainer = make_trainer()

    def kill(*_: Any) -> None:
        raise KilledError

    monkeypatch.setattr(trainer, "_save_rng_state", kill)
    with pytest.raises(KilledError):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-1"))
    assert last_checkpoint(run) == str(run / "checkpoint-1")


def test_what_shares_files_with_a_checkpoint_that_is_written_over_stays_as_it_is(
    make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path
) -> None:
    """As ``best``, which early stopping makes of hard links."""
    run = tmp_path / "run"
    make_trainer().train()
    shutil.copytree(run / "checkpoint-2", run / "best", copy_function=os.link)
    kept = {path.name: path.read_bytes() for path in (run / "best").iterdir()}
    (run / "checkpoint-2" / "difficulty.json").write_text("of a run with online difficulty")
    make_trainer(moments[::-1]).train(resume_from_checkpoint=str(run / "checkpoint-1"))
    assert (run / "checkpoint-2" / "model.safetensors").read_bytes() != kept["model.safetensors"]
    assert {path.name: path.read_bytes() for path in (run / "best").iterdir()} == kept
    assert not (run / "checkpoint-2" / "difficulty.json").exists()
    assert last_checkpoint(run) == str(run / "checkpoint-2")


def test_the_best_checkpoint_is_not_deleted(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(max_steps=4, save_total_limit=2)
    trainer.train()
    assert names(tmp_path / "run") == ["checkpoint-3", "checkpoint-4"]
    trainer = make_trainer(max_steps=6, save_total_limit=2)
    original = trainer._save_checkpoint

    def save(*args: Any) -> None:
        trainer.state.best_model_checkpoint = str(tmp_path / "run" / "checkpoint-3")
        original(*args)

    trainer._save_checkpoint = save
    trainer.train(resume_from_checkpoint=True)
    assert names(tmp_path / "run") == ["checkpoint-3", "checkpoint-6"]
    with pytest.raises(ValueError, match=r"save_total_limit=1: where another .* Set save_total_limit=2"):
        make_trainer(save_total_limit=1)


def test_weights_alone_are_neither_continued_from_nor_trained_again(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_trainer(save_only_model=True, save_total_limit=2, max_steps=3).train()
    assert names(run) == ["checkpoint-2", "checkpoint-3"]
    assert not list(run.glob("*/" + STATE_FILE))
    says = r"checkpoint-3 holds a model without optimizer and schedule \(save_only_model: true\)"
    with pytest.raises(ValueError, match=f"{says}: it cannot be continued from.* another output_dir"):
        last_checkpoint(run)
    with pytest.raises(ValueError, match=says):
        make_trainer(save_only_model=True).train(resume_from_checkpoint=str(run / "checkpoint-3"))
    with pytest.raises(ValueError, match=says):
        make_trainer().train(resume_from_checkpoint=True)
    (run / "checkpoint-3" / STATE_FILE).write_text("{}\n")  # a mark does not make a schedule
    with pytest.raises(ValueError, match=says):
        last_checkpoint(run)


def test_other_data_and_another_model_are_told(
    make_trainer: MakeTrainer,
    moments: list[Moment],
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "run"
    make_trainer(max_steps=1).train()
    checkpoint = str(run / "checkpoint-1")
    state = json.loads((run / "checkpoint-1" / STATE_FILE).read_text())
    assert state["data"]
    assert state["model"] == str(tiny_checkpoints["qwen3_vl"])

    def told(**settings: Any) -> set[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "timelens_plugins"):
            make_trainer(max_steps=1, **settings).train(resume_from_checkpoint=checkpoint)
        return {phrase for phrase in ("another data set", "started from the model") if phrase in caplog.text}

    assert told() == set()
    assert told(rows=moments[:-1]) == {"another data set"}
    assert told(rows=[*moments[:-1], replace(moments[-1], id="other")]) == {"another data set"}
    moved = shutil.copytree(tiny_checkpoints["qwen3_vl"], tmp_path / "moved")
    assert told(checkpoint=moved) == {"started from the model"}
    if "generation" not in state:  # SFT
        assert told(max_queries_per_row=1) == {"another data set"}
        (run / "checkpoint-1" / STATE_FILE).write_text("{}\n")  # as it was once saved
        assert told(max_queries_per_row=1) == set()


def test_what_changed_under_its_name_is_told(
    make_trainer: MakeTrainer,
    moments: list[Moment],
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    base = shutil.copytree(tiny_checkpoints["qwen3_vl"], tmp_path / "base")
    videos = shutil.copytree(Path(moments[0].video).parents[1], tmp_path / "videos")
    rows = [replace(m, video=str(videos / Path(m.video).relative_to(Path(m.video).parents[1]))) for m in moments]
    make_trainer(rows, base, max_steps=1).train()
    phrases = ("another data set", "held other queries", "other sizes or times", "from other weights", "were others: ")

    def told(rows: list[Moment] = rows) -> set[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "timelens_plugins"):
            make_trainer(rows, base, max_steps=1).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
        return {phrase for phrase in phrases if phrase in caplog.text}

    assert told() == set()
    assert told([replace(rows[0], query="something else"), *rows[1:]]) == {"held other queries"}
    assert told([replace(rows[0], spans=(Span(0.0, 1.0),)), *rows[1:]]) == {"held other queries"}
    assert told([replace(rows[0], answer="From 0 to 1."), *rows[1:]]) == {"held other queries"}
    stat = os.stat(rows[0].video)
    os.utime(rows[0].video, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert told() == {"other sizes or times"}
    os.utime(rows[0].video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text(template + "{# the same turns #}")
    assert told() == {"were others: "}
    assert re.search(r"were others: chat_template: '\w+' then, '\w+' now", caplog.text)
    (base / "chat_template.jinja").write_text(template)
    weights = load_file(base / "model.safetensors")
    next(iter(weights.values())).view(-1)[-1] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert told() == {"from other weights"}


def test_adapters_made_anew_are_no_other_model(tiny_checkpoints: dict[str, Path]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"])
    origins = []
    for change in (0.0, 0.0, 1.0):
        model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen3_vl"])
        with torch.no_grad():
            model.get_input_embeddings().weight[-1, -1] += change
        options = {"target_modules": ["q_proj"], "modules_to_save": ["merger"], "init_lora_weights": False}
        tuned = get_peft_model(model, LoraConfig(r=2, **options))
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.data.normal_()
        origins.append(Origin.of(["a"], [], tuned, processor))
    assert origins[0] == origins[1]
    assert origins[0].weights != origins[2].weights


def test_an_adapter_is_no_base(
    make_trainer: MakeTrainer, tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> None:
    """Its own weights would be left as they are, or lost to a new adapter; merged as the page on training says it, its
    answers are trained on."""
    processor = load_processor(tiny_checkpoints["qwen3_vl"], fps=1.0, min_tokens=4, total_tokens=64)
    base = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen3_vl"], dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"an adapter on its base.* merge the two into a checkpoint \(docs/training"):
        make_trainer(checkpoint=tmp_path / "adapter")

    [lines] = re.findall(r"```python\n(from peft .*?)```", Path("docs/training.md").read_text(), re.DOTALL)
    for name, path in (
        ("Qwen/Qwen3-VL-8B-Instruct", tiny_checkpoints["qwen3_vl"]),
        ("build/sft_lora", tmp_path / "adapter"),
        ("build/sft_merged", tmp_path / "merged"),
    ):
        assert name in lines
        lines = lines.replace(name, str(path))
    exec(lines, {})
    merged = make_trainer(checkpoint=tmp_path / "merged").model
    expected = tuned.merge_and_unload()
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), parameter)


def test_a_checkpoint_of_the_other_trainer_is_told(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Its optimizer may fit, and its place in the data mean nothing here."""
    make_trainer(max_steps=1).train()
    path = tmp_path / "run" / "checkpoint-1" / STATE_FILE
    state = json.loads(path.read_text())
    if "generation" in state:
        path.write_text(json.dumps({name: state[name] for name in ("data", "model", "weights")}))
    else:
        path.write_text(json.dumps(state | {"format": 1, "generation": 1, "used": 0, "layout": {}}))
    with pytest.raises(ValueError, match=r"checkpoint-1 was saved by .*GRPO.*: choose another output_dir"):
        make_trainer().train(resume_from_checkpoint=True)


def test_two_runs_in_one_folder(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Their checkpoints would have the files of both."""
    first, second = make_trainer(), make_trainer()
    told: list[str] = []

    class Beside(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            with pytest.raises(ValueError, match="another run is training into") as caught:
                second.train()
            told.append(str(caught.value))

    first.add_callback(Beside())
    first.train()
    assert (
        told
        == [f"output_dir: another run is training into {tmp_path / 'run'}; wait for it, or choose another output_dir"]
        * 2
    )
    assert names(tmp_path / "run") == ["checkpoint-1", "checkpoint-2"]
    second.train(resume_from_checkpoint=True)


def test_a_folder_that_cannot_be_written_to_is_told_before_the_first_step(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    original = Path.open

    def read_only(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "r" and path.is_relative_to(tmp_path / "run"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return original(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(ValueError, match=r"output_dir: .*run cannot be written to \(Read-only file system\)"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_disk_that_is_full_is_told(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    original = torch.save

    def save(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if Path(file) == tmp_path / "run" / "checkpoint-2" / "optimizer.pt":
            raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 364800 vs 364688")  # no more
        original(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError) as caught:
        trainer.train()
    [told] = caught.value.__notes__
    assert re.search(r"checkpoint-2 could not be saved, with \d+\.\d+ GB free there", told)
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-1")


def test_a_loss_that_is_no_number_ends_the_run(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """transformers would show 0, and save the model."""
    trainer = make_trainer(max_steps=3, logging_steps=1)
    compute = trainer.compute_loss

    def loss(*args: Any, **kwargs: Any) -> Any:
        return compute(*args, **kwargs) * (1.0 if trainer.state.global_step < 1 else math.nan)

    trainer.compute_loss = loss
    with pytest.raises(FloatingPointError, match="the loss at step 2 is nan: the model has diverged"):
        trainer.train()
    assert names(tmp_path / "run") == ["checkpoint-1"]


def test_weights_that_are_no_numbers_are_not_saved(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 2:
                model.get_output_embeddings().weight.data[0, 0] = math.inf

    trainer = make_trainer(max_steps=3, logging_steps=3, save_total_limit=2)
    trainer.add_callback(Poison())
    with pytest.raises(FloatingPointError, match="weights after step 2 are no numbers and are not saved"):
        trainer.train()
    assert names(tmp_path / "run") == ["checkpoint-1"]
    with pytest.raises(ValueError, match="logging_nan_inf_filter=True does not work here"):
        make_trainer(logging_nan_inf_filter=True)


def test_weights_in_half_precision_are_told(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer(bf16=True)
    assert "lost to rounding" not in caplog.text
    load = AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda path, **_: load(path, dtype=torch.bfloat16)
    )
    make_trainer(bf16=True, learning_rate=1e-6)
    assert re.search(r"[\d,]+ trained values are in bfloat16: .* lost to rounding, .* learning_rate=1e-06", caplog.text)


def test_settings_that_the_checkpoint_decides_are_told(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers takes rates and decay from the checkpoint, and counts the place in the data in steps."""
    own: dict[str, Any] = {"learning_rate": 1e-4, "weight_decay": 0.1, "lr_scheduler_type": "constant"}
    make_trainer(max_steps=1, **own).train()

    def told(**settings: Any) -> set[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "timelens_plugins"):
            make_trainer(**own | settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
        said = (
            "learning rate 0.0001 and not 2e-05",
            "weight decay 0.1 and not 0.3",
            "steps took 2 rows each, and they",
        )
        return {phrase for phrase in said if phrase in caplog.text}

    assert told() == set()
    assert told(learning_rate=2e-5, weight_decay=0.3) == {
        "learning rate 0.0001 and not 2e-05",
        "weight decay 0.1 and not 0.3",
    }
    assert told(gradient_accumulation_steps=2) == {"steps took 2 rows each, and they"}


def test_what_a_recipe_continues_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = str(tmp_path / "run")
    assert chosen_checkpoint(output, None) is chosen_checkpoint(output, False) is chosen_checkpoint(output, "false")
    for setting in (True, "true"):
        with pytest.raises(ValueError, match="holds no complete checkpoint"):
            chosen_checkpoint(output, setting)
    for step in (2, 10, 11):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
    for step in (2, 10):
        (tmp_path / "run" / f"checkpoint-{step}" / STATE_FILE).write_text("{}\n")
    second, tenth, eleventh = (str(tmp_path / "run" / f"checkpoint-{step}") for step in (2, 10, 11))
    for setting in (None, "", True, "True", tenth):
        assert chosen_checkpoint(output, setting) == tenth
    assert "although" not in caplog.text
    assert chosen_checkpoint(output, second) == second
    assert f"starting from {second}, as resume_from_checkpoint says, although {output} has checkpoint-10" in caplog.text
    with pytest.raises(ValueError, match="checkpoint-11 of an earlier run"):
        chosen_checkpoint(output, False)
    with pytest.raises(ValueError, match=r"checkpoint-11 has no timelens_state\.json: saving it was interrupted"):
        chosen_checkpoint(output, eleventh)
    with pytest.raises(ValueError, match="no such checkpoint"):
        chosen_checkpoint(output, "nowhere")
