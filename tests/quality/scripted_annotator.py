"""An endpoint that knows the truth about synthetic clips, and errs in chosen ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from endpoints import Body, Endpoint, question_of

from timelens_plugins.inference.api.images import PresetSampling, clip_parts
from timelens_plugins.inference.api.presets import PRESETS
from timelens_plugins.video import sample_frames

Truth = Mapping[str, tuple[float, float]]
"""Sentence -> when it happens; a video's."""


class Annotator(Endpoint):
    """Of each video's events it words the first rightly, the second with a wrong span that it corrects when asked, and
    the third with a wrong span that it insists on. Around them it proposes what should not become an annotation.

    Args:
        videos: path -> truth.
    """

    def __init__(self, videos: Mapping[str, Truth], **options: Any) -> None:
        super().__init__(**options)
        self.truths: dict[str, Truth] = {}
        for path, truth in videos.items():
            clip = sample_frames(path, PresetSampling(preset=PRESETS["gpt"]))
            self.truths[_pictures(clip_parts(clip, PRESETS["gpt"]))] = truth

    def reply(self, body: Body) -> tuple[int, dict[str, str], bytes, str]:
        with self._lock:
            self.requests.append(body)
        text = question_of(body)
        truth = self.truths.get(_pictures(body["messages"][-1]["content"][:-1]), {})
        message = {"role": "assistant", "content": answer(text, truth)}
        choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(body.get("n", 1))]
        usage = {"prompt_tokens": 1000, "completion_tokens": 10}
        whole = {"model": "scripted", "choices": choices, "usage": usage}
        return 200, {}, json.dumps(whole).encode(), ""


def _pictures(parts: Sequence[Any]) -> str:
    return json.dumps([part["image_url"]["url"] for part in parts if part["type"] == "image_url"])


def answer(text: str, truth: Truth) -> str:
    """What it says to a question about a video."""
    events = list(truth)
    if text.startswith("The video lasts") and "List up to" in text:
        proposed = [{"event": event, "start": a, "end": b} for event, (a, b) in truth.items()]
        more = ["a bell sounds", "it happens again", "a green dragon flies over a castle", f"there is {events[0]}"]
        odd = [{"event": 5, "start": 1, "end": 2}, {"event": "too late", "start": 500, "end": 600}]
        proposed += [{"event": event, "start": "00:01", "end": "3 s"} for event in more]
        return "Here they are:\n```json\n" + json.dumps([*proposed, *odd]) + "\n```"
    if "Write one sentence" in text:
        event = text.partition("this happens: ")[2].partition("\n")[0]
        # of {start} to {end} seconds: the query's own time, wrong for all but the first event
        start, end = truth.get(event, truth[events[0]] if events[0] in event else (1.0, 3.0))
        if event in events[1:]:
            start, end = elsewhere(start, end)
        return json.dumps({"query": event, "start": start, "end": end})
    if text.startswith("Find every moment"):
        asked = text.partition("this happens: ")[2].partition("\n")[0].removeprefix("there is ")
        return json.dumps([list(truth[asked])] if asked in truth else [])
    if "Somebody else looked" in text:
        query = text.split("\n")[2]
        if query not in truth:
            return '{"query": null}'
        start, end = truth[query] if query == events[1] else elsewhere(*truth[query])
        return json.dumps({"query": query, "start": start, "end": end})
    if text.startswith("Does this happen"):
        return "Yes." if text.partition("video: ")[2].partition("?")[0] in truth else "No, it does not."
    if text.startswith("Please find the visual event"):
        start, end = truth.get(text.split("'")[1], (0.0, 1.0))
        return f"The event happens in {start} - {end} seconds."
    if text.startswith("This is a part"):
        return '{"start": 2.5, "end": 4.5}'
    if text.startswith('Find "'):
        return "From 1 to\u20282 seconds."
    raise AssertionError(text)


def elsewhere(start: float, end: float) -> tuple[float, float]:
    """A span that does not touch the true one."""
    return (end + 0.5, end + 2.0) if start < 3 else (0.0, start - 1.0)
