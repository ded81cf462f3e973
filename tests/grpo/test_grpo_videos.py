"""Several queries of a video in one tree: the gradients of plain groups, what is computed once, and an exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from delta_rule import keep_double
from grpo_runs import GENERATIONS, Diary, history, killed_beside
from killed_online_run import KILLED_AFTER, VIDEOS, plateau
from peft import LoraConfig
from test_grpo_online import FIGURES, states
from transformers import TrainerCallback

from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.grpo import SelfCheckError, TimeLensGRPOConfig, TimeLensGRPOTrainer, scoring
from timelens_plugins.grpo.groups import GROUPS, by_video, with_trunks
from timelens_plugins.grpo.rollout import complete_groups
from timelens_plugins.grpo.sampler import shuffled_by_video
from timelens_plugins.moments import Moment
from timelens_plugins.rewards import temporal_iou_reward
from timelens_plugins.shared_prefix import PromptTree

MakeTrainer = Callable[..., TimeLensGRPOTrainer]
NAMES = ("loss", "grad_norm", "reward", "entropy", "kl", "num_tokens")

# Three queries of one video and one of another, used for two updates: in the first, ratios are 1 and the loss is 0.
STEP: dict[str, Any] = {
    "per_device_train_batch_size": 4 * GENERATIONS,
    "num_iterations": 2,
    "max_steps": 2,
    "queries_per_video": 3,
    "shuffle_dataset": False,
    "self_check": False,
    "max_grad_norm": 1e9,
    "learning_rate": 1e-4,
    "beta": 0.1,
}


class Gradients(TrainerCallback):
    """Every parameter's gradient at each update."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


