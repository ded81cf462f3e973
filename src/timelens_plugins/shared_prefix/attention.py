"""The attention of packed rows, put around the model's current entry in transformers' ``AttentionInterface``.

The wrapper is a strict pass-through unless the model's forward was given ``shared_prefix=plan``, or a shared cache is
being decoded from. The argument travels
with the layer's other arguments, so gradient checkpointing of either kind replays it, and no wrapper (PEFT, DDP, FSDP2,
accelerate) needs to know. Prefixes run through the wrapped function, branches through masked
``scaled_dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.families import family_of
from timelens_plugins.shared_prefix.decoding import active_cache
from timelens_plugins.shared_prefix.frames import attend_by_length
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.plan import Block, SharedPrefixPlan
from timelens_plugins.shared_prefix.recurrence import install_recurrence
from timelens_plugins.upstream.transformers import check_generation

__all__ = ["install", "uninstall"]

Attention = Callable[..., tuple[Tensor, Tensor | None]]

# Arguments the text models hand to attention that do not change who attends to whom.
_NEUTRAL = frozenset(
    {
        "dropout",
        "scaling",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
    }
)


def install(model: nn.Module) -> str:
    """Wrap what mixes tokens in the text model: the attention function it uses now, and its linear attention if it has
    any; doing it again changes nothing.

    :func:`log_probs` calls this itself. The wrapper must stay until backward has run: gradient checkpointing calls
    attention again there.

    Returns:
        The name of the wrapped implementation, for :func:`uninstall`.

    Raises:
        ValueError: an implementation whose result this wrapper cannot reproduce, or a family whose prompts cannot be
            shared.
        UpstreamChangedError: a release of transformers that is not supported.
    """
    check_generation()
    core = vision_language_model(model)
    if (family := family_of(core)).sharing == "plain":
        raise ValueError(f"models of the family {family.name} cannot share prompts: share_prefix=False")
    text_model = core.language_model
    name = text_model.config._attn_implementation
    if name == "eager" or name is None:
        raise ValueError(
            "shared prefixes need attn_implementation='sdpa' or flash attention: eager attention does not go through "
            "transformers' AttentionInterface and writes out all weights, P x P per head"
        )
    if name != "sdpa" and ("flash" not in name or name.startswith("paged|")):
        raise ValueError(f"shared prefixes support 'sdpa' and flash attention, not attn_implementation={name!r}")
    wrap(name)
    install_recurrence(text_model)
    return name


def wrap(name: str) -> None:
    """Wrap entry ``name`` of the interface once."""
    base = ALL_ATTENTION_FUNCTIONS[name]
    if not hasattr(base, "shared_prefix_base"):
        ALL_ATTENTION_FUNCTIONS[name] = _wrapper(base)


def uninstall(name: str) -> None:
    """Put the original function of ``name`` back; no effect where nothing is installed."""
    base = getattr(ALL_ATTENTION_FUNCTIONS[name], "shared_prefix_base", None)
    if base is not None:
        ALL_ATTENTION_FUNCTIONS[name] = base


def _wrapper(base: Attention) -> Attention:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *args: Any,
        shared_prefix: SharedPrefixPlan | None = None,
        frame_lengths: tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if frame_lengths is not None:
            return attend_by_length(base, module, query, key, value, frame_lengths, **kwargs), None
        # Vision blocks get the arguments of the whole forward; they are not causal.
        cache = active_cache()
        if (shared_prefix is None and cache is None) or not getattr(module, "is_causal", True):
            return base(module, query, key, value, attention_mask, *args, **kwargs)
        if shared_prefix is None:
            assert cache is not None
            return cache.attend(query, key, value, kwargs.get("scaling")), None
        _refuse(shared_prefix, query, key, attention_mask, args, kwargs)
        shared_prefix.attentions += 1
        if shared_prefix.keeping is not None:
            shared_prefix.keeping.add_attention(_layer_index(module), key, value)
        return _attend(base, shared_prefix, module, query, key, value, **kwargs), None

    attention.shared_prefix_base = base  # type: ignore[attr-defined]
    return attention


def _refuse(
    plan: SharedPrefixPlan,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    if attention_mask is not None:
        raise ValueError("a packed row carries its own attention: pass attention_mask=None")
    if key.shape[2] != query.shape[2]:
        raise ValueError(
            f"attention got {key.shape[2]} keys for {query.shape[2]} queries: a packed row cannot use past_key_values"
        )
    if query.shape[0] != 1 or query.shape[2] != plan.length:
        raise ValueError(f"the plan is for one row of {plan.length} tokens, attention got {tuple(query.shape[::2])}")
    if kwargs.get("is_causal") not in (None, True) or args:
        raise ValueError("a packed row is causal: positional arguments and is_causal=False are not supported")
    for name, given in kwargs.items():
        if name not in _NEUTRAL and name != "is_causal" and given is not None and given is not False:
            raise ValueError(f"shared prefixes do not support the attention argument {name}={given!r}")


def _attend(
    base: Attention, plan: SharedPrefixPlan, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
) -> Tensor:
    """query (1, H, L, d), key and value (1, H_kv, L, d) -> (1, L, H, d)."""
    parts: list[Tensor] = []
    if plan.prefix is not None:
        key, value = plan.prefix.before(_layer_index(module), key, value)
    for tree in plan.trees:
        if tree.causal_stop > tree.start:
            run = (slice(None), slice(None), slice(tree.start, tree.causal_stop))
            parts.append(base(module, query[run], key[run], value[run], None, **kwargs)[0])
        for block in tree.blocks:
            first = block.start - (0 if plan.prefix is None else plan.prefix.length)
            own = query[:, :, first : first + block.stop - block.start]
            found = _attend_block(block, own, key, value, **kwargs)
            parts.append(found.to(parts[0].dtype) if parts else found)
    return torch.cat(parts, dim=1)


def _layer_index(module: nn.Module) -> int:
    """Of an attention module, among all layers."""
    index: Any = module.layer_idx
    return int(index)


def _attend_block(
    block: Block,
    queries: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> Tensor:
    """Masked attention of one block, whose queries are (1, H, n, d) -> (1, n, H, d).

    Query heads that share a key/value head are laid out as more queries of that head: repeating keys and values
    instead, as masked attention usually does, would copy the prefix once per query head.
    """
    heads, n, width = queries.shape[1:]
    repeats = heads // key.shape[1]
    keys, values = _gather(key, block), _gather(value, block)
    if not torch.is_autocast_enabled(queries.device.type):
        queries, keys = queries.to(value.dtype), keys.to(value.dtype)  # norms kept in fp32, as flash attention does
        dtype = value.dtype
    else:
        dtype = torch.get_autocast_dtype(queries.device.type)
    mask = block.mask(dtype, queries.device, repeats)
    folded = queries.reshape(1, key.shape[1], repeats * n, width)
    out = F.scaled_dot_product_attention(
        folded, keys, values, attn_mask=mask[None, None], dropout_p=dropout, scale=scaling
    )
    return out.reshape(1, heads, n, value.shape[-1]).transpose(1, 2)


def _gather(states: Tensor, block: Block) -> Tensor:
    parts = [states[:, :, start:stop] for start, stop in block.keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
