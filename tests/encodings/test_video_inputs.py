"""What may be passed as a video and what is refused: times are never guessed, frames never resized or sampled again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from timelens_plugins.encodings import load_processor
from timelens_plugins.video import VideoError

PROMPT = "<|vision_start|><|video_pad|><|vision_end|>When?"
METADATA = {"fps": 10.0, "frames_indices": [0, 5, 10, 15], "total_num_frames": 20}


@pytest.fixture
def native(family: str, tiny_checkpoints: dict[str, Path]) -> Any:
    return load_processor(tiny_checkpoints[family], "native")


def test_every_form_of_the_same_video(processor: Any, make_clip: Any) -> None:
    clip = make_clip(2)
    expected = processor(text=PROMPT, videos=clip, return_tensors="pt")
    channels_last = clip.frames.permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(frame) for frame in channels_last]
    metadata = METADATA | {"duration": 2.0}
    for videos, entries in [
        ([clip], None),
        ([[clip]], None),
        ((clip.frames, metadata), None),
        ([(clip.frames, VideoMetadata(**metadata))], None),
        (clip.frames, metadata),
        ([clip.frames.float()], [metadata]),
        (channels_last[None], [[metadata]]),
        (pictures, [metadata]),
        ([list(clip.frames)], [metadata | {"frames_indices": torch.tensor([0, 5, 10, 15])}]),
        ([clip], [None]),
    ]:
        inputs = processor(text=[PROMPT], videos=videos, video_metadata=entries, return_tensors="pt")
        for name, value in expected.items():
            assert torch.equal(inputs[name], value), name


def test_unknown_times_are_an_error(native: Any, make_clip: Any) -> None:
    frames = make_clip(2).frames
    with pytest.raises(ValueError, match="video 0: the times of its frames are unknown; pass a VideoClip"):
        native(text=PROMPT, videos=[frames])
    for field in ("fps", "frames_indices"):
        with pytest.raises(ValueError, match=f"video_metadata lacks {field}, so the times are unknown"):
            native(text=PROMPT, videos=[frames], video_metadata=[METADATA | {field: None}])
    with pytest.raises(ValueError, match="unknown video_metadata fields sample_rate"):
        native(text=PROMPT, videos=[frames], video_metadata=[METADATA | {"sample_rate": 1}])
    with pytest.raises(ValueError, match="do not ascend"):
        native(text=PROMPT, videos=[frames], video_metadata=[METADATA | {"frames_indices": [0, 10, 5, 15]}])
    with pytest.raises(ValueError, match="frame rate must be positive"):
        native(text=PROMPT, videos=[frames], video_metadata=[METADATA | {"fps": 0.0}])
    with pytest.raises(ValueError, match="4 frames but 3 frames_indices"):
        native(text=PROMPT, videos=[frames], video_metadata=[METADATA | {"frames_indices": [0, 5, 10]}])
    with pytest.raises(ValueError, match="2 videos but 1 video_metadata"):
        native(text=PROMPT * 2, videos=[frames, frames], video_metadata=[METADATA])


def test_nothing_is_sampled_or_resized_again(native: Any, make_clip: Any, family: str) -> None:
    clip = make_clip(2)
    for option in ({"fps": 1}, {"num_frames": 4}, {"do_sample_frames": True}, {"videos_kwargs": {"fps": 2}}):
        with pytest.raises(ValueError, match="never samples frames again"):
            native(text=PROMPT, videos=clip, **option)
    for option in (
        {"max_frames": 4},
        {"max_pixels": 4096},
        {"total_pixels": 4096},
        {"size": {"height": 32}},
        {"resample": 2},
        {"min_tokens": 4},
        {"videos_kwargs": {"max_pixels": 4096}},
        {"videos_kwargs": {"frames": 4}},
        {"images_kwargs": {"frames": 4}},
        {"text_kwargs": {"frames": 4}},
        {"audio_kwargs": {"sampling_rate": 4}},
        {"common_kwargs": {"max_frames": 4}},
        {"audio": [np.zeros(4)]},
        {"anything": 1},
    ):
        with pytest.raises(ValueError, match=r"frame_sampling|no option|unknown option|no audio"):
            native(text=PROMPT, videos=clip, **option)
    for option in ({"max_frames": 4}, {"anything": 1}, {"total_pixels": 4096}):
        with pytest.raises(ValueError, match=r"frame_sampling|no option"):
            native(text="When?", **option)
    with pytest.raises(ValueError, match="frames come at their final size"):
        native(text=PROMPT, videos=clip, videos_kwargs={"do_resize": True})
    size = {"qwen3_vl": 32, "qwen2_5_vl": 28}[family]
    with pytest.raises(
        ValueError, match=f"frames of 100x60 pixels, but this model's tokens are squares of {size} pixels"
    ):
        native(text=PROMPT, videos=[torch.zeros(4, 3, 60, 100)], video_metadata=[METADATA])
    with pytest.raises(ValueError, match="must have shape"):
        native(text=PROMPT, videos=[np.zeros((4, 64, 64, 5))], video_metadata=[METADATA])


def test_options_with_an_effect(native: Any, make_clip: Any) -> None:
    clip = make_clip(2)
    plain = native(text=PROMPT, videos=clip, return_tensors="pt")
    for options in ({"do_rescale": False}, {"videos_kwargs": {"image_mean": [0.1, 0.2, 0.3]}}):
        assert not torch.equal(
            native(text=PROMPT, videos=clip, return_tensors="pt", **options)["pixel_values_videos"],
            plain["pixel_values_videos"],
        )
    assert native(text=PROMPT, videos=clip, return_metadata=True)["video_metadata"][0].fps == 10.0
    off = {"do_resize": False, "do_sample_frames": False, "fps": None, "padding": True, "text_kwargs": {"stride": 1}}
    assert torch.equal(native(text=[PROMPT], videos=clip, return_tensors="pt", **off)["input_ids"], plain["input_ids"])
    picture = Image.effect_noise((100, 80), 50).convert("RGB")
    image = PROMPT.replace("video", "image")
    small = native(text=image, images=[picture], max_pixels=64 * 64)
    both = native(text=image + PROMPT, images=[picture], videos=[clip], images_kwargs={"max_pixels": 64 * 64})
    assert torch.equal(torch.as_tensor(both["image_grid_thw"]), torch.as_tensor(small["image_grid_thw"]))


def test_placeholders_and_videos_must_match(processor: Any, make_clip: Any) -> None:
    clip = make_clip(2)
    with pytest.raises(ValueError, match=r"Found total 2 .* and 1 videos"):
        processor(text=PROMPT + PROMPT, videos=[clip])
    with pytest.raises(ValueError, match=r"Found total 0 .* and 1 videos"):
        processor(text="no video", videos=[clip])
    with pytest.raises(ValueError, match="no videos were passed"):
        processor(text=PROMPT)


def test_a_file_that_cannot_be_read_is_named(processor: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        processor(text=PROMPT, videos=[str(broken)])


def test_a_single_frame_and_an_odd_count(family: str, processor: Any, encoding: str) -> None:
    size = {"qwen3_vl": 32, "qwen2_5_vl": 28}[family]
    for count, pairs in ((1, 1), (3, 2)):
        metadata = {"fps": 1.0, "frames_indices": list(range(count)), "total_num_frames": count}
        inputs = processor(
            text=PROMPT, videos=(torch.zeros(count, 3, size, size, dtype=torch.uint8), metadata), return_tensors="pt"
        )
        grids = inputs["image_grid_thw" if encoding.startswith("interleaved") else "video_grid_thw"]
        assert grids[:, 0].sum() == pairs


def test_without_videos_it_is_the_stock_processor(family: str, processor: Any) -> None:
    picture = Image.effect_noise((100, 80), 50).convert("RGB")
    prompt = "<|vision_start|><|image_pad|><|vision_end|>What?"
    ours = processor(text=[prompt], images=[picture], return_tensors="pt")
    stock = next(cls for cls in type(processor).__mro__ if cls.__module__.startswith("transformers."))
    theirs = stock(
        processor.image_processor, processor.tokenizer, processor.video_processor, chat_template=processor.chat_template
    )(text=[prompt], images=[picture], return_tensors="pt")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
