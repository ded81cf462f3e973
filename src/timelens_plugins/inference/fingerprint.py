"""Tells checkpoints apart by their weights, where a path says nothing: the same folder may be trained again."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["fingerprint"]


def fingerprint(model: torch.nn.Module) -> str:
    """A digest of names, shapes and up to 64 values of every parameter.

    Values are rounded to bfloat16 first: estimating in bfloat16 and training with float32 master weights is still the
    same checkpoint. Loaded in float16, whose rounding is another, it passes for a different one.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        values = flat[:: max(1, flat.numel() // 64)][:64].to(torch.bfloat16).float().cpu()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
