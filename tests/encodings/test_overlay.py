"""Texts drawn on frames."""

from __future__ import annotations

import pytest
import torch

from timelens_plugins.encodings.overlay import draw_overlays


def box(drawn: torch.Tensor, background: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what was drawn on one frame."""
    rows, columns = torch.nonzero((drawn != background).any(0), as_tuple=True)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_red_text_at_the_bottom_left() -> None:
    frames = torch.full((3, 3, 252, 448), 90, dtype=torch.uint8)
    texts = ["0.0s", "11.1s", "208.8s"]
    drawn = draw_overlays(frames, texts)
    assert drawn.dtype == torch.uint8
    assert (frames == 90).all(), "the input is not drawn on"
    for frame, text in zip(drawn, texts, strict=True):
        top, bottom, left, right = box(frame, 90)
        assert 4 <= left <= 12, "the margin, and the air that a glyph brings"
        assert bottom == 252 - 4 - 1
        assert 26 <= bottom - top <= 34, "digits of a 40 pt font are about 29 pixels high"
        assert 15 * len(text) < right < 26 * len(text)
        inked = frame[:, top : bottom + 1, left : right + 1].flatten(1)
        assert (inked == torch.tensor([[255], [0], [0]])).all(0).any(), "red"
        assert (inked[1] == inked[2]).all(), "and smooth edges between red and the background"
        assert (inked[0] >= 90).all()
        assert (inked[1:] <= 90).all()
    widths = [box(frame, 90)[3] for frame in drawn]
    assert widths == sorted(set(widths))
    assert not torch.equal(*draw_overlays(frames[:2], ["1.5s", "1.6s"]))


def test_small_frames_get_smaller_letters_all_alike() -> None:
    drawn = draw_overlays(torch.zeros(2, 3, 56, 56, dtype=torch.uint8), ["1.0s", "100.0s"])
    (top_a, bottom_a, left_a, right_a), (top_b, bottom_b, left_b, right_b) = (box(frame, 0) for frame in drawn)
    assert max(bottom_a, bottom_b, right_a, right_b) < 56 - 4
    assert bottom_a - top_a == pytest.approx(bottom_b - top_b, abs=1)
    assert right_a - left_a < right_b - left_b


def test_floats_are_rounded_and_counts_checked() -> None:
    frames = torch.full((1, 3, 84, 112), 90.4)
    assert torch.equal(draw_overlays(frames, ["1"]), draw_overlays(frames.round().to(torch.uint8), ["1"]))
    with pytest.raises(ValueError, match="1 frames but 2 texts"):
        draw_overlays(frames, ["1", "2"])
