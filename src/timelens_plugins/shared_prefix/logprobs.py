"""Log-probabilities and entropies of all scored tokens of one or several trees, in one forward.

The forward is the (wrapped) model's own. Its output head is entered through a shadow for that one call: the hidden
states of the S scored tokens go through the head and the log-softmax in chunks that backward computes again, so that
logits never exist for more than a chunk. What fits one chunk is not computed twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timelens_plugins.shared_prefix.attention import install
from timelens_plugins.shared_prefix.kept import KeptPrefix
from timelens_plugins.shared_prefix.locate import device_of, language_head, layer_counts, vision_language_model
from timelens_plugins.shared_prefix.packing import PackedRow, pack
from timelens_plugins.shared_prefix.tree import PromptTree
from timelens_plugins.shared_prefix.vision import vision_inputs

__all__ = ["BranchScores", "log_probs"]

_BALANCE = "load_balancing_loss_func"


@dataclasses.dataclass(frozen=True, eq=False)
class BranchScores:
    """Scores of S tokens, flat: tree after tree, scored branches depth first, tokens in order.

    Attributes:
        log_probs: natural logarithm, shape ``(S,)``, fp32 or wider, differentiable.
        entropies: of the distribution each token was drawn from, in nats, shape ``(S,)``, differentiable; None where
            not asked for.
        lengths: tokens of each scored branch.
        router_loss: load-balancing loss of a mixture of experts, a scalar, differentiable; None where not asked for.
    """

    log_probs: Tensor
    entropies: Tensor | None
    lengths: tuple[int, ...]
    router_loss: Tensor | None = None

    def split(self) -> list[Tensor]:
        """Log-probs of each scored branch."""
        return list(self.log_probs.split(list(self.lengths)))

    def padded(self, width: int) -> tuple[Tensor, Tensor | None]:
        """Log-probs and entropies as ``(branches, width)``, zeros after the end of each branch."""
        if width < max(self.lengths):
            raise ValueError(f"a branch has {max(self.lengths)} tokens, more than width={width}")
        keep = torch.arange(width)[None] < torch.tensor(self.lengths)[:, None]
        keep = keep.to(self.log_probs.device)

        def pad(values: Tensor) -> Tensor:
            return values.new_zeros(keep.shape).masked_scatter(keep, values)

        return pad(self.log_probs), None if self.entropies is None else pad(self.entropies)


def log_probs(
    model: nn.Module,
    trees: PromptTree | Sequence[PromptTree],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    router_loss: bool = False,
    chunk_tokens: int = 256,
    prefix: KeptPrefix | None = None,
) -> BranchScores:
    """Score every token of every scored branch with one forward over one packed row.

    Equals, value and gradient, what the plain model gives for each path of each tree on its own. Installs the attention
    wrapper where it is not installed yet.

    Args:
        model: the model as the trainer calls it, wrapped or not.
        temperature: logits are divided by it.
        entropy: also compute entropies.
        router_loss: also compute the load-balancing loss of a mixture of experts, as the model would over the plain
            batch of one row for each path: shared tokens count once for each of them.
        chunk_tokens: scored tokens whose logits exist at the same time, ``chunk_tokens * vocabulary`` numbers of fp32.
        prefix: of one tree, whose prompt begins with it: kept with its graph by :func:`generate_groups`, not computed
            again, and used up. Weights are the same as then.

    Raises:
        ValueError: unsupported attention, vision inputs that do not fit, nothing to score.
        RuntimeError: the model's layers did not go through transformers' AttentionInterface.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    trees = [trees] if isinstance(trees, PromptTree) else list(trees)
    if prefix is not None and router_loss:
        raise ValueError("the load-balancing loss counts all tokens of a row: compute it without a kept prefix")
    install(model)
    core = vision_language_model(model)
    row = pack(core, trees, device_of(core), leaf_ends=router_loss)
    if prefix is None:
        vision, anchor = vision_inputs(core, [tree.prompt for tree in trees]), None
    else:
        taken = prefix.take()
        row, vision, anchor = row.after(taken), {}, taken.anchor
    with _scoring_head(language_head(model), row, 1.0 / temperature, entropy, chunk_tokens):
        output = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=row.predictors,
            shared_prefix=row.plan,
            **({"output_router_logits": True} if router_loss else {}),
            **vision,
        )
    row.plan.check(*layer_counts(core))
    values = torch.view_as_real(output.logits[0])
    if anchor is not None:
        values = values + anchor
    balance = _router_loss(core, output.router_logits, row) if router_loss else None
    return BranchScores(values[:, 0], values[:, 1] if entropy else None, row.lengths, balance)


