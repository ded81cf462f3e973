"""For ``gpu.py``: what is measured of a model, section by section.

In all of them G completions of k queries about one video are computed shared (``timelens_plugins.shared_prefix``) or
plain: each completion with its own copy of prompt and video. A plain batch that is larger than the memory is said to be
so; *plain, one row* is one of its rows by itself, and G x k of them do what the shared step does.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from gpu_measuring import Bench, Way
from gpu_models import QUERY_TOKENS, build, continued, random_tokens, video_prompt, with_layers
from torch import Tensor
from transformers import GenerationConfig

from timelens_plugins.families.shapes import ModelShape
from timelens_plugins.inference.plain import generate_plain, repeated_vision
from timelens_plugins.shared_prefix import (
    KeptPrefix,
    PromptTree,
    complete,
    encode_vision,
    generate_groups,
    log_probs,
    prefill,
)
from timelens_plugins.shared_prefix.acceleration import Shortcut, batch_frames, project_patches
from timelens_plugins.shared_prefix.locate import language_head, vision_language_model, vision_tower
from timelens_plugins.shared_prefix.sampling import NO_SAMPLING

ROW = "plain, one row"


@dataclasses.dataclass(frozen=True)
class Size:
    """How large everything is."""

    shapes: dict[str, ModelShape]
    prompts: tuple[int, ...]  # tokens, the most wanted first
    completions: tuple[int, ...]  # G
    queries: tuple[int, ...]  # k
    tokens: int  # of a completion
    together: tuple[int, ...]  # videos whose answers are decoded together
    rounds: int
    deepspeed_layers: int


def training(bench: Bench, model: Any, size: Size) -> None:
    """Forward and backward of a group's completions, gradient checkpointing, no optimizer."""
    model.train()
    for tokens in size.prompts:
        case = _Case(model, tokens, size, bench.device)
        ways = [Way(ROW, lambda _, c=case: c.plain_step(1), prepare=case.forget)]
        ways += case.ways(lambda c, g, k: c.shared_step(g, k), lambda c, g: c.plain_step(g), case.forget)
        bench.measure(ways, prompt_tokens=case.tokens)
        case.forget()


def rollout(bench: Bench, model: Any, size: Size) -> None:
    """Vision, prefill and sampling of completions of equal length."""
    model.eval()
    config = _sampling(model, size.tokens)
    for tokens in sorted(size.prompts):
        case = _Case(model, tokens, size, bench.device)

        def shared(c: _Case, completions: int, queries: int) -> Any:
            prompt = encode_vision(c.model, c.raw)
            seeds = list(range(queries))
            return generate_groups(
                c.model, [(prompt, c.queries[:queries])], config, completions=completions, seeds=seeds
            )

        def plain(c: _Case, completions: int) -> Any:
            return generate_plain(c.model, c.plain, config, completions)

        ways = [Way(ROW, lambda _, c=case: plain(c, 1)), *case.ways(shared, plain)]
        bench.measure(ways, prompt_tokens=case.tokens)


def decode(bench: Bench, model: Any, size: Size) -> None:
    """An answer alone and the answers of many videos together, beside the prefill they follow."""
    model.eval()
    config = _sampling(model, size.tokens)
    for tokens in sorted(size.prompts)[:2]:
        case = _Case(model, tokens, size, bench.device)

        def prefilled(videos: int, c: _Case = case) -> list[Any]:
            return [prefill(c.model, c.encoded, c.queries[:1]) for _ in range(videos)]

        def answer(several: list[Any], c: _Case = case) -> Any:
            return complete(c.model, several, config, seeds=list(range(len(several))))

        alone = "an answer alone"
        names = {1: alone} | {n: f"answers of {n} videos together" for n in size.together}
        ways = [
            Way("vision", lambda _, c=case: encode_vision(c.model, c.raw)),
            Way("prefill", lambda _, make=prefilled: make(1)),
        ]
        ways += [
            Way(name, answer, {alone: n} if n > 1 else {}, lambda n=n, make=prefilled: make(n))
            for n, name in names.items()
        ]
        found = bench.measure(ways, prompt_tokens=case.tokens)
        for n, name in names.items():
            if name in found and "prefill" in found:
                bench.figure(f"prompt of {case.tokens}: {name}, each, in prefills", found[name] / n / found["prefill"])


