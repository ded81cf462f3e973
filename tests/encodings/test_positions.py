"""Rotary positions of the text after a video, as Qwen2.5-VL was trained with."""

import itertools

import pytest
import torch
import transformers
from packaging.version import Version

from timelens_plugins.encodings.positions import place_text_after_video, restore_text_positions
from timelens_plugins.families.tiny import build_model

VIDEO = (7, 4, 6)  # temporal patches, and height and width in patches (2 x 3 tokens after merging)


def expected(seconds_per_patch: float, text: tuple[int, int]) -> torch.Tensor:
    """The rule of transformers up to 5.2, written out: text, video, text, each behind the highest position so far."""
    before, after = text
    rows = [(n, n, n) for n in range(before)]
    grid = itertools.product(range(VIDEO[0]), range(VIDEO[1] // 2), range(VIDEO[2] // 2))
    rows += [(before + int(t * 2 * seconds_per_patch), before + h, before + w) for t, h, w in grid]
    last = max(max(row) for row in rows)
    rows += [(last + n,) * 3 for n in range(1, after + 1)]
    return torch.tensor(rows).T


@pytest.mark.parametrize("seconds_per_patch", [0.5, 1.0, 1.3])
def test_text_goes_on_behind_the_video(seconds_per_patch: float) -> None:
    tokens = VIDEO[0] * VIDEO[1] * VIDEO[2] // 4
    kinds = torch.tensor([[0] * 5 + [2] * tokens + [0] * 4])
    model = build_model("qwen2_5_vl")
    inputs = {
        "input_ids": torch.arange(kinds.shape[1])[None],
        "mm_token_type_ids": kinds,
        "video_grid_thw": torch.tensor([VIDEO]),
        "second_per_grid_ts": torch.tensor([seconds_per_patch]),
    }
    before, _ = model.model.get_rope_index(**inputs)
    restore_text_positions(restore_text_positions(model))
    positions, deltas = model.model.get_rope_index(**inputs)
    assert torch.equal(positions[:, 0], expected(seconds_per_patch, (5, 4)))
    assert int(deltas) == int(positions.max()) + 1 - kinds.shape[1]
    if float(seconds_per_patch).is_integer() or Version(transformers.__version__) >= Version("5.18"):
        assert torch.equal(positions[..., : 5 + tokens], before[..., : 5 + tokens])
    padded = {k: torch.cat([torch.zeros_like(v[:, :3]), v], dim=1) for k, v in inputs.items() if v.shape == kinds.shape}
    mask = torch.cat([torch.zeros(1, 3), torch.ones_like(kinds)], dim=1).long()
    left, left_deltas = model.model.get_rope_index(**(inputs | padded), attention_mask=mask)
    assert torch.equal(left[:, :, 3:], positions)
    assert int(left_deltas) == int(deltas)


def test_generation_goes_on_behind_the_question(family: str) -> None:
    """The next token's position is one more than the last of the prompt: prompt and answer are one line of text."""
    model = restore_text_positions(build_model(family))
    tokens = VIDEO[0] * VIDEO[1] * VIDEO[2] // 4
    kinds = (
        [0] * 5 + [2] * tokens + [0] * 4 if family == "qwen2_5_vl" else ([0] * 3 + [2] * (tokens // 7)) * 7 + [0] * 4
    )
    options = {"second_per_grid_ts": torch.tensor([1.0])} if family == "qwen2_5_vl" else {}
    positions, deltas = model.model.get_rope_index(
        input_ids=torch.zeros(1, len(kinds), dtype=torch.long),
        mm_token_type_ids=torch.tensor([kinds]),
        video_grid_thw=torch.tensor([VIDEO]),
        **options,
    )
    assert int(deltas) + len(kinds) == int(positions[0, 0, -1]) + 1


def test_positions_that_were_right_stay(family: str) -> None:
    images = torch.tensor([[1, 4, 6], [1, 6, 4]])
    kinds = torch.tensor([0] * 3 + [1] * 6 + [0] * 2 + [1] * 6 + [0] * 3)
    model = build_model(family)
    positions, _ = model.model.get_rope_index(
        input_ids=torch.zeros(1, len(kinds), dtype=torch.long), mm_token_type_ids=kinds[None], image_grid_thw=images
    )
    assert torch.equal(place_text_after_video(positions[:, 0], kinds), positions[:, 0])


def test_a_model_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear"):
        restore_text_positions(torch.nn.Linear(1, 1))
