"""The model card of a checkpoint: what was trained on what, for what, how, and how to load and evaluate it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

__all__ = ["data_lines", "write_card"]

_COMMON = (
    "learning_rate",
    "merger_learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "vision",
    "bf16",
    "fp16",
    "share_prefix",
    "on_bad_video",
    "seed",
)
"""Settings that a card shows for either method."""

_USE = """\
```python
from timelens_plugins.families.load import load_model

model, processor = load_model("{folder}")
```

Evaluation on TimeLens-Bench:

```
lmms-eval --model timelens --model_args pretrained={folder} --tasks timelens_bench --log_samples --output_path out
```
"""


def data_lines(dataset: Any) -> list[str]:
    """What is known of a data set of moments: its description, and how many moments and videos it has."""
    if not hasattr(dataset, "column_names"):
        described, videos = "", [row.get("video") for row in dataset]
    else:
        described = dataset.info.description or ""
        videos = dataset["video"] if "video" in dataset.column_names else []
    return [*described.splitlines(), f"training set: {len(dataset):,} moments of {len(set(videos)):,} videos"]


def write_card(
    trainer: Any,
    folder: str | os.PathLike[str],
    *,
    method: str,
    base: str,
    data: Sequence[str],
    objective: Sequence[str],
    settings: Sequence[str],
) -> None:
    """Write ``README.md`` into a checkpoint's folder, which is made where it is missing.

    Args:
        trainer: a ``transformers.Trainer`` with one of this package's processors.
        folder: of the checkpoint.
        method: in words.
        base: name or path of the model that training started from.
        data: lines about the data, see :func:`data_lines`.
        objective: lines about the loss and the rewards.
        settings: names of the method's own settings in ``trainer.args``.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    args, processor = trainer.args, trainer.processing_class
    name = Path(args.output_dir).name
    head: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["timelens-plugins", "video-temporal-grounding", type(trainer).__name__],
    }
    if base and not os.path.exists(base):  # a card's metadata names models of the hub only
        head["base_model"] = base
    values = {name: _plain(getattr(args, name)) for name in (*_COMMON, *settings)}
    values |= {"processes": trainer.accelerator.num_processes}
    frames = {"encoding": processor.encoding, **processor.frame_sampling.to_dict()}
    text = "\n".join(
        [
            f"---\n{yaml.safe_dump(head, sort_keys=True)}---\n",
            f"# {name}\n",
            f"Finds when an event happens in a video. Made from `{base or 'a model without a name'}` by {method}, "
            f"with timelens-plugins {version('timelens-plugins')}; this is the model after step "
            f"{trainer.state.global_step}.\n",
            "## Data\n",
            *(f"- {line}" for line in data),
            "\n## Objective\n",
            *(f"- {line}" for line in objective),
            "\n## Settings\n",
            f"```yaml\n{_yaml(values)}```\n",
            "What the processor shows the model (saved with it):\n",
            f"```yaml\n{_yaml(frames)}```\n",
            "## Load and evaluate\n",
            _USE.format(folder=args.hub_model_id or folder),
        ]
    )
    (path / "README.md").write_text(text, encoding="utf-8")


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump({k: _plain(v) for k, v in values.items() if v is not None}, sort_keys=False)


def _plain(value: Any) -> Any:
    """As a configuration file has it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return list(value) if isinstance(value, list | tuple) else str(getattr(value, "value", value))
