"""Rows of videos, and their tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from thinking_template import with_thinking

from timelens_plugins.answers import format_answer, parse_spans
from timelens_plugins.clips import ClipLoader
from timelens_plugins.encodings import load_processor, snap_spans
from timelens_plugins.families.tiny import build_model
from timelens_plugins.grpo.prompts import PromptSource
from timelens_plugins.moments import Moment
from timelens_plugins.sft.examples import answer_tokens, build_example, check_stops, placeholder_example
from timelens_plugins.sft.rows import VideoRows
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.packing import pack
from timelens_plugins.spans import Span
from timelens_plugins.training.dataset import moments_dataset

SAMPLING: dict[str, Any] = {"fps": 1.0, "min_tokens": 4, "total_tokens": 64}


def test_moments_of_a_clip_form_a_row(moments: list[Moment]) -> None:
    window = replace(moments[0], id="w", video_start=1.0, video_end=9.0, duration=8.0)
    dataset = moments_dataset([*moments[::-1], window])
    rows = VideoRows(dataset)
    assert len(rows) == 7  # six videos, and a window of one of them
    ids = [[m["id"] for m in rows[i]["moments"]] for i in range(len(rows))]
    assert sorted(itertools.chain(*ids)) == sorted([*(m.id for m in moments), "w"])
    assert ids[-1] == ["w"]
    assert all(len({m["video"] for m in rows[i]["moments"]}) == 1 for i in range(len(rows)))
    assert rows[2]["row"] == 2

    many = [replace(moments[0], id=str(i)) for i in range(7)]
    parts = VideoRows(moments_dataset(many), max_queries=3)
    assert [len(parts[i]["moments"]) for i in range(len(parts))] == [2, 2, 3]
    with pytest.raises(ValueError, match="lacks prompt"):
        VideoRows(dataset.remove_columns("prompt"))


@pytest.mark.parametrize("encoding", ["native", "interleaved_timestamp"])
def test_tokens_of_a_row(family: str, encoding: str, tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    """Prompt, query and answer, put together, are the whole conversation as the processor writes it."""
    processor = load_processor(tiny_checkpoints[family], encoding, **SAMPLING)
    row = VideoRows(moments_dataset(moments, processor.encoding))[0]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        example = build_example(processor, clip, 0, row["moments"])
    assert example is not None
    assert example.queries == len(row["moments"]) == 3
    for moment, branch in zip(row["moments"], example.tree.branches, strict=True):
        [answer] = branch.children
        assert branch.scored is False
        assert answer.scored
        text = format_answer(moment["spans"])
        assert processor.tokenizer.decode(answer.tokens) == text + "<|im_end|>"
        assert parse_spans(text) == [Span(*span) for span in moment["spans"]]
        reply = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        whole = processor.apply_chat_template([*moment["prompt"], reply], tokenize=True, return_dict=True)
        ids = torch.tensor(whole["input_ids"]).flatten()
        joined = torch.cat([example.tree.prompt.input_ids, branch.tokens, answer.tokens])
        assert torch.equal(joined, ids[: len(joined)])
        assert processor.tokenizer.decode(ids[len(joined) :]) == "\n"
    core = vision_language_model(build_model(family))  # type: ignore[arg-type]
    packed = pack(core, [example.tree], torch.device("cpu"))
    assert example.packed_tokens == packed.input_ids.numel()
    assert example.scored_tokens == packed.targets.numel()
    prompts = sum(len(example.tree.prompt) + b.tokens.numel() for b in example.tree.branches)
    assert example.plain_tokens == prompts + example.scored_tokens - example.queries


def test_chat_rows_learn_their_own_answers(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], "native", **SAMPLING)
    own = [replace(m, question=f"When: {m.query}?", answer=f"[{list(m.spans[0])}]") for m in moments]
    row = VideoRows(moments_dataset(own, processor.encoding))[0]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        example = build_example(processor, clip, 0, row["moments"])
        snapped = build_example(processor, clip, 0, row["moments"], snap=True)
    assert example is not None
    assert snapped is not None
    for moment, branch, changed in zip(row["moments"], example.tree.branches, snapped.tree.branches, strict=True):
        assert processor.tokenizer.decode(branch.children[0].tokens) == moment["answer"] + "<|im_end|>"
        asked = processor.tokenizer.decode(torch.cat([example.tree.prompt.input_ids, branch.tokens]))
        assert f"<|vision_end|>When: {moment['query']}?<|im_end|>" in asked
        assert processor.tokenizer.decode(changed.children[0].tokens).startswith("The event happens in ")


def test_targets_snap_to_the_times_the_model_is_told(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen2_5_vl"], "interleaved_timestamp", **SAMPLING)
    [last] = [m for m in moments if m is moments[0]]
    beyond = replace(last, id="beyond", spans=(Span((last.duration or 0) - 0.2, last.duration or 0),))
    rows = [last, beyond, replace(last, id="odd", spans=(Span(1.3, 4.7),))]
    row = VideoRows(moments_dataset(rows, processor.encoding))[0]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        example = build_example(processor, clip, 0, row["moments"], snap=True)
        alone = build_example(processor, clip, 0, row["moments"][1:2], snap=True)
    assert example is not None
    assert example.left_out == ("beyond",)
    assert alone is None
    texts = [processor.tokenizer.decode(b.tokens[:-1]) for b in example.tree.scored_branches()]
    assert texts == [format_answer(snap_spans(m.spans, clip.times)) for m in (rows[0], rows[2])]
    assert texts[1] != format_answer([(1.3, 4.7)])


def test_a_template_that_rewrites_the_prompt_is_refused(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SAMPLING)
    prompt = moments_dataset(moments[:1])[0]["prompt"]
    template: Callable[..., str] = processor.apply_chat_template

    def rewriting(conversation: Any, **options: Any) -> str:
        return ("" if options["add_generation_prompt"] else "once more: ") + template(conversation, **options)

    def endless(conversation: Any, **options: Any) -> str:
        return template(conversation[:2], **options).removesuffix("<|im_end|>\n")

    for broken, told in ((rewriting, "otherwise"), (endless, "never stop")):
        monkeypatch.setattr(processor, "apply_chat_template", broken)
        with pytest.raises(ValueError, match=told):
            answer_tokens(processor, prompt, "The event happens in 1.0 - 2.0 seconds.")


def test_a_thought_in_an_answer_where_thinking_is_off(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    """Qwen3.5's template closes the thought in the prompt, and would write the answer's before that."""
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SAMPLING)
    processor.chat_template = with_thinking(processor.chat_template)
    own = replace(moments[0], question="When?", answer="<think>at once</think><answer>1.0 - 2.0</answer>")
    row = VideoRows(moments_dataset([own], processor.encoding))[0]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        with pytest.raises(ValueError, match=rf"^{re.escape(own.id)}: .*at once.* set thinking: true"):
            build_example(processor, clip, 0, row["moments"])


def test_an_answer_ends_where_the_model_stops(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template may end a turn only where another follows; a token that stops no model is refused."""
    processor, model = load_processor(tiny_checkpoints["qwen3_vl"], **SAMPLING), build_model("qwen3_vl")
    prompt = moments_dataset(moments[:1])[0]["prompt"]
    template: Callable[..., str] = processor.apply_chat_template

    def between(conversation: Any, **options: Any) -> str:
        return template(conversation, **options).removesuffix("<|im_end|>\n")

    def by_the_next(conversation: Any, **options: Any) -> str:
        return template(conversation, **options).replace("<|im_end|>\n", "")

    for changed, end in ((template, "<|im_end|>"), (between, "<|im_end|>"), (by_the_next, "<|im_start|>")):
        monkeypatch.setattr(processor, "apply_chat_template", changed)
        assert processor.tokenizer.decode(answer_tokens(processor, prompt, "1.0 - 2.0")) == f"1.0 - 2.0{end}"
        if end == "<|im_end|>":
            check_stops(processor, model)
    with pytest.raises(ValueError, match=r"ends an answer with <\|im_start\|>, at which this model does not stop"):
        check_stops(processor, model)
    model.generation_config.eos_token_id = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    check_stops(processor, model)


