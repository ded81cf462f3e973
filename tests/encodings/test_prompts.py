"""What the model reads: prompts of a real clip, token by token, in every encoding and both families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings import ENCODINGS, InterleavedTimestampsMixin, load_processor

QUERY = "person turn a light on"
# Six frames of the clip (30 fps, 930 frames): 0, 186, 372, 557, 743 and 929.
TIMES = ["0.0", "6.2", "12.4", "18.6", "24.8", "31.0"]
PREFIX = "From a video of 31.0 seconds, 6 frames were sampled at 0.0, 6.2, 12.4, 18.6, 24.8, 31.0 seconds. "

# Text and vision blocks of the three frame pairs, in the order of the prompt.
PAIR = ["<|vision_start|>", "PADS", "<|vision_end|>"]
INTERLEAVED = {
    "interleaved_timestamp": ["0.0s: ", *PAIR, "12.4s: ", *PAIR, "24.8s: ", *PAIR],
    "interleaved_index": ["1: ", *PAIR, "2: ", *PAIR, "3: ", *PAIR],
}
LAYOUT = {
    "qwen3_vl": {
        **INTERLEAVED,
        "overlay_timestamp": [*PAIR, *PAIR, *PAIR],
        "overlay_index": [*PAIR, *PAIR, *PAIR],
        "text_prefix": [PREFIX, *PAIR, *PAIR, *PAIR],
        "native": ["<3.1 seconds>", *PAIR, "<15.5 seconds>", *PAIR, "<27.9 seconds>", *PAIR],
    },
    "qwen2_5_vl": {
        **INTERLEAVED,
        "overlay_timestamp": PAIR,
        "overlay_index": PAIR,
        "text_prefix": [PREFIX, *PAIR],
        "native": PAIR,
    },
}


@pytest.fixture
def real_processor(family: str, encoding: str, tiny_checkpoints: dict[str, Path]) -> InterleavedTimestampsMixin:
    return load_processor(tiny_checkpoints[family], encoding, min_frames=6, max_frames=6, min_tokens=8, total_tokens=90)


def test_prompt_of_a_real_clip(
    family: str,
    encoding: str,
    real_processor: Any,
    real_data: Path,
    shown: Callable[[Any, Any], list[str]],
) -> None:
    messages = real_processor.grounding_messages(str(real_data / "charades" / "3MSZA.mp4"), QUERY)
    inputs = real_processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )

    images = encoding in INTERLEAVED
    grids = inputs["image_grid_thw" if images else "video_grid_thw"]
    tokens_per_pair = int(grids[0, 1] * grids[0, 2]) // 4
    blocks = int(grids[:, 0].sum()) if family == "qwen3_vl" or images else 1
    pad = "<|image_pad|>" if images else "<|video_pad|>"
    assert grids[:, 0].sum() == 3
    assert inputs["pixel_values" if images else "pixel_values_videos"].shape[0] == 3 * 4 * tokens_per_pair

    def tokens(text: str) -> list[str]:
        return [real_processor.tokenizer.decode([i]) for i in real_processor.tokenizer(text)["input_ids"]]

    expected = tokens("<|im_start|>user\n")
    for piece in LAYOUT[family][encoding]:
        expected += [f"{pad}×{tokens_per_pair * 3 // blocks}"] if piece == "PADS" else tokens(piece)
    expected += tokens(ENCODINGS[encoding].preamble + GROUNDING_PROMPT.format(query=QUERY))
    expected += tokens("<|im_end|>\n<|im_start|>assistant\n")
    assert shown(real_processor, inputs["input_ids"][0]) == expected

    types = {"<|image_pad|>": 1, "<|video_pad|>": 2}
    for token, kind in zip(inputs["input_ids"][0], inputs["mm_token_type_ids"][0], strict=True):
        assert kind == types.get(real_processor.tokenizer.decode([token]), 0)
    if family == "qwen2_5_vl" and not images:
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / (6 / 930 * 30)])


def test_other_timestamp_format(family: str, tiny_checkpoints: dict[str, Path], make_clip: Any) -> None:
    processor = load_processor(tiny_checkpoints[family], "interleaved_timestamp", timestamp_format="[{t:05.2f}] ")
    clip = make_clip(2)
    text = processor.decode(processor(text="<|vision_start|><|video_pad|><|vision_end|>", videos=clip)["input_ids"][0])
    assert text.replace("<|image_pad|>", "") == (
        "[00.00] <|vision_start|><|vision_end|>[01.00] <|vision_start|><|vision_end|>"
    )


def test_prompt_times_are_the_times_in_the_prompt(
    family: str, encoding: str, processor: InterleavedTimestampsMixin, make_clip: Any
) -> None:
    clip = make_clip(3)
    told = processor.prompt_times(clip)
    if encoding.startswith("interleaved"):
        assert told == [0.0, 1.0, 2.0]
    elif encoding == "native":
        assert told == [0.25, 1.25, 2.25]
    else:
        assert told == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
