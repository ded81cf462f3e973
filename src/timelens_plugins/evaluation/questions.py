"""What lmms-eval's requests ask: a question about a video, and what its answer is kept under."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timelens_plugins.inference.answering import Question

__all__ = ["SEED", "Item", "item_of", "question_of"]

SEED = " seed "  # in the key of a sampled answer, before the number


@dataclass(frozen=True, slots=True)
class Item:
    """A question with the settings of its answer.

    Attributes:
        question: with a seed of its own where the answer is sampled.
        generation: the task's settings as JSON, so that equal settings compare equal.
        key: of the answer in a journal.
    """

    question: Question
    generation: str
    key: str


def item_of(
    question: Question, generation: Mapping[str, Any], row: Sequence[Any], seed: int, seen: Counter[str]
) -> Item:
    """A question of a row of a task.

    Args:
        question: without a seed.
        generation: the task's settings.
        row: task, split and number of the row.
        seed: of the run.
        seen: how often each question was asked before, which is counted up.
    """
    settings = json.dumps(dict(generation), sort_keys=True)
    # The journal tells videos by their content, so that their folder may move. Greedy answers to one question are one;
    # sampled ones belong to their row, its repetitions apart, and to the run's seed. Each is drawn from a seed of its
    # own, so that a kill, other questions beside it and other processes change nothing.
    own = list(row) if generation["do_sample"] else []
    window = [question.video_start, question.video_end]
    content = json.dumps([Path(question.video).name, window, question.text, settings, own])
    repeat = seen[content] if own else 0
    seen[content] += 1
    key = hashlib.blake2b(f"{content}#{repeat}".encode(), digest_size=16).hexdigest()
    if own:
        key += f"{SEED}{seed}"
        question = replace(question, seed=int(hashlib.blake2b(key.encode(), digest_size=7).hexdigest(), 16))
    return Item(question, settings, key)


def question_of(messages: Sequence[Mapping[str, Any]], task: str, doc_id: int) -> Question:
    """The video and the text of one user turn."""
    where = f"task '{task}', row {doc_id}"
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise ValueError(f"{where}: the model 'timelens' takes one user turn, got {[m['role'] for m in messages]}")
    videos, texts = [], []
    for part in messages[0]["content"]:
        if part["type"] == "video":
            videos.append((part["url"], part.get("start_time"), part.get("end_time")))
        elif part["type"] == "text":
            texts.append(part["text"])
        else:
            raise ValueError(
                f"{where}: the model 'timelens' takes a video and a text, got a part of type {part['type']!r}"
            )
    if len(videos) != 1:
        raise ValueError(f"{where}: the model 'timelens' takes one video, got {len(videos)}")
    (source, start, end), text = videos[0], "".join(texts)
    if isinstance(source, Mapping):
        source, start, end = source["url"], source.get("video_start"), source.get("video_end")
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"{where}: a video must be the path of a file, got a {type(source).__name__}")
    return Question(os.fspath(source), text, start, end)
