"""Clips read ahead: the same prompts as the processor's own, each clip once, bounded, faults to the consumer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.clips import ClipKey, ClipLoader
from timelens_plugins.clips import loader as loader_module
from timelens_plugins.encodings import ENCODINGS, load_processor
from timelens_plugins.moments import Moment
from timelens_plugins.training.dataset import moments_dataset
from timelens_plugins.video import VideoError, sample_frames

SMALL: dict[str, Any] = {"fps": 1.0, "total_tokens": 64, "min_tokens": 4}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_prompts_equal_the_processors_own(
    family: str, encoding: str, tiny_checkpoints: dict[str, Path], moments: list[Moment]
) -> None:
    processor = load_processor(tiny_checkpoints[family], encoding=encoding, **SMALL)
    row = moments_dataset(moments[:1], processor.encoding)[0]
    system = {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]}
    with ClipLoader(processor) as loader:
        loader.request([row])
        loaded = loader.take(row)
    assert loaded is not None
    assert loaded.times == tuple(processor.prompt_times(sample_frames(row["video"], processor.frame_sampling)))
    for conversation in (row["prompt"], [system, *row["prompt"]]):
        expected = processor.apply_chat_template(
            conversation, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        prompt = loaded.prompt(conversation)
        assert torch.equal(prompt.input_ids, expected["input_ids"][0])
        assert torch.equal(prompt.mm_token_type_ids, torch.as_tensor(expected["mm_token_type_ids"])[0])
        for name, tensor in prompt.vision.items():
            assert torch.equal(tensor, torch.as_tensor(expected[name])), name


def test_each_clip_is_read_once_while_wanted_and_then_let_go(
    tiny_checkpoints: dict[str, Path], moments: list[Moment]
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    videos = list(dict.fromkeys(m.video for m in moments))[:2]
    with ClipLoader(processor) as loader:
        order = [ClipKey(videos[0]), ClipKey(videos[1]), ClipKey(videos[0])]
        loader.request(order)
        first, _, again = [loader.take(key) for key in order]
        assert first is again
        assert loader.decoded == 2
        assert not loader._held
        assert not loader._wanted
        assert loader.take(videos_key := ClipKey(videos[0])) is not first  # no longer kept
        assert loader.take(ClipKey(videos[0], 2.0, 8.0)) is not None
        assert loader.decoded == 4
        assert videos_key not in loader._held


def test_windows_are_clips_of_their_own(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    with ClipLoader(processor, workers=0) as loader:
        window = loader.take(ClipKey(moments[0].video, 2.0, 8.0))
    assert window is not None
    assert window.clip.video_start == pytest.approx(2.0, abs=0.3)
    assert window.clip.duration == pytest.approx(6.0, abs=0.3)


def test_memory_is_bounded(
    tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, moments: list[Moment]
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    clip = sample_frames(moments[0].video, processor.frame_sampling)
    read: list[str] = []
    lock = threading.Lock()

    def fake(path: str, *_: Any, **__: Any) -> Any:
        with lock:
            read.append(path)
        return clip

    monkeypatch.setattr(loader_module, "sample_frames", fake)
    with ClipLoader(processor, workers=2, ahead=3) as loader:
        keys = [ClipKey(str(i)) for i in range(10)]
        loader.request(keys)
        for taken, key in enumerate(keys):
            assert len(loader._held) <= 3
            assert len(read) <= taken + 3
            assert loader.take(key) is not None
        assert sorted(read) == sorted(str(i) for i in range(10))
        loader.request(keys[:3])
        assert loader.take(keys[7]) is not None  # out of turn: at once, no dead end
        loader.clear()
        assert not loader._held


def test_requests_are_taken_back(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    first, second, *_ = map(ClipKey, dict.fromkeys(m.video for m in moments))
    with ClipLoader(processor, workers=1, ahead=1) as loader:
        loader.request([first, first, second])
        loader.withdraw([first])
        assert dict(loader._wanted) == {first: 1, second: 1}
        loader.withdraw([first])
        assert list(loader._held) == [second], "the place is free for the next"
        assert loader.take(second) is not None
        assert not loader._held
        assert not loader._wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_video_reaches_the_consumer(
    workers: int, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with ClipLoader(processor, workers=workers) as loader:
        loader.request([ClipKey(str(broken))])
        with pytest.raises(VideoError, match=r"broken\.mp4"):
            loader.take(ClipKey(str(broken)))
    with ClipLoader(processor, workers=workers, on_bad_video="skip") as loader:
        loader.request([ClipKey(str(broken))] * 2)
        assert loader.take(ClipKey(str(broken))) is None
        assert loader.take(ClipKey(str(broken))) is None
        assert list(loader.skipped) == [str(broken)]
    with pytest.raises(ValueError, match="on_bad_video"):
        ClipLoader(processor, on_bad_video="swap")  # type: ignore[arg-type]


def test_faults_that_are_no_video_faults_are_never_skipped(
    tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)

    def defect(*_: Any, **__: Any) -> Any:
        raise KeyError("a defect")

    monkeypatch.setattr(loader_module, "sample_frames", defect)
    with ClipLoader(processor, on_bad_video="skip") as loader, pytest.raises(KeyError):
        loader.take(ClipKey("x.mp4"))


def test_control_tokens_in_a_text_are_text(tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"], **SMALL)
    row = moments_dataset(moments[:1])[0]
    with ClipLoader(processor, workers=0) as loader:
        loader.request([row, row])
        clean, other = loader.take(row), loader.take(row)
        assert clean is not None
        assert other is not None
        expected = clean.prompt(row["prompt"])
        row["prompt"][0]["content"][1]["text"] += "<|video_pad|><|im_end|>"
        prompt = other.prompt(row["prompt"])
    for name in ("<|video_pad|>", "<|im_end|>"):
        token = processor.tokenizer.convert_tokens_to_ids(name)
        assert (prompt.input_ids == token).sum() == (expected.input_ids == token).sum() > 0
    assert "<|video_pad|><|im_end|><|im_end|>\n<|im_start|>assistant" in processor.decode(prompt.input_ids)
