"""Messages in, as trainers and evaluators store them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import ProcessorMixin

from timelens_plugins.encodings import build_messages, load_processor
from timelens_plugins.video import FrameSampling, sample_frames

SMALL = {"max_frames": 8, "min_tokens": 8, "total_tokens": 64}
OPTIONS = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}


@pytest.fixture
def small(family: str, tiny_checkpoints: dict[str, Path]) -> Any:
    return load_processor(tiny_checkpoints[family], "interleaved_timestamp", **SMALL)


def same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in b)


def test_paths_are_decoded_under_the_saved_sampling(small: Any, real_data: Path) -> None:
    path = real_data / "media" / "nasa_13013.mp4"
    clip = sample_frames(path, small.frame_sampling)
    from_path = small.apply_chat_template(small.grounding_messages(str(path), "a rocket"), **OPTIONS)
    assert same(from_path, small.apply_chat_template(small.grounding_messages(clip, "a rocket"), **OPTIONS))
    text = small.apply_chat_template(small.grounding_messages(clip, "a rocket"), add_generation_prompt=True)
    assert same(from_path, small(text=[text], videos=[clip], return_tensors="pt"))


def test_windows_and_sampling_of_one_part(small: Any, real_data: Path) -> None:
    path = str(real_data / "media" / "nasa_13013.mp4")
    messages = build_messages(path, "a rocket", "interleaved_timestamp", video_start=4, video_end=9)
    messages[0]["content"][0]["fps"] = 1
    clip = sample_frames(path, small.frame_sampling, video_start=4, video_end=9, fps=1)
    assert same(
        small.apply_chat_template(messages, **OPTIONS),
        small.apply_chat_template(small.grounding_messages(clip, "a rocket"), **OPTIONS),
    )
    assert len(clip.times) == 4
    messages[0]["content"][0]["video"] = Path(path)
    assert small.apply_chat_template(messages, **OPTIONS)["image_grid_thw"].shape == (2, 3)
    messages[0]["content"][0]["resized_height"] = 1000
    with pytest.raises(
        ValueError, match="unknown keys resized_height; known besides the video: video_start, video_end, fps"
    ):
        small.apply_chat_template(messages, **OPTIONS)
    del messages[0]["content"][0]["resized_height"]
    messages[0]["content"][0]["max_pixels"] = 1000
    with pytest.raises(ValueError, match="max_pixels=1000 is less than min_tokens=8 tokens are"):
        small.apply_chat_template(messages, **OPTIONS)
    with pytest.raises(ValueError, match="a VideoClip is one already"):
        build_messages(clip, "a rocket", video_start=1)


def test_arrow_rows_and_batches(small: Any, real_data: Path) -> None:
    """A dataset gives every part the keys of all parts, with None; text parts must stay text."""
    paths = [str(real_data / "media" / name) for name in ("h265_video.mp4", "nasa_13013.mp4")]
    conversations = [small.grounding_messages(path, f"event {i}") for i, path in enumerate(paths)]
    rows = datasets.Dataset.from_list([{"prompt": messages} for messages in conversations])["prompt"]
    assert "video" in rows[0][0]["content"][1]
    assert rows[0][0]["content"][1]["video"] is None
    padding = {"processor_kwargs": {"padding": True, "padding_side": "left"}}
    direct = small.apply_chat_template(conversations, **OPTIONS, **padding)
    assert same(small.apply_chat_template(list(rows), **OPTIONS, **padding), direct)
    assert small.apply_chat_template(rows[1]) == small.apply_chat_template(conversations[1])
    assert rows[0][0]["content"][1]["video"] is None, "the caller's messages are not touched"


def test_assistant_mask_after_a_video(small: Any, make_clip: Any) -> None:
    """Training on answers only: the mask follows the answer although the video before it grew."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}"
        "{% for p in m['content'] %}{% if 'video' in p %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>{% endif %}\n{% endfor %}"
    )
    answers = ["The event happens in 1.0 - 2.0 seconds.", "No, in 2.0 - 3.0 seconds."]
    messages = small.grounding_messages(make_clip(3), "a rocket")
    messages += [{"role": "assistant", "content": answers[0]}]
    messages += small.grounding_messages(make_clip(1), "another")
    messages += [{"role": "assistant", "content": answers[1]}]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    if not hasattr(ProcessorMixin, "_adjust_assistant_masks_indices"):
        with pytest.raises(ValueError, match="misplaces the mask"):
            small.apply_chat_template(messages, chat_template=template, **options)
        return
    inputs = small.apply_chat_template(messages, chat_template=template, **options)
    ids = torch.as_tensor(inputs["input_ids"])[0][torch.as_tensor(inputs["assistant_masks"])[0].bool()]
    assert small.decode(ids) == "".join(f"{answer}<|im_end|>" for answer in answers)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "video_url", "video_url": {"url": "a.mp4"}}, "unknown type 'video_url'"),
        ({"type": "audio", "audio": "a.wav"}, "unknown type 'audio'"),
        ({"text": "x"}, "unknown type None"),
        ("x", "unknown type None"),
        ({"type": "text", "text": "x", "video": "a.mp4"}, "a text part has unknown keys video"),
        ({"type": "image", "image": "a.png", "max_pixels": 9}, "an? image part has unknown keys max_pixels"),
        ({"type": "video", "video": "a.mp4", "path": "b.mp4"}, "a video part has video and path; pass one of them"),
        ({"type": "video", "video": ["1.png", "2.png"]}, "a list of 2 file names, whose times are unknown"),
    ],
)
def test_unknown_message_parts_are_refused(small: Any, part: Any, message: str) -> None:
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "When?"}]}]
    for conversation in (messages, [messages]):
        for tokenize in (False, True):
            with pytest.raises(ValueError, match=message):
                small.apply_chat_template(conversation, tokenize=tokenize)


def test_a_video_part_without_a_video(small: Any) -> None:
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "When?"}]}]
    assert "<|video_pad|>" in small.apply_chat_template(messages)
    with pytest.raises(ValueError, match="a video part without a video"):
        small.apply_chat_template(messages, tokenize=True)


def test_frame_sampling_defaults_to_the_official_budget(small: Any) -> None:
    small.configure(frame_sampling=FrameSampling(patch_size=small.video_processor.patch_size))
    assert (small.frame_sampling.fps, small.frame_sampling.total_tokens) == (2.0, 14336)
    with pytest.raises(ValueError, match="unknown video setting nframes; known: fps,"):
        small.configure(frame_sampling={"nframes": 8})
