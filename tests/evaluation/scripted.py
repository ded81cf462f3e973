"""Tasks under lmms-eval with answers that stand beforehand."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


@functools.cache
def manager() -> Any:
    """lmms-eval's list of tasks with ours, which takes seconds to make."""
    from timelens_plugins.evaluation.hook import install

    install()
    from lmms_eval.tasks import TaskManager

    return TaskManager()


def answered(
    tasks: Sequence[str], answers: Mapping[str, str], cache: Path, **environment: object
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What lmms-eval makes of them, and every video and text that was asked.

    Args:
        tasks: by name.
        answers: by query.
        cache: folder for the data sets.
        environment: variables of the tasks.
    """
    from lmms_eval.api.model import lmms

    tasks_known = manager()
    from lmms_eval.evaluator import simple_evaluate

    asked: list[tuple[str, str]] = []

    class Scripted(lmms):
        is_simple = False

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: Any) -> Any:
            raise NotImplementedError

        def generate_until(self, requests: Any) -> list[str]:
            texts = []
            for request in requests:
                _, to_messages, _, doc_id, task, split = request.args
                video, text = to_messages(self.task_dict[task][split][doc_id])[0]["content"]
                asked.append((video["url"], text["text"]))
                [answer] = [a for query, a in answers.items() if f"'{query}'" in text["text"]]
                texts.append(answer)
            return texts

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        patch.setenv("HF_DATASETS_CACHE", str(cache))
        results = simple_evaluate(model=Scripted(), tasks=list(tasks), task_manager=tasks_known, log_samples=True)
    assert results is not None
    return dict(results), asked
