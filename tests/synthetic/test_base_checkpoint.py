"""The shipped base checkpoint: it has the skills, and does not know the benchmark's task."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from transformers import AutoModelForImageTextToText

from timelens_plugins.answers import GROUNDING_PROMPT, parse_spans
from timelens_plugins.encodings import load_processor
from timelens_plugins.locations import shipped_folder
from timelens_plugins.metrics import chance_levels
from timelens_plugins.spans import pairwise_iou, temporal_iou
from timelens_plugins.synthetic.grounder import BASE_CHECKPOINT
from timelens_plugins.synthetic.lessons import Lesson, LessonWriter
from timelens_plugins.synthetic.world import Event, Scene, make_scene


def answers(model: torch.nn.Module, writer: LessonWriter, pairs: list[tuple[Scene, Event]], form: str) -> list[str]:
    """Greedy texts of at most 16 tokens, each question by itself."""
    end = writer.ids("<|im_end|>")[0]
    lessons: list[Lesson] = []
    for scene, event in pairs:
        lesson = writer.open(scene)
        writer.ask(lesson, form.format(query=event.query))
        lessons.append(lesson)
    texts: list[list[int]] = [[] for _ in lessons]
    with torch.no_grad():
        for _ in range(16):
            batch = writer.collate(lessons)
            logits = model(
                input_ids=batch.input_ids,
                pixel_values_videos=batch.pixel_values_videos,
                video_grid_thw=batch.video_grid_thw,
                position_ids=batch.position_ids,
            ).logits
            for row, (lesson, text) in enumerate(zip(lessons, texts, strict=True)):
                if end not in text:
                    text.append(int(logits[row, len(lesson.input_ids) - 1].argmax()))
                    lesson.say([text[-1]])
            if all(end in text for text in texts):
                break
    return [writer.tokenizer.decode(text, skip_special_tokens=True) for text in texts]


def test_the_base_checkpoint_can_tell_times_but_not_ground() -> None:
    assert sum(file.stat().st_size for file in BASE_CHECKPOINT.iterdir()) < 3_000_000
    model = AutoModelForImageTextToText.from_pretrained(BASE_CHECKPOINT, dtype=torch.float32).eval()
    writer = LessonWriter(load_processor(BASE_CHECKPOINT).tokenizer)
    scenes = [make_scene([99, i], split="heldout") for i in range(32)]
    pairs = [(scene, scene.events[i % len(scene.events)]) for i, scene in enumerate(scenes)]
    truth = np.array([event.span for _, event in pairs])
    constant = chance_levels([[s] for s in truth.tolist()], [s.duration for s in scenes])["best constant span"].miou
    spec = importlib.util.spec_from_file_location("train_base", shipped_folder("recipes") / "demo" / "train_base.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    taught = pairwise_iou(script.predict(model, writer, pairs, script.question_cue), truth).mean()
    assert taught > constant + 0.25
    texts = answers(model, writer, pairs, GROUNDING_PROMPT)
    found = [parse_spans(text) for text in texts]
    official = np.mean([temporal_iou(s[0], t) if s else 0.0 for s, t in zip(found, truth, strict=True)])
    assert official < constant
