"""Chat rows in which others keep training data: every question about the row's one video is a moment.

``messages`` (role, content) as of XTuner, ms-swift and LLaMA-Factory, or ``conversations`` (from, value) as of
ShareGPT and LLaVA. The video is a part of the first question (``video`` or ``video_url``) or a field of the row
(``videos``, ``video``, ``video_path``); its place in the text (``<video>``, ``<VIDEO_CONTEXT>``, LLaVA's ``<image>``)
is taken out, as this package puts the video first. The one parser reads the spans of each answer. Both texts are kept,
for training in the data's own words. A row that this package could never show a model (no video, two, an image beside
it) is a fault of the row; an answer without spans is one of its question. A system turn is left out and flagged.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timelens_plugins.answers import parse_answer
from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.faults import SKIP
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat
from timelens_plugins.moments.moment import window_of
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

TURNS = ("messages", "conversations")
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
VIDEO_FIELDS = ("videos", "video", "video_path")
OTHER_MEDIA = {"image": "an image", "images": "an image", "audio": "audio", "audios": "audio"}
VIDEO_PLACE = re.compile(r"<video>|<VIDEO_CONTEXT>")
OTHER_PLACE = re.compile(r"<image>|<IMG_CONTEXT>|<audio>")
COUNTS = (("origin_video_length", "origin_fps"), ("processed_video_length", "processed_fps"))  # XTuner: frames, fps
LEAVE_OUT = f"leave the row out, or {SKIP}, which counts it"
ONE_VIDEO = f"rows need exactly one video and nothing beside it; {LEAVE_OUT}"


@dataclass
class _Turn:
    """One message: who speaks, the text without the video's place, what stands in it beside text."""

    role: str
    text: str
    videos: list[Any]
    places: int  # that the text has for videos
    learnt: bool  # False where the data says that the answer is not to be learnt


def _recognises(key: str | None, value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(name), list) for name in TURNS)


def _split(row: Row) -> Iterable[Row]:
    if row.has("id"):
        row = Row(row.value, row.file, f"{row.label} (id {row.get('id')!r:.80})")
    turns = [_turn(row, i, value) for i, value in enumerate(row.array(_turns_field(row)), 1)]
    source = _only_video(row, turns)
    video = {
        "video": _path(row, source),
        "duration": _duration(row, source),
        "window": source if isinstance(source, Mapping) else {},
        "source": row.text("source") if row.has("source") else None,
        "system": bool(row.value.get("system")) or any(turn.role == "system" for turn in turns),
    }
    number = 0
    for before, turn, reply in _neighbours([turn for turn in turns if turn.role != "system"]):
        if turn.role == "user":
            number += 1
            label = f"{row.label}, question {number}"
            yield Row({"question": turn, "answer": reply, **video}, row.file, label)
        elif before is None or before.role != "user":
            raise row.fault(None, f"an answer without a question after question {number}", LEAVE_OUT)
    if not number:
        raise row.fault(None, "no question in the row", LEAVE_OUT)


def _neighbours(turns: Sequence[_Turn]) -> Iterable[tuple[_Turn | None, _Turn, _Turn | None]]:
    """Every turn with the one before it and the one after it."""
    around = [None, *turns, None]
    return zip(around[:-2], turns, around[2:], strict=True)


def _turns_field(row: Row) -> str:
    return next((name for name in TURNS if isinstance(row.value.get(name), list)), TURNS[0])


def _turn(row: Row, number: int, value: Any) -> _Turn:
    message = Row(value, row.file, f"{row.label}, message {number}")
    role_key, content_key = ("from", "value") if "from" in message.value else ("role", "content")
    name = message.text(role_key)
    if name not in ROLES:
        raise message.fault(role_key, f"{name!r} is no part of a question and its answer", LEAVE_OUT)
    content = message.get(content_key)
    text, videos = (content, []) if isinstance(content, str) else _parts(message, content, content_key)
    places = len(VIDEO_PLACE.findall(text))
    return _Turn(ROLES[name], text, videos, places, bool(message.value.get("loss", True)))


def _parts(message: Row, content: Any, field: str) -> tuple[str, list[Any]]:
    if not isinstance(content, list):
        raise message.fault(field, f"must be text or a list of parts, got {reprlib.repr(content)}")
    texts: list[str] = []
    videos: list[Any] = []
    for value in content:
        part = Row(value, message.file, message.label)
        kind = part.text("type") if part.has("type") else next((k for k in ("text", "video") if part.has(k)), "part")
        if kind == "text":
            texts.append(part.string("text"))
        elif kind in ("video", "video_url"):
            given = next((part.value[k] for k in ("video", "video_url", "url", "path") if part.has(k)), None)
            window = {k: part.value[k] for k in ("video_start", "video_end") if part.has(k)}
            videos.append({**given, **window} if isinstance(given, dict) else {"url": given, **window})
        else:
            what = OTHER_MEDIA.get(kind.removesuffix("_url"), f"a part of type {kind!r}")
            raise message.fault(field, f"{what} stands in the question", ONE_VIDEO)
    return "".join(texts), videos


