"""The gated delta rule written down token by token, in the precision of its inputs: what upstream's functions compute.

Per head, with the state S (d_k x d_v), decay g, rate b, keys and queries of length one: S becomes
``exp(g) S + k (b (v - k^T exp(g) S))^T``, and the output is ``S^T q / sqrt(d_k)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_5 import modeling_qwen3_5
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    assert use_qk_l2norm_in_kernel
    assert "shared_prefix" not in kwargs, "a plan must not reach a kernel"
    query, key = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (query, key))
    repeats = value.shape[2] // key.shape[2]
    query, key = (x.repeat_interleave(repeats, dim=2) for x in (query, key))
    state = value.new_zeros(*value.shape[::2], key.shape[-1], value.shape[-1])  # one per row and head
    if initial_state is not None:
        state = initial_state.to(value)
    out = []
    for t in range(value.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        k = key[:, t]
        error = value[:, t] - torch.einsum("bhk,bhkv->bhv", k, state)
        state = state + torch.einsum("bhk,bhv->bhkv", k, beta[:, t, :, None] * error)
        out.append(torch.einsum("bhk,bhkv->bhv", query[:, t], state) * query.shape[-1] ** -0.5)
    return torch.stack(out, dim=1), state if output_final_state else None


def in_double(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """``upstream``, but :func:`delta_rule` where the values are in double precision.

    Not around our own wrapper, which an earlier test may have left: it would be taken for the one to be installed.
    """
    upstream = getattr(upstream, "shared_prefix_base", upstream)

    @functools.wraps(upstream)  # so that a test of upstream's names sees upstream's
    def rule(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
        chosen = delta_rule if value.dtype == torch.float64 else upstream
        return chosen(query, key, value, **kwargs)

    return rule


def keep_double(patch: pytest.MonkeyPatch) -> None:
    """Linear attention of double-precision models in double precision, token by token. Upstream's functions and norms
    compute in single precision whatever the model's, so that sums in another order would hide small errors."""
    to_single = torch.Tensor.float
    patch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else to_single(x))
    for module in (modeling_qwen3_5, modeling_qwen3_5_moe):
        for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
            patch.setattr(module, name, in_double(getattr(module, name)))