def step(bench: Bench, model: Any, size: Size) -> None:
    """Vision, rollout, forward and backward: the prompt computed twice, and once (``keep_prefill``)."""
    model.train()
    config, g = _sampling(model, size.tokens), size.completions[0]
    for tokens in size.prompts[:2]:
        case = _Case(model, tokens, size, bench.device)
        ways = []
        for k in size.queries:
            twice = f"prompt computed twice, {g} x {k}"
            ways += [
                Way(twice, lambda _, c=case, k=k: c.whole_step(config, g, k, keep=False), {}, case.forget),
                Way(
                    f"prompt computed once, {g} x {k}",
                    lambda _, c=case, k=k: c.whole_step(config, g, k, keep=True),
                    {twice: 1},
                    case.forget,
                ),
            ]
        bench.measure(ways, prompt_tokens=case.tokens)
        case.forget()


def noise(bench: Bench, model: Any, size: Size) -> None:
    """Log-probs of sampled completions: while sampling, shared, plain by rows, plain in a batch; and some gradients.

    For the shorter prompt also against the same weights computed in single precision, plain rows.
    """
    for tokens in sorted(size.prompts[:2]):
        if bench.left() < 0:
            raise TimeoutError("no time left")
        case = _Case(model, tokens, size, bench.device)
        completions = size.completions[0]
        model.eval()
        answers, sampled = _sampled(case, _sampling(model, 2 * size.tokens), completions)
        tree = PromptTree.of_queries(case.encoded, [(case.queries[0], answers)])
        with torch.no_grad():
            scores = log_probs(model, tree, entropy=True)
            shared = scores.log_probs.reshape(completions, -1)
            rows = torch.cat([case.plain_log_probs([a]) for a in answers])
            batch = case.plain_log_probs(answers[:2])
        assert scores.entropies is not None
        entropy = float(scores.entropies.mean())
        pairs = [
            ("shared against plain rows", shared, rows),
            ("plain rows against a plain batch of 2", rows[:2], batch),
            ("training (shared) against sampling (shared)", shared, sampled),
            ("training (plain rows) against sampling (shared)", rows, sampled),
        ]
        if tokens != size.prompts[0]:
            exact = _in_single_precision(model, lambda c=case, own=answers[:2]: c.plain_log_probs(own))
            pairs += [
                ("shared against single precision", shared[:2], exact),
                ("plain rows against single precision", rows[:2], exact),
            ]
        for what, found, expected in pairs:
            bench.note(what, _differences(found, expected) | {"entropy": entropy}, prompt_tokens=case.tokens)
        if tokens == size.prompts[0]:
            continue  # gradients of a short prompt: plain rows of a long one take long
        model.train()
        bench.note("gradients of shared against plain rows", _gradients(case, answers), prompt_tokens=case.tokens)


def vision(bench: Bench, model: Any, size: Size) -> None:
    """The tower with the shortcuts of ``accelerate_vision`` against as it is, alone and with its backward."""
    tower = vision_tower(vision_language_model(model))
    frozen = [p for p in tower.parameters() if not p.requires_grad]
    shortcuts = {
        "patches by a product": (project_patches,),
        "frames in a batch": (batch_frames,),
        "both": (project_patches, batch_frames),
    }
    for tokens in size.prompts:
        encoder = _Encoder(model, tokens, bench.device)
        model.eval()
        with torch.no_grad():
            stock = encoder.forward()
            difference = (encoder.by(shortcuts["both"], encoder.forward) - stock).abs().max() / stock.abs().max()
            bench.note("both against stock", {"largest_difference": float(difference)}, prompt_tokens=tokens)
            bench.measure(encoder.ways(shortcuts, encoder.forward), prompt_tokens=tokens, part="forward")
        model.train()
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            ways = encoder.ways(shortcuts, encoder.step, encoder.forget)
            bench.measure(ways, prompt_tokens=tokens, part="forward and backward")
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            encoder.forget()


def deepspeed_step(bench: Bench, shape: ModelShape, size: Size) -> None:
    """A shared step with AdamW, of few layers: torch alone, ZeRO-2 and ZeRO-3 on one device."""
    import deepspeed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= here
    deepspeed.init_distributed(dist_backend="nccl" if bench.device.type == "cuda" else "gloo")
    try:
        for stage in (0, 2, 3):
            _optimized(bench, with_layers(shape, size.deepspeed_layers), size, stage)
            gc.collect()
    finally:
        torch.distributed.destroy_process_group()