def _only_video(row: Row, turns: Sequence[_Turn]) -> Any:
    """What the row says of its video, however it says it."""
    for field, what in OTHER_MEDIA.items():
        if row.value.get(field):
            raise row.fault(field, f"{what} stands beside the video", ONE_VIDEO)
    questions = [turn for turn in turns if turn.role == "user"]
    found = [video for turn in turns for video in turn.videos]
    for field in VIDEO_FIELDS:
        value = row.value.get(field)
        found += value if isinstance(value, list) and field == "videos" else [value] if value else []
    different = {_locator(row, video): video for video in reversed(found)}
    if len(different) != 1:
        raise row.fault(None, f"{len(different) or 'no'} video{'s' if different else ''} in the row", ONE_VIDEO)
    places = sum(turn.places for turn in turns)
    others = [place for turn in turns for place in OTHER_PLACE.findall(turn.text)]
    if not places and others == ["<image>"]:  # LLaVA writes the video's place so
        places, others = 1, []
    if others or places > 1:
        what = f"a place for {others[0]}" if others else f"{places} places for one video"
        raise row.fault(None, f"{what} in the texts", ONE_VIDEO)
    late = [i for i, turn in enumerate(questions, 1) if i > 1 and (turn.videos or turn.places)]
    if late:
        raise row.fault(None, f"the video comes with question {late[0]} only", "begin the row with it")
    return next(iter(different.values()))


def _locator(row: Row, video: Any) -> str:
    if isinstance(video, Mapping):
        video = next((video[name] for name in ("url", "path", "video") if video.get(name)), None)
    if isinstance(video, list | tuple):
        raise row.fault(None, "the video is a list of frames", f"write them as a video file; {LEAVE_OUT}")
    if not isinstance(video, str) or not video.strip():
        raise row.fault(None, f"a video must be a path, got {reprlib.repr(video)}", ONE_VIDEO)
    return video


def _path(row: Row, video: Any) -> str:
    path = _locator(row, video)
    scheme, separator, rest = path.partition("://")
    if separator and scheme == "file":
        return rest
    if separator or path.startswith("data:"):
        raise row.fault(None, f"the video is not a file: {path[:80]!r}", f"fetch it and give its path; {LEAVE_OUT}")
    return path


def _duration(row: Row, video: Any) -> float | None:
    """Seconds, where the row states them, or the count and rate of the video's frames."""
    if row.has("duration"):
        return row.seconds("duration")
    if isinstance(video, Mapping):
        stated = Row(video, row.file, row.label)
        for frames, rate in COUNTS:
            if stated.has(frames) and stated.has(rate):
                return stated.seconds(frames) / stated.seconds(rate)
    return None


def _read(row: Row) -> Draft:
    turn, reply = row.value["question"], row.value["answer"]
    if reply is None or reply.role != "assistant":
        raise row.fault(None, "a question without an answer", LEAVE_OUT)
    if not reply.learnt:
        raise row.fault("loss", "the answer is marked as not to be learnt", LEAVE_OUT)
    question = OTHER_PLACE.sub("", VIDEO_PLACE.sub("", turn.text)).strip()
    answer = Row({"answer": reply.text}, row.file, row.label).text("answer").strip()
    duration, start, end = window_of(Row(row.value["window"], row.file, row.label), row.value["duration"])
    # Without the duration: an annotation is not cut at the end of its clip. Only "until the end" needs it.
    parsed = parse_answer(answer)
    if not parsed.spans and duration is not None:
        parsed = parse_answer(answer, duration=duration)
    if not parsed.spans:
        reason = f"states no span that can be read ({parsed.status}): {reprlib.repr(answer)}"
        raise row.fault("answer", reason, f"write start and end in seconds, or {SKIP}, which counts it")
    path = row.value["video"]
    return Draft(
        video=path,
        video_id=without_video_suffix(path.rstrip("/")),
        query=Row({"question": question}, row.file, row.label).query("question"),
        spans=tuple(parsed.spans),
        duration=duration,
        source=row.value["source"],
        video_start=start,
        video_end=end,
        flags=("system_turn",) if row.value["system"] else (),
        question=question,
        answer=answer,
    )


CHAT = AnnotationFormat(
    name="chat",
    layout=Layout.ROWS,
    shape='{"messages": [{"role": "user", "content": "<video>When …?"}, {"role": "assistant", "content": "1 - 4 s"}], '
    '"videos": ["….mp4"]}',
    recognises=_recognises,
    split=_split,
    read=_read,
)
