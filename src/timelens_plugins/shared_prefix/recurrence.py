"""Gated DeltaNet layers over packed rows: each branch goes on from the state its parent ended with.

Attention can look back at a prefix; a linear-attention layer has only what it carries along: a recurrent state, and the
last columns that its short convolution still needs. So the nodes of a packed row run in order of their depth, all nodes
of one depth together, each from its parent's end. The prefix runs once; gradients of all branches meet in its state.

Two functions of such a layer mix tokens, a causal convolution and the delta rule; the layer hands them the arguments of
the model's forward. Both are wrapped where the layer's module looks them up. A wrapper is a strict pass-through unless
the forward was given ``shared_prefix=plan``; with it, it calls the wrapped function on whole nodes, so that any kernel
that transformers puts there is used as it is.

Shapes: L tokens of the row, C channels, K kernel size, H heads, d_k and d_v head sizes, N nodes run together.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timelens_plugins.shared_prefix.plan import Node, SharedPrefixPlan

__all__ = ["install_recurrence", "leaf_columns", "recurrent_layers"]

_CONVOLUTION, _DELTA_RULE = "causal_conv1d_fn", "torch_chunk_gated_delta_rule"
_MIXER = "linear_attn"

# Nodes are filled up to whole chunks, as the delta rule would do by itself, and run with those of equal length.
_CHUNK = 64


def recurrent_layers(text_model: nn.Module) -> list[nn.Module]:
    """The linear-attention modules of a text model, in layer order; none for models of attention alone."""
    layers: Any = text_model.layers
    return [mixer for layer in layers if (mixer := getattr(layer, _MIXER, None)) is not None]


def install_recurrence(text_model: nn.Module) -> None:
    """Wrap the functions that the linear-attention layers of a text model use; doing it again changes nothing.

    Raises:
        ValueError: a layer whose module does not have the two functions.
    """
    for module in {_module_of(layer) for layer in recurrent_layers(text_model)}:
        for name, wrapper in ((_CONVOLUTION, _convolution), (_DELTA_RULE, _delta_rule)):
            base = getattr(module, name)
            if not hasattr(base, "shared_prefix_base"):
                wrapped: Any = functools.wraps(base)(wrapper(base))
                wrapped.shared_prefix_base = base
                setattr(module, name, wrapped)


def _module_of(layer: nn.Module) -> Any:
    """Where the layer's forward looks up its functions; FSDP2 puts classes of its own in front of the layer's."""
    for cls in type(layer).__mro__:
        module = sys.modules[cls.__module__]
        if hasattr(module, _CONVOLUTION) and hasattr(module, _DELTA_RULE):
            return module
    raise ValueError(
        f"{type(layer).__name__} does not use {_CONVOLUTION} and {_DELTA_RULE}: linear attention of this kind, or in "
        "this release of transformers, cannot share a prefix; set share_prefix to false"
    )


def _convolution(base: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def causal_conv1d_fn(
        hidden_states: Tensor, weight: Tensor, *args: Any, shared_prefix: SharedPrefixPlan | None = None, **kwargs: Any
    ) -> Tensor:
        if shared_prefix is None:
            return base(hidden_states, weight, *args, **kwargs)
        shared_prefix.convolutions += 1
        shared_prefix.layer = layer = weight.data_ptr()  # the delta rule of the same layer is called next
        nodes, before = shared_prefix.nodes, weight.shape[-1] - 1
        pieces = _pieces(hidden_states, nodes, dim=-1)
        past = None if shared_prefix.prefix is None else shared_prefix.prefix.columns[layer][0]
        ends = _ends(pieces, nodes, before, past=past)
        if shared_prefix.keeping is not None:
            shared_prefix.keeping.add_columns(layer, ends[0], leaf_columns(hidden_states, shared_prefix, before + 1))
        first = hidden_states.new_zeros(*hidden_states.shape[:-1], before)
        extended: list[Tensor] = []
        for node, piece in zip(nodes, pieces, strict=True):
            extended += [ends.get(node.parent, first), piece]
        out = base(torch.cat(extended, dim=-1), weight, *args, **kwargs)
        return torch.cat(out.split([x.shape[-1] for x in extended], dim=-1)[1::2], dim=-1)

    return causal_conv1d_fn


def _delta_rule(base: Callable[..., tuple[Tensor, Tensor | None]]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def chunk_gated_delta_rule(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        *args: Any,
        initial_state: Tensor | None = None,
        output_final_state: bool = False,
        shared_prefix: SharedPrefixPlan | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if shared_prefix is None:
            kwargs |= {"initial_state": initial_state, "output_final_state": output_final_state}
            return base(query, key, value, *args, g=g, beta=beta, **kwargs)
        if initial_state is not None or query.shape[:2] != (1, shared_prefix.length):
            raise ValueError(
                f"the plan is for one row of {shared_prefix.length} tokens without a past, the delta rule got "
                f"{tuple(query.shape[:2])}" + (" and a state" if initial_state is not None else "")
            )
        shared_prefix.recurrences += 1
        nodes = shared_prefix.nodes
        inputs = [_pieces(x, nodes, dim=1) for x in (query, key, value, g, beta)]
        outputs: dict[int, Tensor] = {}
        states: dict[int, Tensor] = {}
        if shared_prefix.prefix is not None:
            states[-1] = shared_prefix.prefix.states[shared_prefix.layer][0]
        for batch in shared_prefix.batches(_CHUNK):
            width = -(-max(nodes[i].stop - nodes[i].start for i in batch) // _CHUNK) * _CHUNK
            # What is filled up has no decay and no update: it leaves the state as it is.
            q, k, v, decay, rate = (torch.cat([_filled(x[i], width) for i in batch]) for x in inputs)
            parents = [states.get(_last_filled(nodes, nodes[i].parent)) for i in batch]
            past = None if parents[0] is None else torch.stack([s for s in parents if s is not None])
            out, final = base(q, k, v, *args, g=decay, beta=rate, initial_state=past, output_final_state=True, **kwargs)
            assert final is not None
            outputs |= zip(batch, out.unbind(), strict=True)
            states |= zip(batch, final.unbind(), strict=True)
        rows = [outputs[i][: n.stop - n.start] for i, n in enumerate(nodes) if i in outputs]
        final = None
        if output_final_state or shared_prefix.keeping is not None:
            final = torch.stack([states[_last_filled(nodes, i)] for i in shared_prefix.leaves])
            if shared_prefix.keeping is not None:
                shared_prefix.keeping.add_states(shared_prefix.layer, states[0], final)
        return torch.cat(rows)[None], final

    return chunk_gated_delta_rule


def leaf_columns(states: Tensor, plan: SharedPrefixPlan, width: int) -> Tensor:
    """The last ``width`` columns of the path to each leaf, zeros before its beginning: (1, C, L) -> (leaves, C, width).

    Leaves are in row order. A leaf without tokens ends where its parent does.
    """
    ends = _ends(_pieces(states, plan.nodes, dim=-1), plan.nodes, width, of=plan.leaves)
    return torch.cat([ends[i] for i in plan.leaves])


def _last_filled(nodes: Sequence[Node], index: int) -> int:
    """A node, or the nearest one above it that has tokens; -1 above the root."""
    while index >= 0 and nodes[index].stop == nodes[index].start:
        index = nodes[index].parent
    return index


def _pieces(row: Tensor, nodes: Sequence[Node], dim: int) -> tuple[Tensor, ...]:
    """The row cut into its nodes. One split, so that backward is one concatenation."""
    return row.split([n.stop - n.start for n in nodes], dim=dim)


def _ends(
    pieces: Sequence[Tensor], nodes: Sequence[Node], width: int, of: Sequence[int] = (), past: Tensor | None = None
) -> dict[int, Tensor]:
    """The last ``width`` columns of the path to each node that has children, and to the nodes ``of``.

    ``past`` are those before the roots, which are -1 here; None for the beginning of everything.
    """
    wanted = {n.parent for n in nodes} | set(of)
    ends: dict[int, Tensor] = {} if past is None else {-1: past}
    for i, (node, piece) in enumerate(zip(nodes, pieces, strict=True)):
        if i not in wanted:
            continue
        if piece.shape[-1] < width:
            before = ends.get(node.parent)
            piece = F.pad(piece, (width, 0)) if before is None else torch.cat([before, piece], dim=-1)
        ends[i] = piece[..., piece.shape[-1] - width :]
    return ends


def _filled(piece: Tensor, width: int) -> Tensor:
    """(1, n, …) with zeros behind, to ``width`` tokens."""
    return F.pad(piece, (0, 0) * (piece.ndim - 2) + (0, width - piece.shape[1]))
