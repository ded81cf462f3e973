"""Features computed once give the same values, and no gradient is lost; the faster tower is the same tower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_batch import gradients, group, image_prompt, plain_scores, video_prompt, worst_difference
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.shared_prefix import PromptTree, accelerate_vision, encode_vision, log_probs, uninstall
from timelens_plugins.shared_prefix import acceleration as acceleration_module
from timelens_plugins.shared_prefix import vision as vision_module
from timelens_plugins.shared_prefix.acceleration import batch_frames

TRAINED = {
    "nothing": lambda name: False,
    "the merger": lambda name: name.startswith("merger."),
    "the deepstack mergers": lambda name: name.startswith("deepstack_merger_list."),
    "all mergers": lambda name: "merger" in name,
    "everything": lambda name: True,
}


def train_only(model: Any, trained: str) -> None:
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad_(TRAINED[trained](name))


@pytest.mark.parametrize("trained", list(TRAINED))
@pytest.mark.parametrize("layout", [video_prompt, image_prompt])
def test_gradients_of_the_tower(build: Callable[..., Any], processor: Any, trained: str, layout: Any) -> None:
    """Whatever of the tower is trained gets exactly the gradients of the plain path; two prompts in one row."""
    model = build()
    train_only(model, trained)
    trees = [group(layout(processor)), group(layout(processor, seed=1), (3, 2))]
    expected = gradients(model, lambda: torch.cat([plain_scores(model, t)[0] for t in trees]))
    encoded = [PromptTree(encode_vision(model, t.prompt), t.branches) for t in trees]
    assert all(bool(t.prompt.features) == (trained != "everything") for t in encoded)
    found = gradients(model, lambda: log_probs(model, encoded).log_probs)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    assert worst_difference(found[1], expected[1]) < 1e-6
    if any(p.requires_grad for p in model.model.visual.parameters()):
        assert any("visual" in name for name in found[1])


def test_merger_features_follow_its_weights(build: Callable[..., Any], processor: Any) -> None:
    model = build()
    train_only(model, "all mergers")
    tree = group(video_prompt(processor))
    encoded = PromptTree(encode_vision(model, tree.prompt), tree.branches)
    with torch.no_grad():
        for name, parameter in model.model.visual.named_parameters():
            if "merger" in name:
                parameter.mul_(1.1)
        torch.testing.assert_close(log_probs(model, encoded).log_probs, plain_scores(model, tree)[0], rtol=1e-9, atol=0)


def test_stale_features_are_refused(build: Callable[..., Any], processor: Any) -> None:
    model = build()
    train_only(model, "nothing")
    tree = group(video_prompt(processor))
    encoded = PromptTree(encode_vision(model, tree.prompt), tree.branches)
    assert "pixel_values_videos" not in encoded.prompt.vision
    assert encode_vision(model, encoded.prompt).features["video"] is encoded.prompt.features["video"]
    train_only(model, "the merger")
    with pytest.raises(ValueError, match=r"visual\.merger.* was frozen"):
        log_probs(model, encoded)
    with torch.no_grad():
        log_probs(model, encoded)
    train_only(model, "everything")
    with pytest.raises(ValueError, match=r"visual\.patch_embed.* was frozen"):
        log_probs(model, encoded)
    train_only(model, "nothing")
    with pytest.raises(ValueError, match="all of them or none"):
        log_probs(model, [encoded, tree])


def test_the_merger_check_can_fail(
    build: Callable[..., Any], processor: Any, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """If window order were undone wrongly, encoding stops."""
    if family != "qwen2_5_vl":
        pytest.skip("only Qwen2.5-VL reorders rows")
    model = build()
    train_only(model, "the merger")
    monkeypatch.setattr(vision_module, "_row_order", lambda visual, grid: None)
    with pytest.raises(RuntimeError, match="does not give the tower's output"):
        encode_vision(model, video_prompt(processor))


@pytest.mark.parametrize("layout", [video_prompt, image_prompt])
def test_accelerated_tower_is_the_same_tower(build: Callable[..., Any], processor: Any, layout: Any) -> None:
    """Videos, images of two sizes, windows: same outputs and gradients, fewer attention calls; and it can be undone."""
    model = build()
    prompt = layout(processor)
    modality = "image" if layout is image_prompt else "video"
    calls: list[int] = []

    def features() -> torch.Tensor:
        compute = getattr(model.model, f"get_{modality}_features")
        pixels = prompt.vision["pixel_values" if modality == "image" else "pixel_values_videos"]
        out = compute(pixels, prompt.vision[f"{modality}_grid_thw"])
        deepstack = getattr(out, "deepstack_features", [])  # each layer in one piece up to transformers 5.17
        return torch.cat([*out.pooler_output, *(torch.atleast_2d(t) for layer in deepstack for t in layer)])

    uninstall("sdpa")
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = lambda *a, **k: (calls.append(1), sdpa(*a, **k))[1]
    try:
        expected = gradients(model, features)
        plain_calls = len(calls)
        calls.clear()
        acceleration = accelerate_vision(model, measure=False)
        found = gradients(model, features)
        assert len(calls) < plain_calls
        torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-12)
        assert worst_difference(found[1], expected[1]) < 1e-6
        tree = group(prompt)
        scores = gradients(model, lambda: log_probs(model, tree).log_probs)
        plain = gradients(model, lambda: plain_scores(model, tree)[0])
        torch.testing.assert_close(scores[0], plain[0], rtol=1e-9, atol=1e-9)
        assert worst_difference(scores[1], plain[1]) < 1e-6
        with pytest.raises(ValueError, match="accelerated twice"):
            accelerate_vision(model, measure=False)
        acceleration.remove()
        assert type(model.model.visual.patch_embed.proj) is nn.Conv3d
        calls.clear()
        gradients(model, features)
        assert len(calls) == plain_calls
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = sdpa


def test_frames_batched_twice_are_batched(build: Callable[..., Any], processor: Any) -> None:
    """As where a model that was loaded so is accelerated as well."""
    model, prompt = build(), video_prompt(processor)

    def features() -> torch.Tensor:
        output = model.model.get_video_features(prompt.vision["pixel_values_videos"], prompt.vision["video_grid_thw"])
        return torch.cat(list(output.pooler_output))

    with torch.no_grad():
        expected = features()
        batch_frames(model.model.visual)
        accelerate_vision(model, measure=False)
        torch.testing.assert_close(features(), expected, rtol=1e-9, atol=1e-9)


def test_attention_that_is_changed_afterwards_gets_its_frames(
    build: Callable[..., Any], processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash attention tells frames apart by their bounds: it must not get those of one long frame."""
    model, prompt = build(), video_prompt(processor)
    seen: list[list[int]] = []

    def flash(module: Any, query: Any, *_: Any, cu_seq_lens_q: torch.Tensor, **kwargs: Any) -> tuple[Any, None]:
        assert "frame_lengths" not in kwargs
        seen.append(cu_seq_lens_q.tolist())
        return query.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_2", flash)
    config = model.model.visual.config
    bounds = []
    for accelerated in (False, True):
        if accelerated:
            config._attn_implementation = "sdpa"
            accelerate_vision(model, measure=False)
        config._attn_implementation = "flash_attention_2"
        model.model.get_video_features(prompt.vision["pixel_values_videos"], prompt.vision["video_grid_thw"])
        bounds.append(seen.copy())
        seen.clear()
    assert bounds[0]
    assert all(len(one) > 2 for one in bounds[0])
    assert bounds[1] == bounds[0]


