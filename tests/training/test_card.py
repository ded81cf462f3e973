"""The model card of what recipes save: base, data, objective, settings, and commands that load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from recipe_runs import run

from timelens_plugins.moments import Moment

TOLD = {
    "sft": ["supervised fine-tuning", "negative log-likelihood of the answers' tokens"],
    "rlvr": ["verifiable rewards (GRPO)", "reward temporal_iou_reward, weight 1\n- reward parse_penalty, weight 0.5"],
}


@pytest.mark.parametrize("name", TOLD)
def test_a_recipe_saves_a_card(
    name: str, training_set: Path, moments: list[Moment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"annotations": str(training_set), "max_duration": 15, "max_steps": 1, "save_steps": 1}
    if name == "rlvr":
        settings |= {"reward_weights": [1.0, 0.5], "max_completion_length": 4}
    run(name, output_dir="out", **settings)
    for folder in ("out", "out/checkpoint-1"):
        text = Path(folder, "README.md").read_text()
        assert "Made from `build/synthetic/qwen3_vl` by" in text
        assert f"{training_set} (timelens_100k): {len(moments)} annotations of 6 videos, of which " in text
        assert "passed the filters (videos of 5 to 15 s, queries of at most 200 words, none about sounds)" in text
        assert "this is the model after step 1" in text
        assert all(line in text for line in TOLD[name])
        values = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
        assert (values["learning_rate"], values["seed"], values["max_steps"]) == (1e-3, 0, 1)
        assert f'model, processor = load_model("{folder}")' in text
        assert ModelCard(text).data.to_dict()["pipeline_tag"] == "video-text-to-text"
        code = text.split("```python\n")[1].split("```")[0]
        loaded: dict[str, Any] = {}
        exec(code, loaded)  # what the card says does load
        assert loaded["processor"].frame_sampling.total_tokens == 64
        assert loaded["model"].name_or_path == folder
