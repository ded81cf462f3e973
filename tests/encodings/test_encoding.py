"""Time encodings as objects: their texts, and one of one's own on every road to a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.answers import format_answer, grounding_prompt, parse_spans
from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import ENCODINGS, Encoding, build_messages, load_processor, register_encoding
from timelens_plugins.encodings.encoding import text_prefix_instruction


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_an_answer_beside_its_prompt_is_read(encoding: str) -> None:
    """Whatever the prompt of an encoding says, it is no answer, and hides none, where a model repeats it first."""
    prompt = ENCODINGS[encoding].question("a dog barks")
    told = text_prefix_instruction([0.0, 0.5, 1.0], 1.5) if encoding == "text_prefix" else ""
    assert parse_spans(told + prompt, query="a dog barks") == []
    answer = format_answer([(3.5, 12.0)])
    for text in (f"{told}{prompt}\n{answer}", f"<think>{told}{prompt}</think>\n{answer}", f"{prompt} {answer}"):
        assert parse_spans(text, query="a dog barks") == [(3.5, 12.0)]


def test_each_encoding_puts_its_sentence_in_front() -> None:
    prompts = {name: encoding.question("a dog barks") for name, encoding in ENCODINGS.items()}
    plain = prompts.pop("native")
    assert plain == grounding_prompt("a dog barks")
    assert prompts.pop("text_prefix") == plain
    assert prompts["interleaved_timestamp"] == (
        "You are given a video with multiple frames. The numbers before each video frame indicate its sampling "
        "timestamp (in seconds). " + plain
    )
    assert all(prompt.endswith(plain) and prompt != plain for prompt in prompts.values())
    assert len(set(prompts.values())) == len(prompts)


def test_text_prefix_instruction() -> None:
    text = text_prefix_instruction([0.0, 0.52, 1.04], 1.5)
    assert "3 frames were sampled at 0.0, 0.5, 1.0 seconds" in text
    assert "1.5 seconds" in text
    assert "1 frame was sampled at 0.0 seconds" in text_prefix_instruction([0.0], 1.5)
    for times, duration in (([], 1.5), ([-1.0], 1.5), ([float("nan")], 1.5), ([0.0], 0.0), ([0.0], float("inf"))):
        with pytest.raises(ValueError, match=r"seconds|frame|0 s"):
            text_prefix_instruction(times, duration)


@pytest.fixture
def clock() -> Iterator[Encoding]:
    """Minutes and seconds before each frame pair's image, a frame count before all of them, and a note drawn."""
    yield register_encoding(
        Encoding(
            "clock",
            preamble="Each frame stands behind its time. ",
            before_video=lambda times, duration: f"{len(times)} frames of {duration:.0f} s. ",
            before_image=lambda time, number, timestamp_format: f"[{int(time) // 60:02d}:{int(time) % 60:02d}] ",
            on_frame=lambda time, number: str(number),
        )
    )
    del ENCODINGS["clock"]


def test_an_encoding_of_ones_own(
    clock: Encoding, family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path, make_clip: Any
) -> None:
    """Registered in one place, it is there for the processor, evaluation, SFT and GRPO, and a saved checkpoint."""
    examples = pytest.importorskip("timelens_plugins.sft.examples")
    load_processor(tiny_checkpoints[family], "clock").save_pretrained(tmp_path)
    processor = load_processor(tmp_path)
    clip = make_clip(61, rows=1, columns=1)
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    seen = "".join(f"[{second // 60:02d}:{second % 60:02d}] {pad}" for second in range(61))
    question = "Each frame stands behind its time. " + grounding_prompt("a dog barks")
    expected = f"<|im_start|>user\n122 frames of 61 s. {seen}{question}<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor.apply_chat_template(
        processor.grounding_messages(clip, "a dog barks"),
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    assert processor.decode(inputs["input_ids"][0]) == expected
    plain = load_processor(tiny_checkpoints[family], "interleaved_index")
    undrawn = plain(text=[pad.replace("image", "video")], videos=[clip], return_tensors="pt")
    assert inputs["pixel_values"].shape == undrawn["pixel_values"].shape
    assert not torch.equal(inputs["pixel_values"], undrawn["pixel_values"])

    loaded = load_clip(processor, clip)
    evaluated = loaded.prompt(build_messages(clip, "", "clock", question=grounding_prompt("a dog barks")))
    messages = build_messages("made.mp4", "a dog barks", "clock")
    trained = loaded.prompt(messages)
    example = examples.build_example(
        processor, loaded, 0, [{"id": "m", "spans": [(1.0, 2.0)], "prompt": messages, "answer": None}]
    )
    assert torch.equal(evaluated.input_ids, inputs["input_ids"][0])
    assert torch.equal(trained.input_ids, inputs["input_ids"][0])
    assert torch.equal(torch.cat([example.tree.prompt.input_ids, example.tree.branches[0].tokens]), trained.input_ids)
    assert loaded.times == tuple(float(second) for second in range(61))


def test_unknown_and_repeated_names_are_errors(clock: Encoding, tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="there is an encoding 'clock' already"):
        register_encoding(clock)
    with pytest.raises(ValueError, match=r"unknown encoding 'overlay'; known: .*overlay_timestamp, .*clock"):
        build_messages("a.mp4", "a dog barks", "overlay")
    with pytest.raises(ValueError, match="unknown encoding 'overlay'"):
        load_processor(tiny_checkpoints["qwen3_vl"], "overlay")
    with pytest.raises(ValueError, match="needs a name"):
        Encoding("")
    with pytest.raises(ValueError, match="images have none of the family's"):
        Encoding("both", before_image=lambda time, number, form: "", family_markers=True)


def test_models_that_take_other_than_pairs_of_frames_are_refused(tiny_checkpoints: dict[str, Path]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"])
    processor.video_processor.temporal_patch_size = 4
    with pytest.raises(ValueError, match="this model's patches hold 4 frames, but frames are sampled in pairs here"):
        processor.configure(frame_sampling={"fps": 1.0})
