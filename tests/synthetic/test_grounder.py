"""The tiny grounder: its tokenizer, and lessons that equal what the real processor makes of the same clip."""

from __future__ import annotations

import torch
from transformers.video_utils import VideoMetadata

from timelens_plugins.answers import GROUNDING_PROMPT, format_answer
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.grounder import build_grounder, build_grounder_processor, build_grounder_tokenizer
from timelens_plugins.synthetic.lessons import IGNORED, LessonWriter, flash_scene, frame_times
from timelens_plugins.synthetic.shapes import COLORS, SHAPES
from timelens_plugins.synthetic.world import ACTIONS, make_scene, render


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


def test_a_lesson_equals_the_processors_encoding_of_the_clip() -> None:
    tokenizer = build_grounder_tokenizer()
    processor, writer = build_grounder_processor(tokenizer), LessonWriter(tokenizer)
    model = build_grounder(tokenizer)
    for seed in range(3):
        scene = make_scene(seed)
        event = scene.events[0]
        lesson = writer.open(scene)
        writer.ask(lesson, GROUNDING_PROMPT.format(query=event.query))
        times = frame_times(scene.duration)
        metadata = VideoMetadata(
            total_num_frames=int(scene.duration * 8),
            fps=8.0,
            duration=scene.duration,
            frames_indices=[int(t * 8) for t in times],
        )
        content = [
            {"type": "video", "video": "clip.mp4"},
            {"type": "text", "text": GROUNDING_PROMPT.format(query=event.query)},
        ]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
        batch = writer.collate([lesson])
        for size, tolerance in (
            (32, 1e-6),
            (128, 0.05),
        ):  # as drawn small; drawn large and scaled down by the processor
            frames = torch.from_numpy(render(scene, size=size, times=times)).permute(0, 3, 1, 2)
            encoded = processor(
                text=[text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
            )
            assert encoded["input_ids"].tolist() == batch.input_ids.tolist()
            assert encoded["video_grid_thw"].tolist() == batch.video_grid_thw.tolist() == [[int(scene.duration), 2, 2]]
            difference = (encoded["pixel_values_videos"] - batch.pixel_values_videos).abs().mean()
            assert difference < tolerance, size
        positions, _ = model.model.get_rope_index(
            batch.input_ids, mm_token_type_ids=encoded["mm_token_type_ids"], video_grid_thw=batch.video_grid_thw
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
