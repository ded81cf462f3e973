"""Log-probs and entropies of the completions of several groups, by the shared prefix or by the plain repeated batch.

Of a mixture of experts the load-balancing loss of the same forward, too, where it is asked for: as the model computes
it over the plain batch, padding left out, in both ways. (By the shared prefix, a completion that is masked as a whole
still counts one token in it.)

Shapes: B rows (N groups of G), C tokens of the longest completion, P of the longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from timelens_plugins.grpo.groups import Group, by_video
from timelens_plugins.inference.plain import repeated_vision
from timelens_plugins.shared_prefix import PromptTree, log_probs

__all__ = ["plain_scores", "shared_scores"]


def shared_scores(
    model: nn.Module,
    groups: Sequence[Group],
    completion_ids: Tensor,
    lengths: Sequence[int],
    temperature: float,
    router_loss: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One forward over one packed row, whatever the number of groups. Those with one trunk are one tree.

    With gradients, a row of one tree whose prefix was kept is continued from it. It is one forward in any case: data
    parallel processes, which take different ones, must have equally many.

    Args:
        completion_ids: shape ``(B, C)``, padded on the right.
        lengths: tokens of each of the B completions, at least 1.

    Returns:
        Log-probs and entropies, shape ``(B, C)`` each, zero after a completion's end; the load-balancing loss.
    """
    size = len(lengths) // len(groups)
    completions = [ids[:n] for ids, n in zip(completion_ids, lengths, strict=True)]
    answers = [completions[i : i + size] for i in range(0, len(completions), size)]
    videos = by_video(groups)
    trees = []
    for members in videos:
        trunk = groups[members[0]].trunk
        if trunk is None:
            trees += [PromptTree.group(groups[i].prompt, answers[i]) for i in members]
        else:
            trees.append(PromptTree.of_queries(trunk, [(groups[i].query, answers[i]) for i in members]))
    prefix = groups[0].prefix if len(trees) == 1 and torch.is_grad_enabled() and not router_loss else None
    if prefix is not None and not prefix.keys:
        prefix = None  # used up by another row with prompts of this video
    scores = log_probs(model, trees, temperature=temperature, entropy=True, router_loss=router_loss, prefix=prefix)
    log_p, entropies = scores.padded(completion_ids.shape[1])
    assert entropies is not None
    places = torch.tensor([i for members in videos for i in members], device=log_p.device).argsort()
    log_p, entropies = (x.unflatten(0, (-1, size))[places].flatten(0, 1) for x in (log_p, entropies))
    return log_p, entropies, scores.router_loss


def plain_scores(
    model: nn.Module,
    groups: Sequence[Group],
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_tokens: int,
    temperature: float,
    router_loss: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One forward over all rows, each with its own copy of the prompt and the video.

    Args:
        input_ids, attention_mask: shape ``(B, P + C)``, prompts padded on the left, completions on the right.
        completion_tokens: C.

    Returns:
        Log-probs and entropies, shape ``(B, C)`` each, without meaning after a completion's end; the load-balancing
        loss.
    """
    size = input_ids.shape[0] // len(groups)
    width = input_ids.shape[1] - completion_tokens
    kinds = torch.zeros_like(input_ids)
    for i, group in enumerate(groups):
        kinds[i * size : (i + 1) * size, width - len(group.prompt) : width] = group.prompt.mm_token_type_ids.to(kinds)
    output = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        mm_token_type_ids=kinds,
        logits_to_keep=completion_tokens + 1,
        use_cache=False,
        **({"output_router_logits": True} if router_loss else {}),
        **repeated_vision([g.prompt for g in groups], size, input_ids.device),
    )
    logits = output.logits[:, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_softmax = torch.log_softmax(logits / temperature, dim=-1)
    targets = input_ids[:, width:, None]
    entropies = -(log_softmax.exp() * log_softmax).sum(-1)
    return log_softmax.gather(-1, targets)[..., 0], entropies, output.aux_loss if router_loss else None
