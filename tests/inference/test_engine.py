"""What the engine ``transformers`` says about an answer besides its text: log-probs, and whether it was cut."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from thinking_template import with_thinking
from transformers import GenerationConfig

from timelens_plugins.answers import GROUNDING_PROMPT, parse_spans
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.answering import Answer, Question
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.benchmark import write_training_set


def test_log_probs_are_those_the_tokens_were_chosen_by(
    family: str,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shared, plain, and as the model's own ``generate`` gives them; a repetition penalty does not count."""
    model, processor = load_model(tiny_checkpoints[family], total_tokens=128, min_tokens=4)
    write_training_set(tmp_path, {"charades": 2}, size=64, progress=False)
    videos = sorted((tmp_path / "videos").rglob("*.mp4"))
    texts = [GROUNDING_PROMPT.format(query=query) for query in ("a red circle appears", "a blue square moves")]
    questions = [Question(str(video), text) for video in videos for text in texts]
    own = model.generation_config
    config = GenerationConfig(
        max_new_tokens=6,
        do_sample=True,
        repetition_penalty=1.3,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
        use_cache=True,
    )
    found = {}
    for share in (True, False):
        answerer = VideoAnswerer(model, processor, config, samples=2, share_prefix=share, log_probs=True)
        torch.manual_seed(0)
        found[share] = dict(answerer.answer(questions))
        cut = sum(bool(answer.details.get("cut")) for answer in found[share].values())
        assert cut == answerer.cut > 0
        answerer.recall(Answer(("",), (6,), details={"cut": True}))
        with caplog.at_level(logging.WARNING):
            answerer.close()
        assert f"{cut + 1} answers were cut by the limit of new tokens" in caplog.text
    for answer in (*found[True].values(), *found[False].values()):
        assert answer.token_ids is not None
        assert answer.log_probs is not None
        assert [len(row) for row in answer.log_probs] == list(answer.output_tokens)
        whole = [row[-1] in own.eos_token_id for row in answer.token_ids]  # type: ignore[operator]
        assert dict(answer.details) == ({} if all(whole) else {"cut": True})

    conversation = [processor.grounding_messages(str(videos[0]), "a red circle appears")]
    inputs = processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    for answers in found.values():
        assert answers[0].token_ids is not None
        assert answers[0].log_probs is not None
        for ids, log_probs in zip(answers[0].token_ids, answers[0].log_probs, strict=True):
            inputs_of = dict(inputs)
            row = torch.tensor([ids])
            inputs_of["input_ids"] = torch.cat([inputs["input_ids"], row], 1)
            inputs_of["attention_mask"] = torch.ones_like(inputs_of["input_ids"])
            inputs_of["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(row)], 1)
            with torch.no_grad():
                scores = model(**inputs_of).logits[0, -len(ids) - 1 : -1].log_softmax(-1)
            assert list(log_probs) == pytest.approx(scores.gather(1, row.T)[:, 0].tolist(), abs=1e-4)
    plain = VideoAnswerer(model, processor, config, samples=2)
    [(_, answer)] = plain.answer(questions[:1])
    assert answer.log_probs is None
    plain.close()
    assert plain.too_long == 0
    monkeypatch.setattr(model.config.get_text_config(), "max_position_embeddings", inputs["input_ids"].shape[1] + 5)
    assert len(dict(plain.answer(questions[:1]))) == 1
    with caplog.at_level(logging.WARNING):
        plain.close()
    assert "1 prompts with their answers are longer than the" in caplog.text


@pytest.mark.parametrize("share", [True, False])
def test_a_thought_that_is_cut_off_is_no_answer(
    share: bool, tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its opening stands in the prompt; the times it names so far are no answer, those after its end are."""
    model, processor = load_model(tiny_checkpoints["qwen3_vl"], total_tokens=128, min_tokens=4)
    write_training_set(tmp_path, {"charades": 1}, size=64, progress=False)
    [video] = map(str, (tmp_path / "videos").rglob("*.mp4"))
    config = GenerationConfig(max_new_tokens=2, eos_token_id=model.generation_config.eos_token_id)
    question = Question(video, GROUNDING_PROMPT.format(query="a red circle appears"))
    monkeypatch.setattr(type(processor), "batch_decode", lambda *_, **__: [written])

    def read() -> list[Span]:
        [(_, answer)] = VideoAnswerer(model, processor, config, share_prefix=share).answer([question])
        return parse_spans(answer.texts[0])

    cut, whole = "Perhaps from 3.0 to 5.0 seconds, but", "Perhaps from 3.0 to 5.0 seconds.</think>2.0 - 6.0 seconds"
    written = cut
    assert read() == [Span(3.0, 5.0)], "no thought was opened"
    processor.chat_template = with_thinking(processor.chat_template)
    assert read() == [Span(3.0, 5.0)], "thinking is off"
    processor.configure(thinking=True)
    assert read() == []
    written = whole
    assert read() == [Span(2.0, 6.0)]
