"""Evaluation on a GPU: the answers of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GenerationConfig

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.answering import Question
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.synthetic.benchmark import write_training_set

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_answers_and_log_probs(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, family: str, share_prefix: bool
) -> None:
    write_training_set(tmp_path, {"charades": 5}, size=64, progress=False)
    videos = sorted((tmp_path / "videos").rglob("*.mp4"))
    questions = [
        Question(str(videos[n]), GROUNDING_PROMPT.format(query=f"event {q}"))
        for n in range(5)
        for q in range(1 + n % 3)
    ]
    answers = []
    for device in ("cpu", "cuda"):
        model, processor = load_model(
            tiny_checkpoints[family], total_tokens=128, min_tokens=4, dtype="float32", device=device
        )
        own = model.generation_config
        config = GenerationConfig(
            max_new_tokens=8,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            suppress_tokens=[model.config.image_token_id, model.config.video_token_id],
        )
        answerer = VideoAnswerer(model, processor, config, share_prefix=share_prefix, log_probs=True)
        answers.append([answer for _, answer in sorted(answerer.answer(questions), key=lambda pair: pair[0])])
    assert len({answer.texts for answer in answers[0]}) > 4
    for here, there in zip(*answers, strict=True):
        assert there.texts == here.texts
        for found, expected in zip(there.log_probs, here.log_probs, strict=True):
            assert list(found) == pytest.approx(list(expected), abs=1e-2)
