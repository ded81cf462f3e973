"""Requests as lmms-eval makes them for chat models."""

from __future__ import annotations

from typing import Any

from lmms_eval.api.instance import Instance

from timelens_plugins.evaluation.model import TimeLens


def requests_for(model: TimeLens, docs: list[dict[str, Any]], **generation: Any) -> list[Instance]:
    """One for each row, of a task that the model is given."""
    model.task_dict["task"] = {"test": docs}

    def messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["text"]}]}
        ]

    generation = {"max_new_tokens": 8, "until": []} | generation
    return [
        Instance(
            request_type="generate_until",
            arguments=("", messages, generation, n, "task", "test"),
            idx=0,
            metadata={"task": "task", "doc_id": n, "repeats": 1},
        )
        for n in range(len(docs))
    ]
