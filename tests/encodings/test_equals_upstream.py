"""Ids, grids, pixels and token types against qwen-vl-utils and transformers' own processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from timelens_plugins.encodings import load_processor
from timelens_plugins.video import FrameSampling, sample_frames

FACTORS = {"qwen3_vl": 32, "qwen2_5_vl": 28}
PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def assert_same(ours: Any, theirs: Any) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(value)), name


OFFICIAL = {"max_frames": 768, "min_tokens": 64, "total_tokens": 14336}
SMALL = {"max_frames": 12, "min_tokens": 16, "total_tokens": 400}


def upstream_video(path: Path, family: str, budget: dict[str, int]) -> tuple[torch.Tensor, dict[str, Any]]:
    """A video at 2 fps through qwen-vl-utils: float frames (T, C, H, W) and their metadata."""
    from qwen_vl_utils import process_vision_info

    token = FACTORS[family] ** 2
    part = {
        "type": "video",
        "video": str(path),
        "fps": 2,
        "max_frames": budget["max_frames"],
        "min_pixels": budget["min_tokens"] * token,
        "total_pixels": budget["total_tokens"] * token,
    }
    _, videos = process_vision_info(
        [{"role": "user", "content": [part]}],
        return_video_metadata=True,
        image_patch_size=FACTORS[family] // 2,
    )
    assert videos is not None
    (video,) = videos
    return video


@pytest.mark.parametrize(("name", "budget"), [("3MSZA.mp4", OFFICIAL), ("OHOFG.mp4", SMALL)])
def test_native_equals_qwen_vl_utils_and_the_stock_processor(
    name: str, budget: dict[str, int], family: str, tiny_checkpoints: dict[str, Path], real_data: Path
) -> None:
    path = real_data / "charades" / name
    frames, metadata = upstream_video(path, family, budget)
    stock = AutoProcessor.from_pretrained(tiny_checkpoints[family])
    prompt = f"<|im_start|>user\n{PLACEHOLDER}When?<|im_end|>\n<|im_start|>assistant\n"
    collapsed = prompt.replace(PLACEHOLDER, "<|video_pad|>") if family == "qwen3_vl" else prompt
    theirs = stock(
        text=[collapsed],
        videos=[frames],
        video_metadata=[metadata],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    ours = load_processor(tiny_checkpoints[family], "native", **budget)
    assert_same(ours(text=[prompt], videos=[str(path)], return_tensors="pt"), theirs)
    # the frames of qwen-vl-utils, as its documentation passes them
    passed = ours(
        text=[prompt],
        videos=[frames],
        video_metadata=[metadata],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert_same(passed, theirs)
    assert int(theirs["video_grid_thw"][0, 0]) == (31 if budget is OFFICIAL else 6)
    if family == "qwen2_5_vl":
        seconds = 1.0 if budget is OFFICIAL else 35.14 / 6
        assert theirs["second_per_grid_ts"].item() == pytest.approx(seconds, rel=0.01)


def test_stock_processor_keeps_or_drops_the_outer_pair(tiny_checkpoints: dict[str, Path], real_data: Path) -> None:
    """Newer transformers leave the template's marker pair around the video; ours must not, whatever they do."""
    path = real_data / "charades" / "3MSZA.mp4"
    clip = sample_frames(path, FrameSampling(max_frames=4, total_tokens=256))
    stock = AutoProcessor.from_pretrained(tiny_checkpoints["qwen3_vl"])
    theirs = stock(
        text=[PLACEHOLDER],
        videos=[clip.frames],
        video_metadata=[clip.metadata()],
        do_resize=False,
        do_sample_frames=False,
    )["input_ids"][0]
    ours = load_processor(tiny_checkpoints["qwen3_vl"])(text=PLACEHOLDER, videos=clip)["input_ids"][0]
    start, end = stock.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    assert theirs in ([start, *ours, end], ours)
    assert ours.count(start) == ours.count(end) == 2


