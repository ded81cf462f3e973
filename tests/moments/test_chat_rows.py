"""Chat rows as XTuner, ms-swift, LLaMA-Factory and LLaVA write them; rows that no model could be shown."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from timelens_plugins.answers import parse_spans
from timelens_plugins.moments import AnnotationError, Moment, load_moments, moments_from_rows

QUESTION = "When does a cat sleep?\nAnswer as [[start, end]]."
MESSAGES = [
    {"role": "user", "content": f"<video>{QUESTION}"},
    {"role": "assistant", "content": "[[1.5, 4]]"},
    {"role": "user", "content": "And a dog?"},
    {"role": "assistant", "content": "Between 0:10 and 0:12, and from 20 to 25 seconds."},
]
SWIFT = {"messages": MESSAGES, "videos": ["pets/x.mp4"]}
PART = {"type": "video", "video": "pets/x.mp4"}
URL = {"type": "video_url", "video_url": {"url": "pets/x.mp4", "origin_video_length": 900, "origin_fps": 30.0}}


def with_part(part, text=QUESTION):
    content = [part, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}, *MESSAGES[1:]]}


def sharegpt(**fields):
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in MESSAGES], **fields}


def llava():
    row = sharegpt(video="pets/x.mp4")
    row["conversations"][0]["value"] = f"<image>\n{QUESTION}"
    return row


@pytest.mark.parametrize(
    ("row", "duration"),
    [
        (SWIFT, None),
        (sharegpt(videos=["pets/x.mp4"]), None),
        (llava(), None),
        (SWIFT | {"videos": [], "video": "pets/x.mp4"}, None),
        (SWIFT | {"images": [], "audios": None}, None),
        (with_part(PART), None),
        (with_part(PART) | {"video": "pets/x.mp4"}, None),  # said twice, one video
        (with_part({"type": "video", "video": "file://pets/x.mp4"}), None),
        (with_part(URL, f"<VIDEO_CONTEXT>\n{QUESTION}"), 30.0),
        (with_part(URL | {"video_url": "pets/x.mp4"}) | {"duration": 31}, 31.0),
    ],
    ids=["swift", "sharegpt", "llava", "field", "no others", "part", "twice", "file", "xtuner", "duration"],
)
def test_every_question_is_a_moment_in_its_own_words(row, duration, tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row) + "\n")
    loaded = load_moments(path)
    cat, dog = loaded
    assert (loaded.report.format, loaded.report.rows) == ("chat", 1)
    assert (cat.video, cat.video_id, cat.duration) == ("pets/x.mp4", "pets/x", duration)
    assert (cat.question, cat.answer, cat.spans) == (QUESTION, "[[1.5, 4]]", ((1.5, 4.0),))
    assert cat.query == "When does a cat sleep? Answer as [[start, end]]"
    assert (dog.question, dog.spans) == ("And a dog?", ((10, 12), (20, 25)))
    assert Moment.from_row(json.loads(json.dumps(dog.to_row()))) == dog
    assert cat.flags == frozenset()


def changed(**change):
    return copy.deepcopy(SWIFT) | {"id": 17} | change


IMAGE = {"type": "image_url", "image_url": {"url": "a.jpg"}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed(videos=[]), "no video in the row"),
        (changed(videos=["a.mp4", "b.mp4"]), "2 videos in the row"),
        (changed(video="other.mp4"), "2 videos in the row"),
        (changed(images=["a.jpg"]), "an image stands beside the video"),
        (changed(image="a.jpg"), "an image stands beside the video"),
        (changed(audios=["a.wav"]), "audio stands beside the video"),
        (with_part(IMAGE) | {"id": 17, "videos": ["x.mp4"]}, "an image stands in the question"),
        (changed(videos=[["f1.jpg", "f2.jpg"]]), "the video is a list of frames"),
        (changed(videos=[{"bytes": 3}]), "a video must be a path, got None"),
        (changed(videos=["https://x.org/a.mp4"]), "the video is not a file: 'https://x.org/a.mp4'"),
        (changed(videos=["data:video/mp4;base64,AAAA"]), "the video is not a file"),
        (changed(messages=[{"role": "user", "content": "<video><video>When?"}, MESSAGES[1]]), "2 places for one video"),
        (changed(messages=[{"role": "user", "content": "<video><image>When?"}, MESSAGES[1]]), "a place for <image>"),
        (changed(messages=[*MESSAGES, {"role": "tool", "content": "x"}]), "'tool' is no part of a question"),
        (changed(messages=[{"content": "x"}]), "missing"),
        (changed(messages=[]), "no question in the row"),
        (changed(messages=[MESSAGES[1]]), "an answer without a question"),
        (changed(messages=[*MESSAGES, MESSAGES[1]]), "an answer without a question after question 2"),
        (changed(messages=[*MESSAGES[2:], *MESSAGES[:2]]), "the video comes with question 2 only"),
    ],
)
def test_a_row_that_cannot_be_shown_is_named_by_its_id(row, reason):
    good = {"messages": MESSAGES, "videos": ["good.mp4"]}
    with pytest.raises(AnnotationError) as caught:
        moments_from_rows([good, row], name="chat.jsonl")
    assert caught.value.row is not None
    assert caught.value.row.startswith("row 2 (id 17)")
    assert reason in caught.value.reason
    assert caught.value.fault.remedy
    loaded = moments_from_rows([good, row], on_error="skip")
    assert [m.video for m in loaded] == ["good.mp4", "good.mp4"]
    assert loaded.report.left_out == 1


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            [*MESSAGES[:2], {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}],
            "no_span",
        ),
        ([*MESSAGES[:2], {"role": "user", "content": "When?"}, {"role": "assistant", "content": " "}], "empty"),
        ([*MESSAGES[:2], {"role": "user", "content": "When?"}], "a question without an answer"),
        ([*MESSAGES[:2], *MESSAGES[2:3], MESSAGES[3] | {"loss": False}], "marked as not to be learnt"),
    ],
)
def test_an_answer_that_cannot_be_read_is_counted_and_costs_its_question(messages, reason):
    row = {"messages": messages, "videos": ["x.mp4"], "id": "r"}
    with pytest.raises(AnnotationError, match=r"row 1 \(id 'r'\), question 2") as caught:
        moments_from_rows([row])
    assert reason in caught.value.reason
    loaded = moments_from_rows([row], on_error="skip")
    assert [m.spans for m in loaded] == [((1.5, 4.0),)]
    assert loaded.report.left_out == 1


def test_a_system_turn_is_flagged_and_a_window_kept():
    row = with_part({"type": "video", "video": "x.mp4", "video_start": 10, "video_end": 50})
    row["messages"].insert(0, {"role": "system", "content": "You find moments."})
    loaded = moments_from_rows([row])
    assert loaded.report.flags == {"system_turn": 2}
    assert {(m.video_start, m.video_end) for m in loaded} == {(10.0, 50.0)}


def test_all_rows_of_the_real_files(real_data: Path):
    for name, questions, beyond in (("ego4d_nlq_train", 604, 5), ("timelens100k_over180", 300, 0)):
        path = real_data / "chat" / f"{name}.jsonl"
        loaded = load_moments(path)
        turns = [m for line in path.read_text().splitlines() for m in json.loads(line)["messages"]]
        assert len(loaded) == questions == sum(m["role"] == "user" for m in turns)
        assert [m.answer for m in loaded] == [m["content"] for m in turns if m["role"] == "assistant"]
        assert loaded.report.flags.get("span_beyond_duration", 0) == beyond
        assert loaded.report.videos == 60
        assert not any("VIDEO_CONTEXT" in (m.question or "") for m in loaded)
        # these answers hold no numbers but their times, so that reading all of them in pairs gives the same spans
        for moment in loaded:
            times = [
                sum(float(part) * 60**i for i, part in enumerate(reversed(text.split(":"))))
                for text in re.findall(r"\d+(?::\d+)*(?:\.\d+)?", moment.answer or "")
            ]
            assert list(moment.spans) == list(zip(times[::2], times[1::2], strict=True))
            # a reward passes the question on, whose example of an answer is no echo
            assert parse_spans(moment.answer or "", query=moment.query) == list(moment.spans)
