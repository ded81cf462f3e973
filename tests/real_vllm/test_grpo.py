"""GRPO with rollouts by the real vLLM: every sampled log-prob beside a plain forward of the model of that moment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from timelens_plugins.clips import load_clip
from timelens_plugins.families.tiny import Family, save_checkpoint
from timelens_plugins.grpo.prompts import clip_of
from timelens_plugins.grpo.rollout import rollout
from timelens_plugins.inference.plain import repeated_vision
from timelens_plugins.inference.vllm.starting import VllmError
from timelens_plugins.moments import Moment
from timelens_plugins.video import sample_frames

sys.path.insert(0, str(Path(__file__).parents[1] / "grpo"))
import grpo_runs

FAMILIES: tuple[Family, ...] = ("qwen3_vl", "qwen2_5_vl")
TOLERANCE = 1e-3  # nats, of a token: two implementations in float32
CHANGED = 0.005  # nats by which a step at least moves some log-prob, so that old weights would be seen
SETTINGS: dict[str, Any] = {
    "use_vllm": True,
    "vllm_max_model_length": 512,
    "temperature": 1.5,
    "learning_rate": 2e-3,
    "max_completion_length": 8,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whose answers differ from each other: those of the other tests are sure of every token."""
    root = tmp_path_factory.mktemp("checkpoints")
    sizes: dict[str, Any] = {"hidden_size": 128, "head_dim": 32, "logit_scale": 1.0}
    untied = {family: save_checkpoint(root / family, family, **sizes) for family in FAMILIES}
    return untied | {"tied": save_checkpoint(root / "tied", "qwen3_vl", tie_word_embeddings=True, **sizes)}


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """Of synthetic clips, of which some have several."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    folder = tmp_path_factory.mktemp("train")
    return grpo_runs.training_moments(write_training_set(folder, 2, size=64, fps=4.0, progress=False))


class Rescored:
    """Rollouts of a trainer, each scored again from the video's file by the model that training has at that moment.

    Attributes:
        found: the greatest difference between the log-probs of each rollout and the model's own.
        old: the same beside the model of the rollout before.
    """

    def __init__(self, trainer: Any) -> None:
        self.found: list[float] = []
        self.old: list[float] = []
        self._before: dict[str, Tensor] = {}
        trainer.rollout_func = self

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        output = rollout(prompts, trainer)
        generations = len(trainer._rows) // len(trainer._groups)
        kept = [i for i in range(len(trainer._rows)) if trainer._groups[i // generations].kept]
        answers = [(trainer._rows[i], output["completion_ids"][i], output["logprobs"][i]) for i in kept]
        self.found.append(_difference(trainer, answers))
        now = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        if self._before:
            _set_weights(trainer, self._before)
            self.old.append(_difference(trainer, answers))
            _set_weights(trainer, now)
        self._before = now
        return output


@torch.no_grad()
def _set_weights(trainer: Any, weights: dict[str, Tensor]) -> None:
    for name, weight in trainer.model.named_parameters():
        weight.copy_(weights[name])


@torch.no_grad()
def _difference(trainer: Any, answers: Sequence[tuple[Any, list[int], list[float]]]) -> float:
    model, processor, worst = trainer.model, trainer.processing_class, 0.0
    training = model.training
    model.eval()
    for row, ids, sampled in answers:
        key = clip_of(row)
        clip = sample_frames(key.video, processor.frame_sampling, video_start=key.video_start, video_end=key.video_end)
        prompt = load_clip(processor, clip).prompt(row["prompt"])
        answer = torch.tensor(ids)
        whole = torch.cat([prompt.input_ids, answer])[None]
        logits: Tensor = model(
            input_ids=whole,
            attention_mask=torch.ones_like(whole),
            mm_token_type_ids=torch.cat([prompt.mm_token_type_ids, torch.zeros_like(answer)])[None],
            use_cache=False,
            **repeated_vision([prompt], 1, torch.device("cpu")),
        ).logits[0, len(prompt) - 1 : -1]
        logits[:, trainer.generation_config.suppress_tokens] = float("-inf")
        scores = (logits / trainer.temperature).log_softmax(-1).gather(1, answer[:, None])[:, 0]
        worst = max(worst, float((scores - torch.tensor(sampled)).abs().max()))
    model.train(training)
    return worst


@pytest.mark.parametrize("family", [*FAMILIES, "tied"])
def test_each_rollout_is_sampled_by_the_weights_of_its_step(
    checkpoints: dict[str, Path],
    moments: list[Moment],
    tmp_path: Path,
    family: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same two prompts in each of three steps, so that whatever vLLM keeps of one would be used in the next."""
    checkpoint = checkpoints[family]
    trainer = grpo_runs.make_trainer(checkpoint, moments[:2], tmp_path, **SETTINGS)
    rescored = Rescored(trainer)
    trainer.train()
    print(family, rescored.found, rescored.old)
    assert len(rescored.found) == 3
    assert max(rescored.found) < TOLERANCE
    assert min(rescored.old) > CHANGED, "old weights would not have been seen"
    assert "vLLM agrees with transformers in 1 prompts: ids equal, log-probs of" in capsys.readouterr().out
    names = [f"sampling/importance_sampling_ratio/{name}" for name in ("min", "mean", "max")]
    for logged in grpo_runs.history(trainer, *names, "sampling/sampling_logp_difference/max"):
        print(family, logged)
        # The trainer's distribution has the two vision tokens, which are not sampled: some 1/350 a token here, 1/100
        # where the head is the embeddings.
        assert logged[:3] == pytest.approx((1, 1, 1), abs=0.1 if family == "tied" else 0.05)
        assert 0 < logged[3] < (0.03 if family == "tied" else 0.01)
    assert trainer.vllm_generation._llm is None, "what is not needed any more is given back"