def test_the_placeholder_works_in_every_encoding(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    model = build_model(family)  # type: ignore[arg-type]
    from timelens_plugins.sft.scoring import answer_log_probs

    for encoding in ("native", "interleaved_timestamp", "text_prefix", "overlay_timestamp"):
        example = placeholder_example(load_processor(tiny_checkpoints[family], encoding, **SAMPLING))
        assert torch.isfinite(answer_log_probs(model, [example.tree], True)).all()


def test_a_target_outside_its_clip_is_said_by_both_trainers(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody states how long the video is, so that only the decoded clip tells."""
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SAMPLING)
    here = [replace(m, duration=None) for m in moments if m.video == moments[0].video]
    outside = [replace(here[0], id=f"outside {i}", spans=(Span(500.0 + i, 560.0),)) for i in range(2)]
    dataset = moments_dataset([*here, *outside], processor.encoding)
    row = VideoRows(dataset)[0]
    said = [
        f"outside {i}: its target starts at {500 + i} s, and its clip of {moments[0].video} ends at 1" for i in (0, 1)
    ]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        for _ in range(2):  # epochs
            assert build_example(processor, clip, 0, [m for m in row["moments"] if m["id"] != "outside 1"]) is not None
        source = PromptSource(loader, generations=1)
        for name in (here[0].id, "outside 1", "outside 1"):
            source.group(next(m for m in dataset if m["id"] == name))
        own = {"prompt": dataset[-1]["prompt"], "spans": "a column of another meaning"}
        assert source.group(own).kept
    told = [record.message for record in caplog.records]
    assert [message[: len(start)] for message, start in zip(told, said, strict=True)] == said
