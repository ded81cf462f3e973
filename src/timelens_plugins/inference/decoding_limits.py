"""How many answers are decoded at the same time: what a machine gains from, and what its memory takes."""

from __future__ import annotations

import logging

import psutil
import torch

from timelens_plugins.inference.container_memory import free_in_container

__all__ = ["DecodingLimits"]

logger = logging.getLogger(__name__)

ROWS = 64
"""Answers decoded together where nothing else is said: beyond it a step of decoding costs more with every row."""

_SHARE = {"cuda": 0.5, "cpu": 0.25}
"""Of the free memory, for caches that wait to be decoded; the rest is for the pass of the next video."""


class DecodingLimits:
    """Bounds on the answers that are decoded together.

    Args:
        rows: answers; None for a number that suits most machines.
        device: that decodes. Its free memory is looked at when the first caches are there.

    Attributes:
        rows: answers decoded at the same time.
        bytes: of the caches of their prompts; None as long as nothing was asked.
    """

    def __init__(self, rows: int | None, device: torch.device) -> None:
        if rows is not None and rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {rows}")
        self.rows = rows or ROWS
        self.bytes: int | None = None
        self._device = device

    def full(self, rows: int, held: int) -> bool:
        """Whether so many answers, whose prompts' caches hold so many bytes, are to be decoded before more come."""
        if self.bytes is None:
            self.bytes = int((held + _free(self._device)) * _SHARE.get(self._device.type, _SHARE["cpu"]))
        return rows >= self.rows or held >= self.bytes

    def reached(self, held: int) -> None:
        """Memory ran out while the caches of prompts held so many bytes: from now on half of that is the bound."""
        self.bytes = held // 2
        logger.warning(
            "memory ran out: from now on answers are decoded together as long as their prompts take up to %.1f GB; "
            "max_rows or fewer frames keep more of it free",
            self.bytes / 1e9,
        )


def _free(device: torch.device) -> int:
    """Bytes that can be had, those that torch keeps for itself included."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    available = int(psutil.virtual_memory().available)  # of the machine
    left = free_in_container()
    return available if left is None else min(available, left)
