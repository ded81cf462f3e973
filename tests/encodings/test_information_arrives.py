"""A tiny random model answers differently when only the order of frames, or only their times, change."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from timelens_plugins.families.tiny import build_model
from timelens_plugins.video import VideoClip

PROMPT = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>When?<|im_end|>\n<|im_start|>assistant\n"


@cache
def model_of(family: str) -> Any:
    # Weights wide enough for sharp attention: with the usual ones a random model hardly looks back.
    return build_model(family, layers=3, initializer_range=0.25)  # type: ignore[arg-type]


def answer(processor: Any, family: str, clip: VideoClip) -> list[int]:
    """Twelve greedy tokens."""
    inputs = processor(text=[PROMPT], videos=[clip], return_tensors="pt")
    model = model_of(family)
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
    ids: list[int] = out[0, inputs["input_ids"].shape[1] :].tolist()
    return ids


def test_order_of_frames_changes_the_answer(family: str, processor: Any, make_clip: Any) -> None:
    clip = make_clip(4)
    told = answer(processor, family, clip)
    assert told == answer(processor, family, make_clip(4)), "the model itself is deterministic"
    order = torch.tensor([6, 7, 0, 1, 4, 5, 2, 3])
    shuffled = replace(clip, frames=clip.frames[order])  # times stay where they were
    assert torch.equal(torch.as_tensor(shuffled.times), torch.as_tensor(clip.times))
    assert answer(processor, family, shuffled) != told

    still = replace(clip, frames=clip.frames[:1].expand_as(clip.frames))
    moved = replace(clip, frames=still.frames[order])
    assert answer(processor, family, still) == answer(processor, family, moved), "nothing else was shuffled"


def test_times_of_frames_change_the_answer(family: str, encoding: str, processor: Any, make_clip: Any) -> None:
    """The same frames said to be four times slower; frame numbers are all that the ``*_index`` encodings tell."""
    clip = make_clip(4)
    slow = replace(clip, fps=2.5, times=clip.times * 4, duration=clip.duration * 4)
    assert (slow.frame_indices / slow.fps == slow.times).all()
    same = answer(processor, family, slow) == answer(processor, family, clip)
    by_rotary_positions = family == "qwen2_5_vl" and not encoding.startswith("interleaved")
    assert same == (encoding.endswith("_index") and not by_rotary_positions)


@pytest.mark.parametrize("encoding", ["interleaved_timestamp", "native"], indirect=True)
def test_left_padding_changes_nothing(family: str, processor: Any, make_clip: Any) -> None:
    """Rotary positions of a padded batch are those of its rows."""
    clips = [make_clip(1, seed=1), make_clip(3, rows=3, seed=2), make_clip(2, columns=2, seed=3)]
    texts = [PROMPT, PROMPT.replace("When", "When exactly in the whole video"), PROMPT]
    model = model_of(family)
    with torch.no_grad():
        batch = model(
            **processor(text=texts, videos=clips, padding=True, padding_side="left", return_tensors="pt")
        ).logits
        for i, (text, clip) in enumerate(zip(texts, clips, strict=True)):
            row = model(**processor(text=[text], videos=[clip], return_tensors="pt")).logits
            torch.testing.assert_close(batch[i, -1], row[0, -1], rtol=1e-4, atol=1e-4)
