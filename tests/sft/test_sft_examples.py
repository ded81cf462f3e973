"""Rows of videos, and their tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.answers import format_answer, parse_spans
from timelens_plugins.moments import Moment
from timelens_plugins.sft.examples import answer_tokens, build_example, placeholder_example
from timelens_plugins.sft.rows import VideoRows
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.packing import pack
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.tiny import build_model
from timelens_plugins.timestamps import load_processor, snap_spans
from timelens_plugins.training.clips import ClipLoader
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


def test_targets_snap_to_the_times_the_model_is_told(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen2_5_vl"], "interleaved_timestamp", **SAMPLING)
    [last] = [m for m in moments if m is moments[0]]
    beyond = replace(last, id="beyond", spans=(Span((last.duration or 0) - 0.2, last.duration or 0),))
    rows = [last, beyond, replace(last, id="odd", spans=(Span(1.3, 4.7),))]
    row = VideoRows(moments_dataset(rows, processor.encoding))[0]
    with ClipLoader(processor, workers=0) as loader:
        clip = loader.take(row["moments"][0])
        assert clip is not None
        example = build_example(processor, clip, 0, row["moments"], snap_targets=True)
        alone = build_example(processor, clip, 0, row["moments"][1:2], snap_targets=True)
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
        return template(conversation, **options).removesuffix("<|im_end|>\n")

    for broken, told in ((rewriting, "otherwise"), (endless, "never stop")):
        monkeypatch.setattr(processor, "apply_chat_template", broken)
        with pytest.raises(ValueError, match=told):
            answer_tokens(processor, prompt, "The event happens in 1.0 - 2.0 seconds.")


def test_the_placeholder_works_in_every_encoding(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    model = build_model(family)  # type: ignore[arg-type]
    from timelens_plugins.sft.scoring import answer_log_probs

    for encoding in ("native", "interleaved_timestamp", "text_prefix", "overlay_timestamp"):
        example = placeholder_example(load_processor(tiny_checkpoints[family], encoding, **SAMPLING))
        assert torch.isfinite(answer_log_probs(model, [example.tree], True)).all()
