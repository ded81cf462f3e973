"""Qwen3-VL as a mixture of experts: answers, log-probs, load-balancing loss, training, against the plain model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import SAMPLING, history
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText

from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.shared_prefix import PromptTree, generate_group, log_probs
from timelens_plugins.training.dataset import moments_dataset
from timelens_plugins.video import sample_frames

FAMILY = "qwen3_vl_moe"


@pytest.fixture(scope="module")
def model(tiny_checkpoints: dict[str, Path]) -> Any:
    return AutoModelForImageTextToText.from_pretrained(tiny_checkpoints[FAMILY], dtype=torch.float32)


@pytest.fixture(scope="module")
def prompts(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> list[Any]:
    processor = load_processor(tiny_checkpoints[FAMILY], **SAMPLING)
    [dataset, clip] = moments_dataset(moments), moments[0].video
    loaded = load_clip(processor, sample_frames(clip, processor.frame_sampling))
    return [loaded.prompt(row["prompt"]) for row in dataset if row["video"] == clip]


def test_log_probs_and_load_balancing_loss_are_those_of_the_plain_batch(model: Any, prompts: list[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    answers = [[torch.randint(30, 200, (n,), generator=generator) for n in lengths] for lengths in ((3, 7), (1, 5))]
    trees = [PromptTree.group(prompt, group) for prompt, group in zip(prompts, answers, strict=False)]
    found = log_probs(model, trees, router_loss=True)
    rows = [(tree.prompt, branch.tokens) for tree in trees for branch in tree.branches]
    width = max(len(prompt) + tokens.numel() for prompt, tokens in rows)
    ids, mask, kinds = torch.zeros(3, len(rows), width, dtype=torch.long)
    for i, (prompt, tokens) in enumerate(rows):
        ids[i, : len(prompt) + tokens.numel()] = torch.cat([prompt.input_ids, tokens])
        kinds[i, : len(prompt)] = prompt.mm_token_type_ids
        mask[i, : len(prompt) + tokens.numel()] = 1
    vision = {name: torch.cat([prompt.vision[name] for prompt, _ in rows]) for name in rows[0][0].vision}
    output = model(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=kinds,
        output_router_logits=True,
        use_cache=False,
        **vision,
    )
    spread = torch.log_softmax(output.logits, -1)
    expected = [
        spread[i, len(prompt) - 1 + k, token]
        for i, (prompt, tokens) in enumerate(rows)
        for k, token in enumerate(tokens.tolist())
    ]
    assert_close(found.log_probs, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert found.router_loss is not None
    assert_close(found.router_loss, output.aux_loss, rtol=1e-5, atol=0.0)
    gates = [p for name, p in model.named_parameters() if name.endswith("mlp.gate.weight")]
    ours, theirs = (torch.autograd.grad(loss, gates) for loss in (found.router_loss, output.aux_loss))
    assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert max(float(g.abs().max()) for g in theirs) > 1e-4


def test_greedy_answers_are_the_plain_models(model: Any, prompts: list[Any]) -> None:
    config = model.generation_config
    config.max_new_tokens, config.do_sample = 8, False
    [[shared]] = generate_group(model, prompts[0], config)
    ids = prompts[0].input_ids[None]
    kinds = prompts[0].mm_token_type_ids[None]
    plain = model.generate(ids, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), **prompts[0].vision)
    assert shared.tolist() == plain[0, ids.shape[1] :].tolist()


def test_grpo_trains_it_with_its_load_balancing_loss(make_trainer: Callable[..., TimeLensGRPOTrainer]) -> None:
    runs: dict[str, TimeLensGRPOTrainer] = {}
    for name, settings in {
        "shared": {},
        "plain": {"share_prefix": False},
        "off": {"router_aux_loss_coef": 0.0},
    }.items():
        runs[name] = make_trainer(
            FAMILY, max_steps=2, num_iterations=2, gradient_checkpointing=name == "shared", **settings
        )
        runs[name].train()
    for name in ("loss", "aux_loss", "grad_norm", "reward"):
        shared, plain = ([v[0] for v in history(runs[run], name)] for run in ("shared", "plain"))
        assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    # The coefficient is the checkpoint's own unless one is set: 0.001 here.
    [with_loss, without] = (history(runs[run], "loss")[0][0] for run in ("shared", "off"))
    assert with_loss - without == pytest.approx(0.001 * history(runs["shared"], "aux_loss")[0][0], rel=1e-2)
    assert "aux_loss" not in runs["off"].state.log_history[0]


def test_sft_trains_it(tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path) -> None:
    processor = load_processor(tiny_checkpoints[FAMILY], **SAMPLING)

    def trainer(share: bool, **config: Any) -> TimeLensSFTTrainer:
        settings: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "save_strategy": "no", "report_to": []}
        settings |= {"use_cpu": True, "disable_tqdm": True, "output_dir": str(tmp_path)}
        model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints[FAMILY], dtype=torch.float32)
        model.config.get_text_config().update(config)
        return TimeLensSFTTrainer(
            model=model,
            args=TimeLensSFTConfig(share_prefix=share, **settings),
            train_dataset=moments_dataset(moments),
            processing_class=processor,
        )

    shared, plain = trainer(True), trainer(False)
    for run in (shared, plain):
        run.train()
    for name in ("loss", "grad_norm"):
        assert_close(history(shared, name), history(plain, name), rtol=1e-4, atol=0.0)
    with pytest.raises(ValueError, match=r"load-balancing loss .* output_router_logits"):
        trainer(True, output_router_logits=True)
