"""What of DeepSpeed is relied on: how a rank gathers what ZeRO-3 has sharded. Supported: from 0.19.6."""

from __future__ import annotations

from timelens_plugins.upstream import Name

__all__ = ["SUPPORTED", "ZERO3"]

SUPPORTED = "0.19.6"

ZERO3 = (
    Name("deepspeed.zero:GatheredParameters"),
    Name("deepspeed.runtime.zero.partition_parameters:Init", line="ds_id"),
)
"""Called by ``grpo/rollout.py`` and ``inference/fingerprint.py``; a parameter with ``ds_id`` is a shard."""
