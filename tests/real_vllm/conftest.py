"""The real vLLM on the CPU: `make test-vllm` sets up its environment; elsewhere these tests are skipped."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

if importlib.util.find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def vllm_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random checkpoint of each family, with heads of sizes that vLLM takes on a CPU."""
    from timelens_plugins.families.tiny import save_checkpoint

    root = tmp_path_factory.mktemp("vllm")
    return {
        "qwen3_vl": save_checkpoint(root / "qwen3_vl", "qwen3_vl", hidden_size=128, head_dim=32),
        "qwen2_5_vl": save_checkpoint(root / "qwen2_5_vl", "qwen2_5_vl", hidden_size=128, head_dim=32),
        "qwen3_5": save_checkpoint(root / "qwen3_5", "qwen3_5", hidden_size=128, heads=2, kv_heads=1, head_dim=128),
    }


@pytest.fixture(scope="session")
def real_videos(real_data: Path) -> list[str]:
    """The two real clips of Charades."""
    return [str(real_data / "charades" / f"{name}.mp4") for name in ("3MSZA", "OHOFG")]