@pytest.fixture(params=["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
def any_family(request: pytest.FixtureRequest) -> Iterator[str]:
    """Also linear attention, in double precision."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "qwen3_5":
            keep_double(patch)
        yield str(request.param)


def step(make: MakeTrainer, family: str, **settings: Any) -> tuple[TimeLensGRPOTrainer, Gradients]:
    seen = Gradients()
    trainer = make(family, callbacks=[seen], dtype=torch.float64, **STEP | settings)
    trainer.train()
    return trainer, seen


def difference(found: Gradients, expected: Gradients) -> float:
    """The largest of any parameter's gradient, in parts of its own largest entry."""
    assert len(found.steps) == len(expected.steps) == 2
    worst = 0.0
    for a, b in zip(found.steps, expected.steps, strict=True):
        assert a.keys() == b.keys()
        floor = 1e-3 * max(float(g.abs().max()) for g in b.values())  # a gradient that is 0 but for rounding
        worst = max(worst, *(float((a[n] - b[n]).abs().max()) / max(float(b[n].abs().max()), floor) for n in b))
    return worst


def test_a_step_has_the_gradients_of_plain_groups(any_family: str, make_trainer: MakeTrainer) -> None:
    """In double precision, to one part in a million."""
    settings: dict[str, Any] = {"vision": "merger" if any_family == "qwen3_vl" else "full"}
    plain, expected = step(make_trainer, any_family, share_prefix=False, **settings)
    shared, found = step(make_trainer, any_family, **settings)
    assert difference(found, expected) < 1e-6
    # Losses are small differences of sums of order 1, and the norms of layers are in single precision upstream.
    torch.testing.assert_close(history(shared, *NAMES), history(plain, *NAMES), rtol=1e-6, atol=1e-7)
    assert all(abs(loss) > 1e-4 for (loss,) in history(shared, "loss")[1:])
    assert history(shared, "queries_per_video") == [(2.0,), (None,)], "of what was generated for two steps"
    assert (
        history(shared, "sharing/saved_share")[0]
        > history(make_alone(make_trainer, any_family), "sharing/saved_share")[0]
    )


def test_training_on_the_prefill_of_the_rollout(make_trainer: MakeTrainer, moments: list[Moment]) -> None:
    """``keep_prefill``: the same steps, in which no video is in a training row again."""
    videos = [m.video for m in moments]
    several = [m for m in moments if videos.count(m.video) > 1]
    rows = [m for video in dict.fromkeys(m.video for m in several) for m in several if m.video == video][:2]
    rows += [m for m in several if m.video != rows[0].video][:2]
    seen: list[Gradients] = []
    tokens: list[int] = []
    kept: dict[int, int] = {}
    own = {"num_iterations": 1, "gradient_checkpointing": True, "max_completion_length": 5, "queries_per_video": 2}
    for keep in (False, True):
        seen.append(Gradients())
        settings = STEP | own | {"per_device_train_batch_size": 2 * GENERATIONS, "keep_prefill": keep}
        trainer = make_trainer(rows=rows, callbacks=[seen[-1]], dtype=torch.float64, **settings)
        tokens.append(0)

        def count(module: Any, args: Any, kwargs: Any) -> None:
            if kwargs["inputs_embeds"].shape[1] > 1:
                tokens[-1] += kwargs["inputs_embeds"].shape[1]

        trainer.model.model.language_model.register_forward_pre_hook(count, with_kwargs=True)
        loss = trainer.compute_loss

        def spy(model: Any, inputs: Any, loss: Any = loss, keep: bool = keep, **kwargs: Any) -> Any:
            for group in inputs[GROUPS] if keep else ():
                assert group.prefix.keys
                kept[id(group.prefix)] = len(group.trunk)
            return loss(model, inputs, **kwargs)

        trainer.compute_loss = spy  # type: ignore[method-assign]
        trainer.train()
    assert difference(seen[1], seen[0]) < 1e-6
    assert len(kept) == 2
    assert tokens[0] - tokens[1] == sum(kept.values())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_iterations": 2}, "num_iterations=2"),
        ({"steps_per_generation": 2}, "steps_per_generation=2"),
        ({"share_prefix": False}, "what share_prefix=True computes"),
        ({"per_device_train_batch_size": 16}, "training rows of one video"),
        ({"fsdp": True, "fsdp_config": {"fsdp_version": 2}}, "needs whole weights"),
    ],
)
def test_prefills_that_cannot_be_trained_on(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        TimeLensGRPOConfig(
            output_dir=str(tmp_path),
            keep_prefill=True,
            num_generations=8,
            bf16=False,
            use_cpu=True,
            **{"per_device_train_batch_size": 8} | settings,
        )


def test_dropout_and_a_kept_prefill(make_trainer: MakeTrainer) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1)
    with pytest.raises(ValueError, match=r"lora_dropout\.default drops out 0\.1"):
        make_trainer(keep_prefill=True, per_device_train_batch_size=GENERATIONS, peft_config=lora)