def _optimized(bench: Bench, shape: ModelShape, size: Size, stage: int) -> None:
    """Steps of one kind; stage 0 is torch's optimizer by itself."""
    import deepspeed

    model = build(shape, bench.device).train()
    case = _Case(model, size.prompts[-1], size, bench.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    engine: Any = model
    if stage:
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    losses: list[float] = []

    def step(_: Any) -> None:
        loss = -log_probs(engine, case.tree(size.completions[0], size.queries[-1])).log_probs.mean()
        losses.append(float(loss.detach()))
        if stage:
            engine.backward(loss)
            engine.step()
        else:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    name = f"ZeRO-{stage}" if stage else "torch's AdamW"
    bench.measure([Way(name, step)], prompt_tokens=case.tokens)
    if losses:
        bench.note(f"first loss, {name}", {"loss": losses[0]}, prompt_tokens=case.tokens)
    if stage:
        engine.destroy()


class _Encoder:
    """The vision tower and a clip."""

    def __init__(self, model: Any, tokens: int, device: torch.device) -> None:
        prompt = video_prompt(model, tokens, device)
        self.model, self.pixels = model, prompt.vision["pixel_values_videos"]
        self.grid = prompt.vision["video_grid_thw"].to(device)

    def forward(self) -> Tensor:
        """Features of all vision tokens."""
        output = vision_language_model(self.model).get_video_features(self.pixels, self.grid)
        return torch.cat(list(output.pooler_output))

    def step(self) -> None:
        """With backward."""
        self.forward().float().square().mean().backward()

    def by(self, shortcuts: Sequence[Shortcut], run: Callable[[], Any]) -> Any:
        """The same with shortcuts, which take no time to put in and out."""
        tower = vision_tower(vision_language_model(self.model))
        undo = [shortcut(tower) for shortcut in shortcuts]
        try:
            return run()
        finally:
            for one in undo:
                one()

    def ways(
        self,
        shortcuts: Mapping[str, Sequence[Shortcut]],
        run: Callable[[], Any],
        prepare: Callable[[], Any] = lambda: None,
    ) -> list[Way]:
        """Stock, and with each set of shortcuts."""
        return [Way("stock", lambda _: run(), {}, prepare)] + [
            Way(name, lambda _, chosen=chosen: self.by(chosen, run), {"stock": 1}, prepare)
            for name, chosen in shortcuts.items()
        ]

    def forget(self) -> None:
        """Gradients."""
        self.model.zero_grad(set_to_none=True)


class _Case:
    """One video prompt with queries and completions, shared and plain."""

    def __init__(self, model: Any, tokens: int, size: Size, device: torch.device) -> None:
        self.model, self.size, self.device = model, size, device
        self.raw = video_prompt(model, tokens, device)
        self.queries = [random_tokens(model, QUERY_TOKENS, 100 + i) for i in range(max(size.queries))]
        self.plain = continued(self.raw, self.queries[0])
        self.encoded = encode_vision(model, self.raw)
        self.tokens = len(self.plain)

    def ways(
        self,
        shared: Callable[[_Case, int, int], Any],
        plain: Callable[[_Case, int], Any],
        prepare: Callable[[], Any] = lambda: None,
    ) -> list[Way]:
        """Shared with all numbers of completions and queries, then the smallest plain batch."""
        found = [
            Way(f"shared, {g} x {k}", lambda _, g=g, k=k: shared(self, g, k), {ROW: g * k, _batch(g): k}, prepare)
            for g in self.size.completions
            for k in self.size.queries
        ]
        g = self.size.completions[0]  # larger ones are so many rows
        batch = Way(_batch(g), lambda _: plain(self, g), {ROW: g}, prepare, lambda done: done.get(ROW, 0.0) * g)
        return [*found, batch]

    def forget(self) -> None:
        """Gradients."""
        self.model.zero_grad(set_to_none=True)

    def answers(self, number: int) -> list[Tensor]:
        return [random_tokens(self.model, self.size.tokens, 1000 + i) for i in range(number)]

    def tree(self, completions: int, queries: int) -> PromptTree:
        every = self.answers(completions * queries)
        parts = [every[i : i + completions] for i in range(0, len(every), completions)]
        return PromptTree.of_queries(self.encoded, list(zip(self.queries[:queries], parts, strict=True)))

    def shared_step(self, completions: int, queries: int) -> None:
        (-log_probs(self.model, self.tree(completions, queries)).log_probs.mean()).backward()

    def whole_step(self, config: GenerationConfig, completions: int, queries: int, keep: bool) -> None:
        """Shared, without decoding a clip, rewards and optimizer."""
        prompt, asked = encode_vision(self.model, self.raw), self.queries[:queries]
        kept: list[KeptPrefix] | None = [] if keep else None
        sampled = generate_groups(
            self.model, [(prompt, asked)], config, completions=completions, seeds=range(queries), kept=kept
        )
        tree = PromptTree.of_queries(prompt, list(zip(asked, sampled, strict=True)))
        (-log_probs(self.model, tree, prefix=kept[0] if kept else None).log_probs.mean()).backward()

    def plain_step(self, completions: int) -> None:
        (-self.plain_log_probs(self.answers(completions)).mean()).backward()

    def plain_log_probs(self, answers: Sequence[Tensor]) -> Tensor:
        """Of answers of equal length to the first query, in one batch, ``(rows, tokens)``."""
        rows, own = len(answers), torch.stack(list(answers)).to(self.device)
        ids = torch.cat([self.plain.input_ids.to(self.device).expand(rows, -1), own], dim=1)
        kinds = torch.zeros_like(ids)
        kinds[:, : len(self.plain)] = self.plain.mm_token_type_ids.to(self.device)
        logits = self.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=kinds,
            logits_to_keep=own.shape[1] + 1,
            use_cache=False,
            **repeated_vision([self.plain], rows, self.device),
        ).logits[:, :-1]
        return _chosen(logits, own)


