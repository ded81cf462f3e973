"""``engine=api``: what a model is shown, and that every request is accounted for whatever an endpoint does."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoints import FINAL, RETRIED, Endpoint, question_of
from PIL import Image

from timelens_plugins.inference.answering import Answer, Question
from timelens_plugins.inference.api.endpoint import EndpointError, RequestFailedError
from timelens_plugins.inference.api.engine import ApiEngine, ApiSettings
from timelens_plugins.inference.api.images import PresetSampling, clip_parts
from timelens_plugins.inference.api.presets import PRESETS, Preset, read_preset
from timelens_plugins.synthetic.benchmark import write_benchmark
from timelens_plugins.video import VideoError, sample_frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = write_benchmark(tmp_path_factory.mktemp("benchmark"), 2, queries=2, size=64, progress=False)
    return sorted((root / "videos").rglob("*.mp4"))


def questions_about(videos: Sequence[Path], each: int = 4) -> list[Question]:
    return [Question(str(video), f"When is it {n}?") for video in videos for n in range(each)]


def engine(url: str, **options: Any) -> ApiEngine:
    generation = {"max_new_tokens": 16, "do_sample": False}
    return ApiEngine(ApiSettings("tiny", url, **({"retry_seconds": 0.001} | options)), generation)


def answers_of(api: ApiEngine, questions: Sequence[Question]) -> list[Answer]:
    found = dict(api.answer(questions))
    assert sorted(found) == list(range(len(questions)))
    return [found[n] for n in range(len(questions))]


# ---------------------------------------------------------------- what a model is shown


@pytest.mark.parametrize(
    ("seconds", "frames", "cells", "steady"),
    [
        (0.3, 1, 1, True),
        (29.6, 30, 1, True),
        (50.0, 50, 1, True),
        (50.5, 50, 1, False),
        (80.0, 50, 1, False),
        (80.1, 81, 4, True),
        (200.0, 200, 4, True),
        (600.0, 200, 4, False),
    ],
)
def test_the_papers_rules_for_gpt(seconds: float, frames: int, cells: int, steady: bool) -> None:
    assert PRESETS["gpt"].frames_of(seconds) == (frames, cells, steady)
    rate = 30.0
    total = round(seconds * rate)
    indices = PresetSampling(preset=PRESETS["gpt"]).frame_indices(0, total - 1, rate)
    assert len(indices) == frames
    assert indices[-1] < total
    if steady:
        np.testing.assert_array_equal(indices, np.arange(frames) * 30)
    else:
        assert (indices[0], indices[-1]) == (0, total - 1)
        assert np.ptp(np.diff(indices)) <= 1
    assert -(-len(indices) // cells) <= 50


def pictures(parts: Sequence[dict[str, Any]]) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]


def test_each_image_stands_behind_its_time(real_data: Path) -> None:
    path = real_data / "charades" / "3MSZA.mp4"  # 31.0 s at 30 frames a second
    clip = sample_frames(path, PresetSampling(preset=PRESETS["gpt"]))
    parts = clip_parts(clip, PRESETS["gpt"])
    texts = [part["text"] for part in parts if part["type"] == "text"]
    assert [part["type"] for part in parts] == ["text", "image_url"] * 31
    assert texts == [f"Frame at {n}.0s:" for n in range(31)]
    np.testing.assert_array_equal(clip.frame_indices, np.arange(31) * 30)
    for frame, picture in zip(clip.frames, pictures(parts), strict=True):
        difference = frame.permute(1, 2, 0).numpy().astype(float) - np.asarray(picture, dtype=float)
        assert np.abs(difference).mean() < 4, "the frame itself, as JPEG keeps it"
    height, width = clip.frames.shape[-2:]
    assert max(height, width) <= 512


def test_four_frames_share_an_image_row_by_row(videos: list[Path]) -> None:
    rules = Preset(fps=2.0, max_images=3, grid_above=0.5, label="at {times}", grid_label="Stacked frames at {times}:")
    clip = sample_frames(videos[0], PresetSampling(preset=rules))
    parts = clip_parts(clip, rules)
    assert len(clip.frames) == 12
    assert len(pictures(parts)) == 3
    shown = [f"{t:.1f}s" for t in clip.times]
    assert parts[2]["text"] == f"Stacked frames at {', '.join(shown[4:8])}:"
    height, width = clip.frames.shape[-2:]
    picture = np.asarray(pictures(parts)[1], dtype=float)
    assert picture.shape == (2 * height, 2 * width, 3)
    for n, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        cell = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        errors = [np.abs(cell - frame.permute(1, 2, 0).numpy()).mean() for frame in clip.frames]
        assert errors[4 + n] < 4
        assert errors[4 + n] == min(errors)


def test_gemini_is_told_and_asked_in_minutes(videos: list[Path]) -> None:
    rules = PRESETS["gemini"]
    assert rules.frames_of(3000.0) == (3000, 1, True)
    assert rules.times_text([0.0, 59.6, 61.0]) == "00:00, 01:00, 01:01"
    with Endpoint().running() as url:
        api = engine(url, preset="gemini")
        assert "MM:SS" in api.prompt
        [answer] = answers_of(api, [Question(str(videos[0]), "When?")])
    assert answer.texts[0].startswith("The event happens in")


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("base: gpt\nfps: 2\nmax_images: 20\nextra: {reasoning_effort: low}\ninput_price: 1.25\n")
    rules = read_preset(str(file))
    assert (rules.fps, rules.max_images, rules.grid_above, rules.extra) == (2, 20, 80.0, {"reasoning_effort": "low"})
    assert "input_price" not in rules.settings()
    for content, message in (
        ("fsp: 2", "unknown fsp"),
        ("fps: 0", "fps"),
        ("fps: .nan", "fps"),
        ("grid: [2]", "grid"),
        ("label: now", "label must be a text with {times}"),
        ("extra: {model: other}", "extra may not set model"),
        ("base: gtp", "base must be one of gpt, gemini"),
        ("max_images: true", "max_images"),
        ("- 1", "names and values"),
        ("a: [", "cannot be read"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"own\.yaml") as caught:
            read_preset(str(file))
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="preset must be gpt, gemini"):
        read_preset("gtp")


# ---------------------------------------------------------------- what an endpoint does


def test_every_fault_is_survived_and_counted(videos: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """The account equals the endpoint's own count, and the answers those of an endpoint without faults."""
    questions = questions_about(videos[:3], each=8)

    def plan(body: Any) -> list[str]:
        number = int(question_of(body).split()[-1].rstrip("?"))
        return [*(RETRIED[(number + k) % len(RETRIED)] for k in range(number % 4)), *FINAL[number:][:1]]

    endpoint = Endpoint(plan)
    with endpoint.running() as url:
        api = engine(url, concurrency=3)
        answers = answers_of(api, questions)
        api.close()
    with Endpoint().running() as url:
        plain = answers_of(engine(url, concurrency=1), questions)
    kinds = [FINAL[int(q.text[-2])] if int(q.text[-2]) < 4 else "" for q in questions]
    for kind, answer, expected in zip(kinds, answers, plain, strict=True):
        said = {"length": "The event hap", "refusal": "I cannot help with that.", "filter": "not shown", "nothing": ""}
        assert answer.texts == (said.get(kind, expected.texts[0]),)
        assert answer.details.get("refused", False) == (kind in ("refusal", "filter"))
        assert answer.details.get("cut", False) == (kind == "length")
    account = api.account
    assert account.questions == Counter(answered=24, refused=6, cut=3, empty=3)
    assert account.requests["sent"] == len(endpoint.requests)
    retried = Counter(
        {
            "HTTP 429": endpoint.faults["429"],
            "HTTP 500": endpoint.faults["500"],
            "HTTP 503": endpoint.faults["503"],
            "a failed connection": endpoint.faults["cut"] + endpoint.faults["hang-up"],
            "an unreadable reply": sum(endpoint.faults[f] for f in ("garbage", "empty", "no message", "html")),
        }
    )
    assert {name: n for name, n in account.requests.items() if name != "sent"} == +retried
    billed = endpoint.prompt_tokens, endpoint.output_tokens
    assert billed == (account.tokens["prompt"], account.tokens["output"])
    assert endpoint.most_busy <= 3
    assert "3 answers were cut" in caplog.text


