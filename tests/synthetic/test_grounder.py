"""The tiny grounder: its tokenizer, and lessons that equal what the real processor makes of the same clip."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from timelens_plugins.answers import GROUNDING_PROMPT, format_answer
from timelens_plugins.encodings import load_processor
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.grounder import build_grounder, build_grounder_processor, build_grounder_tokenizer
from timelens_plugins.synthetic.lessons import IGNORED, LessonWriter, flash_scene, frame_times
from timelens_plugins.synthetic.mp4 import write_mp4
from timelens_plugins.synthetic.shapes import COLORS, SHAPES
from timelens_plugins.synthetic.world import ACTIONS, make_scene, render
from timelens_plugins.video import sample_frames


def test_every_word_of_the_world_and_every_number_is_one_token() -> None:
    tokenizer = build_grounder_tokenizer()
    for word in (*COLORS, *SHAPES, *ACTIONS, "appears"):
        assert len(tokenizer(f" {word}")["input_ids"]) == 1, word
    for number in range(100):
        assert len(tokenizer(str(number))["input_ids"]) == 1
    prompt = GROUNDING_PROMPT.format(query="the yellow triangle blinks")
    assert len(tokenizer(prompt)["input_ids"]) < 50
    for text in (prompt, "čeština, emoji 🎈 and 1234.5", format_answer([(3, 12)])):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_lesson_equals_what_processors_make_of_the_clip(tmp_path: Path) -> None:
    """Of the mp4 file through this package's line, and of the drawn frames through the upstream processor."""
    tokenizer = build_grounder_tokenizer()
    build_grounder_processor(tokenizer).save_pretrained(tmp_path)
    processor, writer = load_processor(tmp_path), LessonWriter(tokenizer)
    upstream = Qwen3VLProcessor(
        processor.image_processor, tokenizer, processor.video_processor, chat_template=processor.chat_template
    )
    model = build_grounder(tokenizer)
    for seed in range(3):
        scene = make_scene(seed)
        question = GROUNDING_PROMPT.format(query=scene.events[0].query)
        lesson = writer.open(scene)
        writer.ask(lesson, question)
        batch = writer.collate([lesson])

        path = tmp_path / f"{seed}.mp4"
        write_mp4(path, render(scene), 8)
        clip = sample_frames(path, processor.frame_sampling)
        messages = [{"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        from_file = processor(text=[text], videos=[clip], return_tensors="pt")

        times = frame_times(scene.duration)
        metadata = VideoMetadata(
            total_num_frames=int(scene.duration * 8),
            fps=8.0,
            duration=scene.duration,
            frames_indices=[int(t * 8) for t in times],
        )
        collapsed = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
        frames = torch.from_numpy(render(scene, size=32, times=times)).permute(0, 3, 1, 2)
        from_frames = upstream(
            text=[collapsed], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
        )
        for encoded, tolerance in (
            (from_frames, 1e-6),
            (from_file, 0.06),
        ):  # grey levels / 127.5; the file is compressed
            assert encoded["input_ids"].tolist() == batch.input_ids.tolist()
            assert encoded["video_grid_thw"].tolist() == batch.video_grid_thw.tolist() == [[int(scene.duration), 2, 2]]
            assert (encoded["pixel_values_videos"] - batch.pixel_values_videos).abs().mean() < tolerance
        positions, _ = model.model.get_rope_index(
            batch.input_ids, mm_token_type_ids=from_file["mm_token_type_ids"], video_grid_thw=batch.video_grid_thw
        )
        assert positions.tolist() == batch.position_ids.tolist()


def test_only_what_is_to_be_learnt_is_labelled() -> None:
    tokenizer = build_grounder_tokenizer()
    writer = LessonWriter(tokenizer)
    scene = make_scene(2)
    lesson = writer.open(scene)
    writer.grounding(lesson, scene.events[0])
    learnt = [i for i in lesson.labels if i != IGNORED]
    assert tokenizer.decode(learnt) == format_answer([scene.events[0].span]) + "<|im_end|>"
    listed = writer.open(scene)
    writer.listing(listed, scene.events, ends=True)
    numbers = " ".join(tokenizer.decode([i]) for i in listed.labels if i != IGNORED)
    assert numbers == " ".join(f"{e.span.start:.0f} {e.span.end:.0f}" for e in scene.events)


def test_flashes_are_single_seconds_one_at_a_time() -> None:
    import numpy as np

    scene = flash_scene(np.random.default_rng(0), 12, 9)
    assert len({a.visible.start for a in scene.actors}) == len({(a.color, a.shape) for a in scene.actors}) == 9
    assert all(a.visible == Span(a.visible.start, a.visible.start + 1) for a in scene.actors)