def _batch(completions: int) -> str:
    return f"plain, {completions} rows"


def _chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probs of tokens ``(rows, n)`` by logits ``(rows, n, V)``, in fp32."""
    return torch.log_softmax(logits.float(), -1).gather(-1, tokens[..., None])[..., 0]


def _sampling(model: Any, tokens: int) -> GenerationConfig:
    """From the model's own distribution, so many tokens and no vision tokens."""
    vision_tokens = [model.config.image_token_id, model.config.video_token_id]
    return GenerationConfig(
        **NO_SAMPLING,
        do_sample=True,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        eos_token_id=0,
        pad_token_id=0,
        suppress_tokens=vision_tokens,
    )


def _sampled(case: _Case, config: GenerationConfig, completions: int) -> tuple[list[Tensor], Tensor]:
    """Completions of the first query, and their log-probs by the logits they were drawn from."""
    ready = prefill(case.model, case.encoded, case.queries[:1])
    logits: list[Tensor] = []
    hook = language_head(case.model).register_forward_hook(lambda module, args, output: logits.append(output[:, -1]))
    try:
        [answers] = complete(case.model, [ready], config, completions=completions, seeds=list(range(completions)))
    finally:
        hook.remove()
    return answers, _chosen(torch.stack(logits, dim=1), torch.stack(answers))


@torch.no_grad()
def _in_single_precision(model: Any, compute: Callable[[], Tensor]) -> Tensor:
    """What is computed while the weights, as they are, are in fp32."""
    try:
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
        return compute()
    finally:
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()


def _differences(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Of log-probs, and of the ratio of probabilities that a policy gradient is weighted with."""
    difference = (found - expected).float()
    ratio = difference.exp()
    return {
        "tokens": float(difference.numel()),
        "mean_abs": float(difference.abs().mean()),
        "max_abs": float(difference.abs().max()),
        "ratio_mean": float(ratio.mean()),
        "ratio_min": float(ratio.min()),
        "ratio_max": float(ratio.max()),
        "outside_0.8_to_1.2": float(((ratio < 0.8) | (ratio > 1.2)).float().mean()),
    }


def _gradients(case: _Case, answers: Sequence[Tensor]) -> dict[str, float]:
    """Cosine and ratio of norms of some weights' gradients: merger, first, middle and last layer."""
    layers = vision_language_model(case.model).language_model.layers
    chosen = {f"layer {i}": layers[i].mlp.down_proj.weight for i in (0, len(layers) // 2, len(layers) - 1)}
    chosen["merger"] = next(
        p for p in vision_tower(vision_language_model(case.model)).merger.parameters() if p.ndim == 2
    )
    weights = torch.linspace(-1, 1, len(answers), device=case.device)  # as advantages: of both signs

    def collected() -> dict[str, Tensor]:
        found = {name: p.grad.float() for name, p in chosen.items() if p.grad is not None}
        case.forget()
        return found

    case.forget()
    tree = PromptTree.of_queries(case.encoded, [(case.queries[0], list(answers))])
    scores = log_probs(case.model, tree).split()
    sum(w * s.sum() for w, s in zip(weights, scores, strict=True)).backward()
    shared = collected()
    for weight, answer in zip(weights, answers, strict=True):
        (weight * case.plain_log_probs([answer]).sum()).backward()
    plain = collected()
    values = {}
    for name, one in shared.items():
        other = plain[name]
        values[f"{name}, cosine"] = float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))
        values[f"{name}, norm"] = float(one.norm() / other.norm())
    return values