def test_what_cannot_pass_stops_at_once_and_keeps_what_is_paid(videos: list[Path]) -> None:
    questions = questions_about(videos[:2], each=6)
    for fault, error in (("401", EndpointError), ("quota", EndpointError), ("400", RequestFailedError)):
        endpoint = Endpoint(lambda body, f=fault: [f] if "3?" in question_of(body) else [])
        with endpoint.running() as url:
            api = engine(url, concurrency=2)
            got: list[int] = []
            with pytest.raises(error, match=r"When is it 3\?.*http://127"):
                got.extend(index for index, _ in api.answer(questions))
        assert endpoint.faults[fault] == 1, "not once more"
        assert len(got) == sum(endpoint.answered.values()) == api.account.questions["answered"]
        assert api.account.questions["failed"] == 1


def test_a_request_that_fails_may_be_skipped(videos: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    questions = questions_about(videos[:2], each=3)
    endpoint = Endpoint(lambda body: ["500"] * 9 if "1?" in question_of(body) else [])
    with endpoint.running() as url:
        api = engine(url, max_retries=2, on_failed_request="skip")
        answers = answers_of(api, questions)
        api.close()
    assert [bool(a.error) for a in answers] == [False, True, False] * 2
    assert api.account.questions == Counter(answered=4, failed=2)
    assert endpoint.faults["500"] == 6
    assert caplog.text.count("When is it 1?") == 2


def test_nobody_there_is_named(videos: list[Path]) -> None:
    with Endpoint().running() as url:
        pass
    with pytest.raises(RequestFailedError, match=r"no reply in 2 requests; ConnectError"):
        list(engine(url, max_retries=1).answer(questions_about(videos[:1], 1)))


def test_the_key_is_shown_to_the_endpoint_only(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OWN_KEY", "sk-secret-1")
    with Endpoint(key="sk-secret-1").running() as url:
        api = engine(url, key_variable="OWN_KEY")
        assert answers_of(api, questions_about(videos[:1], 1))[0].texts[0]
        assert "sk-secret" not in json.dumps(api.settings())
        monkeypatch.setenv("OWN_KEY", "sk-secret-2")
        with pytest.raises(EndpointError, match=r"wrong key: Bearer \[key\]"):
            list(engine(url, key_variable="OWN_KEY").answer(questions_about(videos[:1], 1)))
    assert "sk-secret" not in caplog.text
    monkeypatch.delenv("OWN_KEY")
    with pytest.raises(EndpointError, match="set OWN_KEY"):
        engine("https://example.invalid/v1", key_variable="OWN_KEY")
    for bad in ("sk-a\nb", "schlüssel", "a b"):
        monkeypatch.setenv("OWN_KEY", bad)
        with pytest.raises(EndpointError, match="OWN_KEY holds characters that no key has"):
            engine("https://example.invalid/v1", key_variable="OWN_KEY")
    for url in ("https://me:pw@example.invalid/v1", "https://example.invalid/v1?key=1", "ftp://x/v1", "localhost:1/v1"):
        with pytest.raises(ValueError, match="base_url"):
            engine(url)


def test_a_limit_of_requests_is_kept(videos: list[Path]) -> None:
    """By the time that passes, which a busy machine can only lengthen."""
    import time

    with Endpoint().running() as url:
        start = time.monotonic()
        answers_of(engine(url, requests_per_minute=600.0, concurrency=8), questions_about(videos[:1], 6))
        assert time.monotonic() - start >= 0.5


def test_samples_are_asked_for_until_there_are_enough(videos: list[Path]) -> None:
    class One(Endpoint):
        def reply(self, body: Any) -> Any:
            return super().reply(dict(body) | {"n": 1})

    for endpoint, requests in ((Endpoint(), 1), (One(), 3)):
        with endpoint.running() as url:
            sampled = {"max_new_tokens": 16, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
            api = ApiEngine(ApiSettings("tiny", url), sampled, samples=3)
            [answer] = answers_of(api, questions_about(videos[:1], 1))
        assert len(answer.texts) == 3
        assert len(endpoint.requests) == requests
        assert endpoint.requests[0]["temperature"] == 0.7
        assert answer.details["output_tokens"] == endpoint.output_tokens == 21


def test_a_broken_video_stops_or_is_skipped(videos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(videos[0].read_bytes()[:600])
    questions = [Question(str(broken), "When?"), Question(str(videos[0]), "When?")]
    with Endpoint().running() as url:
        with pytest.raises(VideoError, match=r"broken\.mp4"):
            list(engine(url).answer(questions))
        bad, good = answers_of(engine(url, on_bad_video="skip"), questions)
    assert "cannot be opened as a video" in str(bad.error)
    assert good.texts[0].startswith("The event happens in")


def test_requests_are_made_as_asked(videos: list[Path]) -> None:
    endpoint = Endpoint()
    with endpoint.running() as url:
        answers_of(engine(url, system_prompt="Be brief."), questions_about(videos[:1], 1))
    [body] = endpoint.requests
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["messages"][1]["content"][-1] == {"type": "text", "text": "When is it 0?"}
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "tiny",
        "max_completion_tokens": 16,
        "temperature": 0.0,
    }
    with pytest.raises(ValueError, match="num_beams"):
        ApiEngine(ApiSettings("tiny", "http://localhost:1/v1"), {"num_beams": 4})
    for options, message in (({"concurrency": 0}, "concurrency"), ({"timeout": float("nan")}, "timeout")):
        with pytest.raises(ValueError, match=message):
            ApiSettings("tiny", **options)  # type: ignore[arg-type]