def test_adapters_mergers_queries_of_a_video_and_skipped_ones(
    checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> None:
    """With evaluation in between, and completions that are used twice."""
    from peft import LoraConfig

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    by_video = [m for m in moments if sum(other.video == m.video for other in moments) > 1][:2]
    bad = replace(moments[0], video=str(broken))
    trainer = grpo_runs.make_trainer(
        checkpoints["qwen3_vl"],
        [*by_video, bad, moments[-1]],
        tmp_path / "run",
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1),
        with_eval=True,
        **SETTINGS
        | {
            "per_device_train_batch_size": 4 * grpo_runs.GENERATIONS,
            "learning_rate": 1e-2,
            "num_iterations": 2,
            "max_steps": 4,
            "queries_per_video": 2,
            "on_bad_video": "skip",
            "eval_strategy": "steps",
            "eval_steps": 2,
            "per_device_eval_batch_size": 2 * grpo_runs.GENERATIONS,
            "vllm_importance_sampling_mode": "token_truncate",
        },
    )
    untouched = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    rescored = Rescored(trainer)
    trainer.train()
    print(rescored.found, rescored.old)
    assert len(rescored.found) == 2 + 2 * 2, "two generation batches, two evaluations of two batches each"
    assert max(rescored.found) < TOLERANCE
    assert max(rescored.old) > CHANGED
    for name, parameter in trainer.model.named_parameters():
        if name in untouched:
            assert torch.equal(parameter, untouched[name]), name
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(entries) == 2
    assert entries[0]["eval_sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.05)


def test_a_generation_batch_of_vllm_needs_vllm(
    checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> None:
    """A checkpoint in the middle of one, whose log-probs are kept, goes on with vLLM alone."""
    settings = SETTINGS | {
        "per_device_train_batch_size": grpo_runs.GENERATIONS,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def run(resume: Path | None, **other: Any) -> Any:
        run = grpo_runs.make_trainer(checkpoints["qwen2_5_vl"], moments, tmp_path / "run", **settings | other)
        run.train(resume_from_checkpoint=resume)
        return run

    run(None)
    checkpoint = tmp_path / "run" / "checkpoint-1"
    assert json.loads((checkpoint / "timelens_state.json").read_text())["layout"]["use_vllm"] is True
    assert len(grpo_runs.history(run(checkpoint), "loss")) == 2
    with pytest.raises(ValueError, match=r"use_vllm=True \(now False\)"):
        run(checkpoint, use_vllm=False, vllm_max_model_length=None)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_resumed_run_is_the_unbroken_one(
    checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path, family: str
) -> None:
    """Also the completions that vLLM samples, which the rewards and lengths tell."""
    settings = SETTINGS | {"max_steps": 4, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2}
    names = ("loss", "grad_norm", "reward", "entropy", "completions/mean_length", "num_tokens")
    found = []
    for checkpoint in (None, tmp_path / "0" / "checkpoint-2"):
        folder = tmp_path / str(len(found))
        trainer = grpo_runs.make_trainer(checkpoints[family], moments, folder, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        found.append(grpo_runs.history(trainer, *names)[-2:])
    whole, resumed = found
    assert whole[0] != whole[1]
    for step, expected in zip(resumed, whole, strict=True):
        assert step == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_more_prompts_than_vllm_reads_at_once(
    checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> None:
    """None of them is read in parts, after which vLLM 0.32 cannot sample with a seed on a CPU."""
    trainer = grpo_runs.make_trainer(
        checkpoints["qwen3_vl"],
        moments,
        tmp_path / "run",
        **SETTINGS
        | {"max_steps": 1, "per_device_train_batch_size": 256, "num_generations": 64, "max_completion_length": 1},
    )
    trainer.train()
    assert len(grpo_runs.history(trainer, "loss")) == 1


def test_what_cannot_be_sampled_is_named(checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path) -> None:
    def make(family: str = "qwen3_vl", **settings: Any) -> Any:
        return grpo_runs.make_trainer(checkpoints[family], moments, tmp_path, **SETTINGS | settings)

    with pytest.raises(ValueError, match="vllm_enable_sleep_mode=True does not work here"):
        make(vllm_enable_sleep_mode=True)
    with pytest.raises(ValueError, match="take use_vllm=False for this encoding"):
        make(encoding="text_prefix")
    with pytest.raises(VllmError, match=r"do not fit in the 96 that vLLM holds: raise vllm_max_model_length"):
        make(vllm_max_model_length=96).train()