def test_image_blocks_equal_stock_images(family: str, tiny_checkpoints: dict[str, Path], real_data: Path) -> None:
    """The interleaved layout is the prompt one would write by hand with one picture per frame pair."""
    path = real_data / "charades" / "OHOFG.mp4"
    frames, metadata = upstream_video(path, family, SMALL)
    times = [i / metadata["fps"] for i in metadata["frames_indices"]][::2]
    pictures = [Image.fromarray(f.permute(1, 2, 0).to(torch.uint8).numpy()) for f in frames[::2]]
    stock = AutoProcessor.from_pretrained(tiny_checkpoints[family])
    theirs = stock(
        text=["Watch: " + "".join(f"{t:.1f}s: {IMAGE}" for t in times) + "When?"],
        images=pictures,
        do_resize=False,
        return_tensors="pt",
    )
    ours = load_processor(tiny_checkpoints[family], "interleaved_timestamp", **SMALL)
    assert_same(ours(text=[f"Watch: {PLACEHOLDER}When?"], videos=[str(path)], return_tensors="pt"), theirs)
    assert (theirs["image_grid_thw"][:, 0] == 1).all()


@pytest.mark.parametrize("encoding", ["interleaved_index", "native", "text_prefix"])
def test_pictures_and_several_videos_in_one_batch(
    family: str, encoding: str, tiny_checkpoints: dict[str, Path], make_clip: Any
) -> None:
    """Pictures among videos keep their own place, resized by the stock rules; videos keep theirs."""
    a, b, c = make_clip(2, seed=1), make_clip(3, rows=3, seed=2), make_clip(1, seed=3)
    first, second = (Image.effect_noise((90 + 40 * i, 70), 60 + i).convert("RGB") for i in range(2))
    texts = [f"{PLACEHOLDER} then {IMAGE} then {PLACEHOLDER}", f"{IMAGE}{PLACEHOLDER} end"]
    ours = load_processor(tiny_checkpoints[family], encoding)
    both = ours(
        text=texts,
        images=[[first], [second]],
        videos=[[a, b], [c]],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )

    stock = AutoProcessor.from_pretrained(tiny_checkpoints[family])
    picture = stock.image_processor(images=[first, second], return_tensors="pt")
    if encoding == "interleaved_index":
        blocks = [
            stock.image_processor(list(clip.frames[::2]), do_resize=False, return_tensors="pt") for clip in (a, b, c)
        ]
        grids = [blocks[0], picture["image_grid_thw"][:1], blocks[1], picture["image_grid_thw"][1:], blocks[2]]
        expected = torch.cat([g if isinstance(g, torch.Tensor) else g["image_grid_thw"] for g in grids])
        assert torch.equal(both["image_grid_thw"], expected)
        split = picture["pixel_values"].split(picture["image_grid_thw"].prod(-1).tolist())
        pixels = [blocks[0]["pixel_values"], split[0], blocks[1]["pixel_values"], split[1], blocks[2]["pixel_values"]]
        assert torch.equal(both["pixel_values"], torch.cat(pixels))
    else:
        assert torch.equal(both["pixel_values"], picture["pixel_values"])
        assert both["video_grid_thw"][:, 0].tolist() == [2, 3, 1]
    decoded = ours.batch_decode(both["input_ids"])
    if encoding == "interleaved_index":
        assert [decoded[0].count(f"{i}: ") for i in (1, 2, 3)] == [2, 2, 1]
    pads = (both["mm_token_type_ids"] == 1).sum() + (both["mm_token_type_ids"] == 2).sum()
    grids = torch.cat([both[k] for k in ("image_grid_thw", "video_grid_thw") if k in both])
    assert pads == grids.prod(-1).sum() // 4


def test_a_batch_equals_its_rows(family: str, processor: Any, make_clip: Any) -> None:
    """Three unequal clips, left padded: every row is what a call of its own gives."""
    clips = [make_clip(1, seed=1), make_clip(4, rows=3, seed=2), make_clip(2, columns=2, seed=3)]
    texts = [f"{PLACEHOLDER}{'word ' * i}?" for i in (1, 9, 3)]
    batch = processor(text=texts, videos=clips, padding=True, padding_side="left", return_tensors="pt")
    rows = [processor(text=[t], videos=[c], return_tensors="pt") for t, c in zip(texts, clips, strict=True)]
    for i, row in enumerate(rows):
        length = row["input_ids"].shape[1]
        assert batch["attention_mask"][i].sum() == length
        assert torch.equal(batch["input_ids"][i, -length:], row["input_ids"][0])
        assert torch.equal(batch["mm_token_type_ids"][i, -length:], row["mm_token_type_ids"][0])
        assert (batch["mm_token_type_ids"][i, :-length] == 0).all()
    for name in set(batch) - {"input_ids", "attention_mask", "mm_token_type_ids"}:
        assert torch.equal(batch[name], torch.cat([row[name] for row in rows])), name
