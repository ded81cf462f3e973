"""A corrupt, a missing and an empty video among ten, through ``lmms-eval``: every row is accounted for, by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import endpoints
import pytest
from endpoints import Endpoint
from scripted import manager
from test_lmms_eval import run, scores

from timelens_plugins.evaluation.specs import specs_of
from timelens_plugins.evaluation.subsets import load_subset
from timelens_plugins.video import VideoError

CORRUPT, MISSING, EMPTY = "v0", "v1", "v2"
# [2, 6] is answered to all: IoU 1 with the first query's span, 2 of 6 seconds with the second's.
QUERIES = {"first": [2.0, 6.0], "second": [4.0, 8.0]}
TASKS = "timelens_custom,timelens_vue_tr"


@pytest.fixture(scope="module")
def folder(benchmark_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ten")
    (folder / "videos").mkdir()
    [clip, *_] = sorted((benchmark_folder / "videos" / "charades").iterdir())
    for number in range(10):
        shutil.copy(clip, folder / "videos" / f"v{number}.mp4")
    content = clip.read_bytes()
    (folder / "videos" / f"{CORRUPT}.mp4").write_bytes(content[: len(content) // 2])
    (folder / "videos" / f"{MISSING}.mp4").unlink()
    (folder / "videos" / f"{EMPTY}.mp4").write_bytes(b"")
    asked = [(f"v{number}", query, span) for number in range(10) for query, span in QUERIES.items()]
    own = [{"video": f"{video}.mp4", "query": query, "span": span} for video, query, span in asked]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    sets = [
        {"query_id": i, "video_id": video, "query": query, "duration": 12.0, "gt": [span], "task": "retrieval"}
        for i, (video, query, span) in enumerate(asked)
    ]
    (folder / "VUE-TR_ground_truth.json").write_text(json.dumps(sets))
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {"TIMELENS_CUSTOM_ANNOTATIONS": str(folder / "own.jsonl"), "TIMELENS_VUE_TR_DIR": str(folder)}


def test_skipped_missing_and_empty_videos_are_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "answer_to", lambda body: "The event happens in 2.0 - 6.0 seconds.")
    with Endpoint().running() as url:
        done = run(
            "lmms_eval",
            *("--model", "timelens", "--model_args"),
            f"engine=api,pretrained=tiny,base_url={url},preset=gpt,on_bad_video=skip",
            *("--tasks", TASKS, "--log_samples", "--output_path", str(tmp_path)),
            **environment(folder),
            TIMELENS_ALLOW_MISSING="1",
        )
    found = scores(tmp_path)
    # Of 20 rows 14 are answered, 2 are about the corrupt video, and 4 about the two that are not there.
    plain = found["timelens_custom"]
    total = 7 * (1 + 2 / 6)
    assert plain["mIoU"] == pytest.approx(100 * total / 16)
    assert (plain["R1@0.3"], plain["R1@0.5"]) == (pytest.approx(100 * 14 / 16), pytest.approx(100 * 7 / 16))
    assert (plain["parse_failures"], plain["missing_videos"]) == (pytest.approx(100 * 2 / 16), 2)
    sets = found["timelens_vue_tr"]  # here those of missing videos count 0
    assert sets["set_mIoU"] == pytest.approx(100 * total / 20)
    assert (sets["set_R1@0.3"], sets["set_R1@0.5"]) == (pytest.approx(100 * 14 / 20), pytest.approx(100 * 7 / 20))
    assert (sets["parse_failures"], sets["denied"], sets["missing_videos"]) == (pytest.approx(100 * 2 / 16), 0.0, 2)
    said = done.stdout + done.stderr
    assert f"{MISSING}.mp4" in said
    assert "2 videos" in said
    assert "1 of them of zero bytes" in said
    assert "4 of 20 annotations are not evaluated" in said
    assert f"not answered: every question about {folder / 'videos' / CORRUPT}.mp4" in said
    for path in tmp_path.rglob("*_samples_timelens_custom.jsonl"):
        rows = [json.loads(line)["mIoU"] for line in path.read_text().splitlines()]
        assert [row["video"] for row in rows if row["status"] == "empty"] == [CORRUPT, CORRUPT]
        assert sorted({row["video"] for row in rows}) == sorted({CORRUPT, *(f"v{n}" for n in range(3, 10))})


def test_without_leave_the_first_of_each_kind_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = manager()
    from lmms_eval.evaluator import simple_evaluate

    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    [spec] = specs_of("timelens_custom", tasks)
    with pytest.raises(ValueError, match=rf"1 video \(.*{EMPTY}\.mp4\) of zero bytes.*TIMELENS_ALLOW_MISSING=1"):
        load_subset(spec)
    whole = shutil.copytree(folder, tmp_path / "whole")
    shutil.copy(whole / "videos" / "v9.mp4", whole / "videos" / f"{EMPTY}.mp4")
    monkeypatch.setenv("TIMELENS_CUSTOM_ANNOTATIONS", str(whole / "own.jsonl"))
    with pytest.raises(FileNotFoundError, match=rf"1 video .*{MISSING}\.mp4.*2 of 20 annotations"):
        load_subset(spec)
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with Endpoint().running() as url:
        arguments = f"engine=api,pretrained=tiny,base_url={url},preset=gpt"
        with pytest.raises(VideoError, match=rf"{CORRUPT}\.mp4"):
            simple_evaluate(model="timelens", model_args=arguments, tasks=TASKS.split(","), task_manager=tasks)
