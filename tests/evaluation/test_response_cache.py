"""lmms-eval's own ``--use_cache``: answers about one video are not those to the same question about another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted import manager

from timelens_plugins.evaluation import subsets


def test_other_videos_under_the_same_task_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.model import lmms

    tasks = manager()
    from lmms_eval.evaluator import simple_evaluate

    asked: list[str] = []

    class Noting(lmms):
        is_simple = False

        def __str__(self) -> str:  # in lmms-eval's key
            return "noting"

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        generate_until_multi_round = loglikelihood

        def generate_until(self, requests: Any) -> list[str]:
            docs = [self.task_dict[task][split][doc_id] for _, _, _, doc_id, task, split in (r.args for r in requests)]
            asked.extend(Path(doc["video"]).name for doc in docs)
            return ["The event happens in 1.0 - 2.0 seconds."] * len(docs)

    def evaluate(name: str) -> None:
        subsets._load.cache_clear()
        monkeypatch.setenv("TIMELENS_CUSTOM_ANNOTATIONS", str(tmp_path / name))
        simple_evaluate(
            model=Noting(), tasks=["timelens_custom"], task_manager=tasks, use_cache=str(tmp_path / "responses")
        )

    for video in "abc":
        (tmp_path / f"{video}.mp4").write_bytes(b"a video")
    for name, videos in (("one.csv", "ab"), ("two.csv", "cb")):
        rows = [f"{video}.mp4,opens the door,1,2" for video in videos]
        (tmp_path / name).write_text("\n".join(["video,query,start,end", *rows]))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    evaluate("one.csv")
    evaluate("one.csv")
    assert asked == ["a.mp4", "b.mp4"], "kept"
    evaluate("two.csv")
    assert asked[2:] == ["c.mp4", "b.mp4"]
    (tmp_path / "a.mp4").write_bytes(b"another video")
    os.utime(tmp_path / "a.mp4")
    evaluate("one.csv")
    assert asked[4:] == ["a.mp4", "b.mp4"]
