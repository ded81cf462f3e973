"""An adapter merged into a copy of its base, as vLLM loads it.

vLLM's own adapters are low-rank ones of the language model alone: no merger trained whole beside them, which is what
this package's trainers save, no DoRA, and a slower answer. A merged copy is any adapter, at the speed of the base.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers.utils.peft_utils import find_adapter_config_file

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.families.load import load_model

__all__ = ["base_of", "merged_copy"]

logger = logging.getLogger(__name__)


def base_of(path: str, revision: str) -> tuple[str, str] | None:
    """Path and revision of the base that an adapter names; None where there is no adapter.

    Raises:
        ValueError: an adapter that names none.
    """
    file = find_adapter_config_file(path, revision=revision)
    if file is None:
        return None
    config = json.loads(Path(file).read_text(encoding="utf-8"))
    if not config.get("base_model_name_or_path"):
        raise ValueError(f"{file} names no base_model_name_or_path, into which the adapter would be merged")
    return str(config["base_model_name_or_path"]), str(config.get("revision") or "main")


def merged_copy(
    path: str, revision: str, processor: InterleavedTimestampsMixin, dtype: str | torch.dtype
) -> TemporaryDirectory[str]:
    """A folder, as large as the base, with the base's weights and the adapter's in one; the caller removes it.

    Args:
        path, revision: of the adapter.
        processor: to save beside the weights.
        dtype: of the weights.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: no adapter there.
    """
    from peft import PeftModel

    if (found := base_of(path, revision)) is None:
        raise ValueError(f"{path}: no adapter_config.json")
    base, base_revision = found
    model, _ = load_model(base, processor=processor, dtype=dtype, revision=base_revision)
    merged: Any = PeftModel.from_pretrained(model, path, revision=revision)
    merged = merged.merge_and_unload(safe_merge=True)
    folder = TemporaryDirectory(prefix="timelens-merged-")
    try:
        logger.info("%s: merged into a copy of %s, for vLLM, in %s", path, base, folder.name)
        merged.save_pretrained(folder.name)
        processor.save_pretrained(folder.name)
    except BaseException:
        folder.cleanup()
        raise
    return folder
