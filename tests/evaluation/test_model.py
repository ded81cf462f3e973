"""The model ``timelens``: what reaches the network, and what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"

from requests_of import requests_for

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import build_messages
from timelens_plugins.evaluation.generation import task_generation
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.inference.journal import JournalError
from timelens_plugins.video import VideoError, sample_frames

CLIPS = {"3MSZA": "person turn a light on", "OHOFG": "person sitting down in a chair"}


def load(checkpoint: Path, **options: Any) -> TimeLens:
    return TimeLens(pretrained=str(checkpoint), device="cpu", **options)


@pytest.mark.parametrize("clip", CLIPS)
def test_inputs_equal_the_official_pipelines(
    family: str, clip: str, tiny_checkpoints: dict[str, Path], real_data: Path
) -> None:
    """qwen-vl-utils with the official settings, and the stock processor with the placeholder of transformers 4.57."""
    from qwen_vl_utils import process_vision_info
    from transformers import AutoProcessor

    patch = {"qwen3_vl": 16, "qwen2_5_vl": 14}[family]
    path = str(real_data / "charades" / f"{clip}.mp4")
    text = GROUNDING_PROMPT.format(query=CLIPS[clip])
    part = {"type": "video", "video": path, "fps": 2.0, "min_pixels": 64 * (2 * patch) ** 2, "max_frames": 768}
    part["total_pixels"] = 14336 * (2 * patch) ** 2
    messages = [{"role": "user", "content": [part, {"type": "text", "text": text}]}]
    stock = AutoProcessor.from_pretrained(tiny_checkpoints[family])
    chat = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if family == "qwen3_vl":
        chat = chat.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    _, videos, _ = process_vision_info(
        messages, return_video_kwargs=True, image_patch_size=patch, return_video_metadata=True
    )
    [(frames, metadata)] = videos
    expected = stock(
        text=[chat],
        videos=[frames],
        video_metadata=[metadata],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )

    model = load(tiny_checkpoints[family])
    sampled = sample_frames(path, model.processor.frame_sampling)
    prompt = load_clip(model.processor, sampled).prompt(build_messages(sampled, "", question=text))
    assert torch.equal(prompt.input_ids, expected["input_ids"][0])
    assert torch.equal(prompt.mm_token_type_ids, expected["mm_token_type_ids"][0])
    assert torch.equal(prompt.vision["pixel_values_videos"], expected["pixel_values_videos"])
    assert torch.equal(prompt.vision["video_grid_thw"], expected["video_grid_thw"])
    decoded = model.processor.tokenizer.decode(prompt.input_ids)
    if family == "qwen3_vl":
        fps, step, first = {"3MSZA": (30.0, 929 / 61, 0.2), "OHOFG": (9.533, 334 / 69, 0.3)}[clip]
        middle = (round(step * 20) + round(step * 21)) / 2 / fps
        assert decoded.startswith(f"<|im_start|>user\n<{first} seconds><|vision_start|><|video_pad|>")
        assert f"<|vision_end|><{middle:.1f} seconds><|vision_start|>" in decoded
    else:
        frames_used = {"3MSZA": 62, "OHOFG": 70}[clip]
        length = {"3MSZA": 930 / 30, "OHOFG": 335 / 9.533}[clip]
        [seconds] = torch.as_tensor(prompt.vision["second_per_grid_ts"]).tolist()
        assert seconds == pytest.approx(2 * length / frames_used, rel=1e-3)


def test_the_protocol_of_timelens2_reaches_the_prompt(tiny_checkpoints: dict[str, Path], real_data: Path) -> None:
    """At 1 fps and a bound of 200 x 200 pixels: 34 frames of 35 s, and 360 x 640 by 2.4 are 150 x 266.7."""
    options = {"fps": 1, "max_frames": 2048, "min_tokens": 1, "total_tokens": 128_000, "max_pixels": 200**2}
    model = load(tiny_checkpoints["qwen3_vl"], **options)
    clip = sample_frames(real_data / "charades" / "OHOFG.mp4", model.processor.frame_sampling)
    assert clip.frames.shape == (34, 3, 128, 256)
    prompt = load_clip(model.processor, clip).prompt(build_messages(clip, "a query"))
    assert prompt.vision["video_grid_thw"].tolist() == [[17, 8, 16]]
    assert (prompt.input_ids == model.processor.video_token_id).sum() == 17 * 4 * 8


@pytest.fixture
def questions(benchmark_folder: Path) -> list[dict[str, Any]]:
    videos = sorted((benchmark_folder / "videos" / "charades").iterdir())
    return [
        {"video": str(video), "text": GROUNDING_PROMPT.format(query=query), "query": query}
        for query in ("a red circle appears", "the blue square leaves")
        for video in videos
    ]


def test_answers_equal_stock_generate_in_any_grouping(
    family: str, tiny_checkpoints: dict[str, Path], questions: list[dict[str, Any]]
) -> None:
    model = load(tiny_checkpoints[family], total_tokens=256, batch_size=2)
    answers = [r.text for r in model.generate_until(requests_for(model, questions))]
    for shared in (True, False):
        other = load(tiny_checkpoints[family], total_tokens=256, batch_size=1, share_prefix=shared)
        assert [r.text for r in other.generate_until(requests_for(other, questions))] == answers
    for question, answer in zip(questions, answers, strict=True):
        clip = sample_frames(question["video"], model.processor.frame_sampling)
        parts = [{"type": "video", "video": clip}, {"type": "text", "text": question["text"]}]
        inputs = model.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        output = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert model.processor.decode(new, skip_special_tokens=True) == answer


def test_stop_strings_cut_the_answer(tiny_checkpoints: dict[str, Path], questions: list[dict[str, Any]]) -> None:
    model = load(tiny_checkpoints["qwen3_vl"], total_tokens=256)
    [whole] = model.generate_until(requests_for(model, questions[:1]))
    stop = whole.text[3:5]
    [cut] = model.generate_until(requests_for(model, questions[:1], until=[stop]))
    assert cut.text == whole.text[: whole.text.index(stop)]


def test_a_prompt_of_ones_own_and_a_system_turn_reach_the_model(
    tiny_checkpoints: dict[str, Path], questions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from timelens_plugins.inference import engine

    seen: list[str] = []
    prefill = engine.prefill

    def recording(network: Any, shared: Any, queries: Any) -> Any:
        seen.append(model.processor.tokenizer.decode(torch.cat([shared.input_ids, queries[0]])))
        return prefill(network, shared, queries)

    monkeypatch.setattr(engine, "prefill", recording)
    model = load(
        tiny_checkpoints["qwen3_vl"],
        total_tokens=256,
        prompt="When: {query}?",
        system_prompt="Be brief.",
        encoding="native",
    )
    model.generate_until(requests_for(model, questions[:1]))
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<0" in seen[0]
    assert seen[0].endswith("<|vision_end|>When: a red circle appears?<|im_end|>\n<|im_start|>assistant\n")


def test_braces_of_a_prompt_file_are_text(
    tiny_checkpoints: dict[str, Path],
    questions: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text('When is {query}? In JSON: {"windows": [["<start>", "<end>"]], "query": "{query}"}\n')
    model = load(tiny_checkpoints["qwen3_vl"], prompt=str(file))
    docs = [questions[0], questions[0] | {"query": "a {query} of {braces}"}]
    texts = [item.question.text for item in model._read(requests_for(model, docs))]
    for doc, text in zip(docs, texts, strict=True):
        query = doc["query"]
        assert text == f'When is {query}? In JSON: {{"windows": [["<start>", "<end>"]], "query": "{query}"}}'

    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("timelens_plugins.evaluation.model.load_model", never)
    (tmp_path / "empty.txt").write_text("When? {}")
    (tmp_path / "latin.txt").write_bytes(b"\xe9 {query}")
    for prompt in ("no placeholder", "x" * 5000, "a\0b", str(tmp_path), *map(str, tmp_path.glob("[el]*.txt"))):
        with pytest.raises(ValueError, match=r"prompt must .*contain \{query\}"):
            load(tiny_checkpoints["qwen3_vl"], prompt=prompt)


def test_a_broken_video_stops_the_run_or_is_reported(
    tiny_checkpoints: dict[str, Path], questions: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(questions[0]["video"]).read_bytes()[:600])
    docs = [questions[0], questions[0] | {"video": str(broken)}]
    model = load(tiny_checkpoints["qwen3_vl"], total_tokens=256)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        model.generate_until(requests_for(model, docs))
    model = load(tiny_checkpoints["qwen3_vl"], total_tokens=256, on_bad_video="skip")
    good, bad = model.generate_until(requests_for(model, docs))
    assert (bool(good.text), bad.text) == (True, "")
    assert "broken.mp4" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype"),
        ({"on_bad_video": "swap"}, "on_bad_video"),
        ({"batch_size": "auto"}, "batch_size"),
        ({"encoding": "morse"}, "encoding"),
        ({"fps": 0}, "fps"),
        ({"prompt": "no placeholder"}, "query"),
        ({"share_prefix": "maybe"}, "share_prefix"),
        ({"share_prefill": False}, "share_prefill is now called share_prefix"),
        ({"decoder_threads": 1}, "decoder_threads is now called clip_workers"),
    ],
)
def test_values_out_of_range_are_named(
    options: dict[str, Any], message: str, tiny_checkpoints: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        load(tiny_checkpoints["qwen3_vl"], **options)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"fps": "abc"}, "fps must be a number, got 'abc'"),
        ({"total_tokens": "14k"}, "total_tokens must be a number, got '14k'"),
        ({"max_frames": 768.9}, "max_frames must be a positive whole number, got 768.9"),
        ({"max_rows": 1.5}, "max_rows must be a positive whole number, got 1.5"),
        ({"max_rows": 0}, "max_rows must be a positive whole number, got 0"),
        ({"clip_workers": -1}, "clip_workers must be a positive whole number, got -1"),
        ({"cache": "frames", "cache_gb": "much"}, "cache_gb must be a number, got 'much'"),
        ({"video_backend": "ffmpeg"}, "unknown video backend 'ffmpeg'"),
        ({"share_prefix": "maybe"}, "share_prefix must be true or false, got 'maybe'"),
        ({"journal": ""}, "journal: no value; is a variable unset"),
        ({"cache": " ", "journal": ""}, "cache, journal: no value"),
        ({"journal": "", "engine": "api"}, "journal: no value"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_before_a_model_is_looked_for(
    given: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(told)):
        TimeLens(pretrained="no/such/checkpoint", **given)
    assert not list(tmp_path.iterdir())


def test_a_journal_that_is_a_file_is_said_before_a_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalError, match="is a file; a journal is a folder"):
        TimeLens("no/such/checkpoint", journal=str(tmp_path / "journal"))


def test_an_unknown_argument_is_named(tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match="frames_per_second"):
        TimeLens.create_from_arg_string(f"pretrained={tiny_checkpoints['qwen3_vl']},frames_per_second=2")


def test_an_unknown_model_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    with pytest.raises(ValueError, match=r"llava|LlavaProcessor"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "text", "text": "when?"}], "one video, got 0"),
        ([{"type": "image", "url": "x.png"}, {"type": "text", "text": "when?"}], "type 'image'"),
    ],
)
def test_other_kinds_of_questions_are_refused(
    content: list[dict[str, str]], message: str, tiny_checkpoints: dict[str, Path]
) -> None:
    model = load(tiny_checkpoints["qwen3_vl"])
    [request] = requests_for(model, [{}])
    request.arguments = (request.args[0], lambda doc: [{"role": "user", "content": content}], *request.args[2:])
    with pytest.raises(ValueError, match=message):
        model.generate_until([request])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.7}, "do_sample=False with temperature=0.7"),
        ({"do_sample": True}, "do_sample=True with temperature=0"),
        ({"do_sample": True, "temperature": None}, "do_sample=True with no temperature"),
    ],
)
def test_half_of_a_request_for_sampling_is_an_error(changed: dict[str, Any], message: str) -> None:
    """``--gen_kwargs temperature=0.7`` leaves the task's ``do_sample: false``: neither is followed in silence."""
    task = {"max_new_tokens": 512, "temperature": 0, "do_sample": False, "until": []}
    with pytest.raises(ValueError, match=f"'bench': {message}: for sampled answers set both"):
        task_generation(task | changed, "bench")
    both = task_generation(task | {"do_sample": True, "temperature": 0.7}, "bench")
    assert (both["do_sample"], both["temperature"]) == (True, 0.7)
    assert task_generation({"temperature": 0.7}, "bench")["do_sample"], "nothing contradicts it"
    assert not task_generation({"top_p": 1.0, "until": "."}, "bench")["do_sample"]


def test_unknown_generation_settings_are_named(
    tiny_checkpoints: dict[str, Path], questions: list[dict[str, Any]]
) -> None:
    model = load(tiny_checkpoints["qwen3_vl"])
    with pytest.raises(ValueError, match="beams_of_light"):
        model.generate_until(requests_for(model, questions[:1], beams_of_light=4))
