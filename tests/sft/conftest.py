"""Six synthetic clips with their moments, and runs of the trainer on tiny models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from timelens_plugins.encodings import load_processor
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.training.dataset import moments_dataset

SAMPLING: dict[str, Any] = {"fps": 1.0, "min_tokens": 4, "total_tokens": 64}


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """Up to three queries about each of six clips of 12 to 20 s; the fourth clip has one."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    annotations = write_training_set(tmp_path_factory.mktemp("train"), 2, size=64, fps=4.0, progress=False)
    loaded = list(load_moments(annotations, video_root=annotations.parent / "videos"))
    fourth = list(dict.fromkeys(m.video for m in loaded))[3]
    others = [m for m in loaded if m.video == fourth][1:]
    return [m for m in loaded if m not in others]


@pytest.fixture
def make_trainer(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> Callable[..., TimeLensSFTTrainer]:
    """``make_trainer(family, **settings)``: a trainer on the CPU for three steps of two videos."""
    made = 0

    def make(
        family: str = "qwen3_vl",
        *,
        encoding: str | None = None,
        dtype: str = "float32",
        rows: list[Moment] = moments,
        peft_config: Any = None,
        with_eval: bool = False,
        eval_names: Sequence[str] = (),
        **settings: Any,
    ) -> TimeLensSFTTrainer:
        nonlocal made
        made += 1
        defaults: dict[str, Any] = {
            "output_dir": str(tmp_path / f"run{made}"),
            "per_device_train_batch_size": 2,
            "max_steps": 3,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "clip_workers": 1,
        }
        processor = load_processor(tiny_checkpoints[family], encoding, **SAMPLING)
        dataset = moments_dataset(rows, processor.encoding)
        return TimeLensSFTTrainer(
            model=AutoModelForImageTextToText.from_pretrained(tiny_checkpoints[family], dtype=getattr(torch, dtype)),
            args=TimeLensSFTConfig(**(defaults | settings)),
            train_dataset=dataset,
            eval_dataset=dict.fromkeys(eval_names, dataset) or (dataset if with_eval else None),
            processing_class=processor,
            peft_config=peft_config,
        )

    return make
