"""What lmms-eval's chat models are given: a video is a video whatever its name ends in, and a window arrives whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"

from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.protocol import ChatMessages
from lmms_eval.tasks import TaskManager, get_task_dict

from timelens_plugins.evaluation.hook import install
from timelens_plugins.evaluation.questions import question_of
from timelens_plugins.evaluation.task_functions import doc_to_messages, doc_to_visual
from timelens_plugins.suffixes import VIDEO_SUFFIXES


def row(video: Path, start: float | None = None, end: float | None = None) -> dict[str, Any]:
    return {
        "id": "1",
        "video": str(video),
        "query": "a cat jumps",
        "question": None,
        "video_start": start,
        "video_end": end,
    }


def read_upstream(doc: dict[str, Any]) -> Any:
    """As lmms-eval's qwen3_vl and qwen2_5_vl prepare a chat: frames and metadata of its only video."""
    from qwen_vl_utils import process_vision_info

    chat = ChatMessages(messages=doc_to_messages(doc))
    images, videos, audios = chat.extract_media()
    assert (len(images), len(videos), len(audios)) == (0, 1, 0)
    pictures, [video], _ = process_vision_info(
        [chat.to_hf_messages(video_kwargs={"fps": 1, "max_pixels": 256 * 32 * 32})],
        return_video_kwargs=True,
        image_patch_size=16,
        return_video_metadata=True,
    )
    assert not pictures
    return video


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".MP4", ".WebM"])
def test_every_suffix_of_a_video(suffix: str, benchmark_folder: Path, tmp_path: Path) -> None:
    original = next((benchmark_folder / "videos" / "charades").glob("*.mp4"))
    video = tmp_path / f"v{suffix}"
    video.symlink_to(original)
    frames, _ = read_upstream(row(video))
    same, _ = read_upstream(row(original))
    assert len(frames) > 2
    assert (frames == same).all()
    assert question_of(doc_to_messages(row(video)), "task", 0).video == str(video)


def test_the_tasks_say_that_a_video_is_one(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the task file, with videos that lmms-eval's own guess takes for audio."""
    (tmp_path / "videos" / "charades").mkdir(parents=True)
    (tmp_path / "charades-timelens.json").write_bytes((benchmark_folder / "charades-timelens.json").read_bytes())
    for path in (benchmark_folder / "videos" / "charades").iterdir():
        (tmp_path / "videos" / "charades" / f"{path.stem}.webm").symlink_to(path)
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(tmp_path))
    install()
    [task] = get_task_dict(["timelens_bench_charades"], TaskManager(), "chat").values()
    assert isinstance(task, ConfigurableMessagesTask)
    for doc in task.test_docs():
        _, videos, audios = ChatMessages(messages=task.doc_to_messages(doc)).extract_media()
        assert (videos, audios) == ([doc["video"]], [])
        with pytest.raises(ValueError, match=r"\.webm: .*without chat messages know videos by the endings \.mp4"):
            doc_to_visual(doc)


def test_windows(benchmark_folder: Path) -> None:
    video = next((benchmark_folder / "videos" / "charades").glob("*.mp4"))
    start, end = 100 / 29.97, 200 / 29.97
    frames, metadata = read_upstream(row(video, start, end))
    whole, _ = read_upstream(row(video))
    assert len(frames) < len(whole)
    first, last = metadata["frames_indices"][0] / metadata["fps"], metadata["frames_indices"][-1] / metadata["fps"]
    assert start - 0.5 < first < last < end + 0.5
    question = question_of(doc_to_messages(row(video, start, end)), "task", 0)
    assert (question.video, question.video_start, question.video_end) == (str(video), start, end), "exactly"
    with pytest.raises(ValueError, match=r"a window of .*which lmms-eval's models without chat messages do not know"):
        doc_to_visual(row(video, start, end))


def test_a_list_of_frames_is_refused_by_name() -> None:
    messages = [
        {"role": "user", "content": [{"type": "video", "url": ["0.jpg", "1.jpg"]}, {"type": "text", "text": "x"}]}
    ]
    with pytest.raises(ValueError, match="task 'own', row 3: a video must be the path of a file, got a list"):
        question_of(messages, "own", 3)