def test_a_family_without_sharing_and_a_kept_prefill(
    make_trainer: MakeTrainer, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    tiny_checkpoints["glm46v"] = save_checkpoint(tmp_path / "glm46v", "glm46v")
    with pytest.raises(ValueError, match="keep_prefill=True has no effect on models that cannot share prompts"):
        make_trainer("glm46v", keep_prefill=True, per_device_train_batch_size=GENERATIONS)


def make_alone(make: MakeTrainer, family: str) -> TimeLensGRPOTrainer:
    trainer = make(family, **STEP | {"queries_per_video": 1, "max_steps": 1, "num_iterations": 1})
    trainer.train()
    return trainer


def test_rows_of_fewer_queries_and_rollouts_of_fewer_rows(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    """The same step with less memory: a micro-batch of one prompt, the completions of one decoded two at a time."""
    small = {"per_device_train_batch_size": GENERATIONS, "gradient_accumulation_steps": 4, "steps_per_generation": 4}
    _, expected = step(make_trainer, "qwen3_vl", share_prefix=False, **small)
    with caplog.at_level("INFO", "timelens_plugins.grpo.checks"):
        _, found = step(make_trainer, "qwen3_vl", **small)
    said = "queries_per_video=3: a training row holds a micro-batch, 1 of a video's queries at most"
    assert caplog.text.count(said) == 1
    assert "from per_device_train_batch_size=12 on, one row holds all of them" in caplog.text
    assert difference(found, expected) < 1e-6
    _, rows_of_two = step(make_trainer, "qwen3_vl", rollout_rows=2)
    _, plain_rows_of_two = step(make_trainer, "qwen3_vl", rollout_rows=2, share_prefix=False)
    assert difference(rows_of_two, plain_rows_of_two) < 1e-6
    assert difference(rows_of_two, step(make_trainer, "qwen3_vl")[1]) > 1e-3, "other random numbers"


def test_a_video_is_computed_once(make_trainer: MakeTrainer) -> None:
    """One decode, one pass of the tower, one place in the prefill and one in the training row."""
    trainer = make_trainer(
        per_device_train_batch_size=6 * GENERATIONS,
        queries_per_video=3,
        shuffle_dataset=False,
        max_steps=1,
        self_check=False,
        clip_workers=0,
    )
    core = trainer.model.model
    passes: list[int] = []
    rows: list[int] = []
    merged: list[int] = []
    core.visual.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    core.visual.merger.register_forward_hook(lambda *_: merged.append(torch.is_grad_enabled()))
    core.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    groups: list[Any] = []
    score = trainer._get_per_token_logps_and_entropies

    def spy(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, **kwargs: Any) -> Any:
        groups.append((list(trainer._groups), int(mask[:, -keep:].sum())))
        return score(model, ids, mask, keep, **kwargs)

    trainer._get_per_token_logps_and_entropies = spy  # type: ignore[method-assign]
    trainer.train()
    assert trainer.prompts.clips.decoded == 2
    assert len(passes) == 2
    assert merged.count(True) == 1, "with gradients, once for both videos: under ZeRO-3 each call is a collective one"
    [(members, tokens)] = groups
    assert [len(video) for video in by_video(members)] == [3, 3]
    trunks = {id(g.trunk): len(g.trunk) for g in members}
    own = sum(len(g.query) for g in members)
    assert rows[0] == (1, sum(trunks.values()) + own - len(members)), "the prefill: all but the queries' last tokens"
    assert {tuple(shape) for shape in rows[1:-1]} == {(6 * GENERATIONS, 1)}
    assert rows[-1] == (1, sum(trunks.values()) + own + tokens - 6 * GENERATIONS), (
        "the last of each leaf predicts nothing"
    )


def test_a_training_row_holds_what_was_drawn_together(make_trainer: MakeTrainer) -> None:
    """Also after a generation batch was shuffled and split into micro-batches."""
    short = {"gradient_accumulation_steps": 4, "max_steps": 1, "max_completion_length": 3, "online": {}}
    trainer = make_trainer(queries_per_video=2, **short)
    rows: list[list[int]] = []
    loss = trainer.compute_loss

    def spy(model: Any, inputs: Any, **kwargs: Any) -> Any:
        rows.append(list(map(len, by_video(inputs[GROUPS]))))
        return loss(model, inputs, **kwargs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    trainer.train()
    assert rows == [[2]] * 4


def test_groups_of_a_video_need_not_stand_side_by_side(make_trainer: MakeTrainer) -> None:
    """What is sampled and scored is each group's own, in whatever order groups come."""
    trainer = make_trainer(dtype=torch.float64)
    rows = [trainer.train_dataset[i] for i in (0, 3, 1, 6, 4, 2)]
    model = trainer.model.eval()
    trainer.prompts.expect(rows)
    alone = [trainer.prompts.group(row) for row in rows]
    joined = with_trunks(alone)
    assert by_video(joined) == [[0, 2, 5], [1, 4], [3]]
    sampled = [
        complete_groups(model, groups, trainer.generation_config, 3, range(6), share=share, together=2)
        for groups, share in ((alone, False), (joined, True))
    ]
    assert [[c.tolist() for c in group] for group in sampled[0]] == [
        [c.tolist() for c in group] for group in sampled[1]
    ]
    completions = [c for group in sampled[0] for c in group]
    lengths = [len(c) for c in completions]
    padded = torch.nn.utils.rnn.pad_sequence(completions, batch_first=True)
    with torch.no_grad():
        found = scoring.shared_scores(model, joined, padded, lengths, 0.9)
        expected = scoring.shared_scores(model, alone, padded, lengths, 0.9)
    for a, b in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    apart = found[0].unflatten(0, (6, 3)).sum((1, 2))
    assert len(set(apart.round(decimals=6).tolist())) == 6, "groups that differ"


@pytest.mark.parametrize("share", [True, False])
def test_skipped_videos(share: bool, make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path) -> None:
    """The loss is that of the groups that remain, whose siblings are as they would have been."""
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video")
    broken = [replace(m, id=f"broken-{m.id}", video=str(path)) for m in moments[:2]]
    settings = {"max_steps": 1, "num_iterations": 1, "queries_per_video": 2, "share_prefix": share}
    skipping = make_trainer(rows=[*moments[:2], *broken], on_bad_video="skip", **STEP | settings)
    skipping.train()
    alone = make_trainer(rows=moments[:2], **STEP | settings | {"per_device_train_batch_size": 2 * GENERATIONS})
    alone.train()
    for name in ("grad_norm", "reward"):
        torch.testing.assert_close(history(skipping, name), history(alone, name), rtol=1e-4, atol=0)
    assert history(skipping, "videos/skipped", "videos/skipped_share") == [(1.0, 0.5)]


def test_evaluation_shares_what_stands_side_by_side(make_trainer: MakeTrainer) -> None:
    """Four prompts of two videos, with the results of prompts by themselves."""
    logs = []
    batches = {"per_device_train_batch_size": 4 * GENERATIONS, "per_device_eval_batch_size": 4 * GENERATIONS}
    for k in (1, 3):
        trainer = make_trainer(queries_per_video=k, with_eval=True, **batches)
        logs.append(trainer.evaluate())
    assert logs[0]["eval_sharing/saved_share"] < logs[1]["eval_sharing/saved_share"]
    assert logs[1]["eval_queries_per_video"] == 2.0
    for name in ("eval_loss", "eval_reward", "eval_completions/mean_length"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-5, abs=1e-7)


def test_completions_under_another_query_stop_the_run(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_queries = PromptTree.of_queries

    def rotated(prompt: Any, queries: Any) -> Any:
        pairs = list(queries)
        return of_queries(prompt, [(q, a) for (q, _), (_, a) in zip(pairs, [*pairs[1:], pairs[0]], strict=True)])

    monkeypatch.setattr(scoring.PromptTree, "of_queries", rotated)
    with pytest.raises(SelfCheckError, match="differ from those of the plain model"):
        make_trainer(**STEP | {"self_check": True}).train()


def test_kill_and_resume(
    make_trainer: MakeTrainer, tiny_checkpoints: dict[str, Path], annotations: Path, tmp_path: Path
) -> None:
    """In the middle of a generation batch of eight prompts of four videos, drawn by online difficulty."""
    killed = tmp_path / "killed"
    diary, watching = Diary(), plateau()
    whole = make_trainer(callbacks=[watching], reward=diary, **VIDEOS | {"save_strategy": "no"})
    checkpoint = killed_beside(whole, tiny_checkpoints["qwen3_vl"], annotations, killed, "videos")
    assert checkpoint == str(killed / f"checkpoint-{KILLED_AFTER}")
    rest = Diary()
    resumed = make_trainer(output_dir=killed, callbacks=[plateau()], reward=rest, **VIDEOS)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert rest.batches == diary.batches[2:]
    names = ("grad_norm", "reward", "entropy", "num_tokens", "samples", "queries_per_video", *FIGURES)
    assert history(resumed, *names) == history(whole, *names)
    # transformers forgets the losses that wait for a log, and logs the mean over those since the resume.
    assert history(resumed, "loss")[::2] == history(whole, "loss")[::2]
    assert states(resumed) == states(whole)
    parts = [batch[at : at + 2] for batch in diary.batches for at in range(0, 8, 2)]
    assert len(parts) == 12
    with pytest.raises(ValueError, match=r"difficulty\.json: the sampler's state was saved with queries_per_video=2"):
        make_trainer(output_dir=killed, **VIDEOS | {"queries_per_video": 1}).train(resume_from_checkpoint=checkpoint)
    state = json.loads((Path(checkpoint) / "difficulty.json").read_text())
    assert (state["sampler"]["queries_per_video"], state["sampler"]["part"]) == (2, 2)


def test_what_the_model_can_do_already_is_drawn_less(make_trainer: MakeTrainer, moments: list[Moment]) -> None:
    """A video's moments have their own weights: one of each is easy."""
    easy = {m.id for m in moments[::3]}
    drawn: list[str] = []

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        drawn.extend(columns["id"][::GENERATIONS])
        return [1.0 if name in easy else float(i % 2) for i, name in enumerate(columns["id"])]

    make_trainer(
        queries_per_video=2,
        max_steps=60,
        max_completion_length=2,
        reward=reward,
        online={"half_life": 1000},
        learning_rate=0.0,
        clip_workers=0,
        self_check=False,
    ).train()
    late = drawn[40:]
    share = sum(name in easy for name in late) / len(late)
    assert len(late) == 80
    assert share < 0.17, "a third of the moments"


# ---------------------------------------------------------------- the order of an epoch


@pytest.mark.parametrize(("k", "prompts", "part"), [(3, 8, 4), (2, 8, 8), (4, 8, 4), (3, 6, 3)])
def test_every_prompt_comes_once_an_epoch(k: int, prompts: int, part: int) -> None:
    videos = [f"v{i % 17}" if i < 80 else f"w{i}" for i in range(120)]
    order = shuffled_by_video(videos, 3, prompts=prompts, part=part, queries_per_video=k)
    first, again, other = list(order(0)), list(order(0)), list(order(1))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(120))
    whole = 0
    for at in range(0, 80, prompts):  # later, few videos are left
        batch = first[at : at + prompts]
        parts = [[videos[i] for i in batch[j : j + part]] for j in range(0, prompts, part)]
        assert all(max(p.count(v) for v in p) <= k for p in parts)
        assert sum(len(set(p)) for p in parts) == len({v for p in parts for v in p}), "a video is in one part"
        whole += sum(p.count(v) == k for p in parts for v in set(p))
    assert whole >= 5


def test_an_order_without_shuffling() -> None:
    order = shuffled_by_video(list("aabbbcab"), 0, False, prompts=4, part=4, queries_per_video=3)
    assert list(order(0)) == [0, 1, 6, 7, 2, 3, 4, 5]


def test_settings_that_cannot_work(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="queries_per_video must be at least 1"):
        make_trainer(queries_per_video=0)
    with pytest.raises(ValueError, match="queries_per_video=3 is more than the 2 prompts that a process generates"):
        make_trainer(queries_per_video=3)
    arguments = TimeLensGRPOConfig(
        output_dir=str(tmp_path), queries_per_video=2, per_device_train_batch_size=16, bf16=False, use_cpu=True
    )
    trainer = make_trainer()
    with pytest.raises(ValueError, match="leave prompt_order out"):
        TimeLensGRPOTrainer(
            model=trainer.model,
            reward_funcs=temporal_iou_reward,
            args=arguments,
            train_dataset=trainer.train_dataset,
            processing_class=trainer.processing_class,
            prompt_order=lambda epoch: range(18),
        )