def test_a_shortcut_is_kept_where_it_pays(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    visual = model.model.visual
    timed = acceleration_module._timed
    faster: dict[str, bool] = {}

    def told(tower: Any, *args: Any) -> tuple[float, torch.Tensor]:
        """The output as it is, in a time that depends on what is in place."""
        with_product = type(tower.patch_embed.proj) is not nn.Conv3d
        with_frames = bool(tower.blocks[0].attn._forward_pre_hooks)
        seconds = 1.0
        for name, there in (("patches", with_product), ("frames", with_frames)):
            if there:
                seconds *= 0.5 if faster[name] else 2.0
        return seconds, timed(tower, *args)[1]

    monkeypatch.setattr(acceleration_module, "_timed", told)
    for faster in ({"patches": True, "frames": False}, {"patches": False, "frames": True}):
        found = accelerate_vision(model)
        assert found.gains == {name: 2.0 if gain else 0.5 for name, gain in faster.items()}
        assert (type(visual.patch_embed.proj) is not nn.Conv3d) == faster["patches"]
        assert bool(visual.blocks[0].attn._forward_pre_hooks) == faster["frames"]
        found.remove()
        assert type(visual.patch_embed.proj) is nn.Conv3d
        assert not visual.blocks[0].attn._forward_pre_hooks
    monkeypatch.setattr(acceleration_module, "_timed", timed)
    assert set(accelerate_vision(model).gains) == {"patches", "frames"}
    wrong = build()
    monkeypatch.setattr(
        acceleration_module._PatchProjection, "forward", lambda self, x: nn.Conv3d.forward(self, x) * 1.01
    )
    with pytest.raises(RuntimeError, match=r"the shortcut for patches differs by .*, more than rounding explains"):
        accelerate_vision(wrong)
    assert type(wrong.model.visual.patch_embed.proj) is nn.Conv3d