def _router_loss(core: Any, router_logits: tuple[Tensor, ...], row: PackedRow) -> Tensor:
    """The model's own function, which weighs tokens by its mask: here by how many plain rows hold them."""
    home = next(c.__module__ for c in type(core).__mro__ if hasattr(sys.modules[c.__module__], _BALANCE))
    config = core.config.get_text_config()
    loss: Tensor = getattr(sys.modules[home], _BALANCE)(
        router_logits, config.num_experts, config.num_experts_per_tok, row.copies[None]
    )
    return loss


def rounding_tolerance(dtype: torch.dtype) -> float:
    """Mean absolute difference in nats between shared and plain log-probs that rounding explains."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.05


@contextlib.contextmanager
def _scoring_head(head: nn.Module, row: PackedRow, scale: float, entropy: bool, chunk: int) -> Iterator[None]:
    """Make ``head`` return scores instead of logits: complex numbers, log-prob + i * entropy, shape ``(1, S)``.

    Inside the model's forward, so that parameters are there under every kind of sharding. Complex, because wrappers
    round floating-point outputs to bf16 (FSDP2's mixed precision), and leave complex ones alone.
    """
    original = head.forward
    shadowed = head.__dict__.get("forward")

    def piece(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _TokenScores.apply(original(hidden), targets, scale, entropy)

    def forward(hidden_states: Tensor) -> Tensor:
        if hidden_states.shape[1] != row.targets.numel():
            raise RuntimeError(f"the head got {hidden_states.shape[1]} positions for {row.targets.numel()} tokens")
        parts = []
        recompute = torch.is_grad_enabled() and row.targets.numel() > chunk
        for hidden, targets in zip(hidden_states[0].split(chunk), row.targets.split(chunk), strict=True):
            if recompute:
                parts.append(checkpoint(piece, hidden, targets, use_reentrant=False))
            else:
                parts.append(piece(hidden, targets))
        log_p, entropies = (torch.cat(values)[None] for values in zip(*parts, strict=True))
        return torch.complex(log_p, entropies)

    head.forward = forward
    try:
        yield
    finally:
        if shadowed is None:
            del head.forward
        else:
            head.forward = shadowed


class _TokenScores(torch.autograd.Function):
    """Logits (n, V) -> log-prob of one token per row and entropy, both (n,), in at least fp32.

    With z the scaled logits, p their softmax and H the entropy: d log p_t / dz_j = [j = t] - p_j and
    dH / dz_j = -p_j (log p_j + H). Written out because autograd would keep three tensors of the logits' size.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, scale: float, with_entropy: bool) -> tuple[Tensor, Tensor]:
        z = logits.to(torch.promote_types(logits.dtype, torch.float32)) * scale
        norm = torch.logsumexp(z, -1, keepdim=True)
        log_p = (z.gather(-1, targets[:, None]) - norm)[:, 0]
        if with_entropy:
            entropy = norm[:, 0] - torch.einsum("nv,nv->n", (z - norm).exp_(), z)
        else:
            entropy = torch.zeros_like(log_p)
        ctx.save_for_backward(logits, targets, norm, entropy)
        ctx.scale, ctx.with_entropy = scale, with_entropy
        return log_p, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        grad_log_p, grad_entropy = grads
        logits, targets, norm, entropy = ctx.saved_tensors
        log_softmax = logits.to(norm.dtype) * ctx.scale - norm
        if ctx.with_entropy:
            weight = (log_softmax + entropy[:, None]).mul_(grad_entropy[:, None]).add_(grad_log_p[:, None])
            grad = log_softmax.exp_().mul_(weight).neg_()
        else:
            grad = log_softmax.exp_().mul_(-grad_log_p[:, None])
        grad.scatter_add_(-1, targets[:, None], grad_log_p[:, None])
        return grad.mul_(ctx.scale).to(logits.dtype), None, None, None
