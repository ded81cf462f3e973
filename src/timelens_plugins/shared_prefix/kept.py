"""A prefill that keeps its graph: what was sampled from it can be trained on without computing the prompt again.

While the prefill runs, the wrappers of attention and linear attention put what continuations need of the prefix into a
:class:`KeptPrefix`: keys and values, recurrent states, last columns of convolutions, as they stand in the graph. The
training forward is then that of the packed row from the end of the prefix on, and its backward goes on into the graph
of the prefill. Weights must not change in between.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["KeptPrefix"]


class KeptPrefix:
    """What the first ``length`` tokens of one tree leave to those behind them; for one backward.

    Shapes: L tokens of the prefill's packed row, of which the prefix are the first; see ``recurrence`` for the others.

    Attributes:
        length: tokens of the prefix.
        keys, values: of the whole row by layer index, shape ``(1, H_kv, L, d)``.
        anchor: 0, by which backward reaches what only the last states of the prefix depend on: gradients of 0, as they
            would be if the prompt were computed again.
        columns, states: by linear-attention layer, at the end of the prefix, shapes ``(1, C, K - 1)`` and
            ``(H, d_k, d_v)``, and at the ends of all leaves.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.columns: dict[int, tuple[Tensor, Tensor]] = {}
        self.states: dict[int, tuple[Tensor, Tensor]] = {}
        self.anchor = torch.zeros(())
        self._filling = False

    @contextlib.contextmanager
    def filling(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, the graph is recorded and layers add to the prefix; checkpointed layers are checkpointed.

        Layers that are computed again in backward add nothing. The cast weights that autocast remembers from a time
        without gradients are forgotten.
        """
        checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
        modes = [m.training for m in checkpointed]
        torch.clear_autocast_cache()
        self._filling = True
        try:
            for module in checkpointed:
                module.training = True
            with torch.enable_grad():
                yield
        finally:
            self._filling = False
            for module, mode in zip(checkpointed, modes, strict=True):
                module.training = mode
        if not any(tensor.requires_grad for tensor in [*self.keys.values(), *self.values.values()]):
            raise ValueError(
                "a prefill kept no graph: nothing of the model is trained, or gradient checkpointing is reentrant "
                "(gradient_checkpointing_kwargs: {use_reentrant: false})"
            )

    def add_attention(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """What a layer of attention computed."""
        if self._filling:
            self.keys[layer], self.values[layer] = keys, values

    def add_columns(self, layer: int, end: Tensor, leaves: Tensor) -> None:
        """Last columns of a convolution, at the end of the prefix and of each leaf."""
        if self._filling:
            self.columns[layer] = end, leaves

    def add_states(self, layer: int, end: Tensor, leaves: Tensor) -> None:
        """Recurrent states, likewise."""
        if self._filling:
            self.states[layer] = end, leaves

    @torch.no_grad()
    def fill(self, cache: Any) -> None:
        """Put what decoding needs, without its graph, into an empty ``packed_cache``."""
        recurrent = iter(zip(self.columns.values(), self.states.values(), strict=True))
        for index, layer in enumerate(cache.layers):
            if index in self.keys:
                layer.update(self.keys[index].detach(), self.values[index].detach())
            else:
                (_, layer.columns), (_, layer.ends) = next(recurrent)
                layer.columns, layer.ends = layer.columns.detach(), layer.ends.detach()

    def before(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, with those of the prefix in front."""
        own = slice(None, self.length)
        return (
            torch.cat([self.keys[layer][:, :, own], keys], dim=2),
            torch.cat([self.values[layer][:, :, own], values], dim=2),
        )

    def take(self) -> KeptPrefix:
        """The prefix for its one use: what it was taken from lets go of it.

        Raises:
            ValueError: it was used already.
        """
        if not self.keys:
            raise ValueError("this kept prefix is used up: it serves one forward and one backward")
        taken = copy.copy(self)
        self.keys, self.values, self.columns, self.states, self.anchor = {}, {}, {}, {}, torch.zeros(())
        return taken
