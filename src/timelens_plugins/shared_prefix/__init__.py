"""One prefill and one training forward for everything that shares a prompt. Needs torch and transformers only.

The answers of a video model are short and its prompts long. A group of completions, or several queries about one
video, share all of the prompt; here the shared part is computed once, and log-probabilities and gradients equal those
of the plain repeated batch. Works with the families whose record says ``sharing="shared"``, on sdpa or flash attention,
with PEFT, DDP, FSDP2, autocast and gradient checkpointing.

A group of completions, as in GRPO::

    prompt = Prompt.from_inputs(processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt"))
    prompt = encode_vision(model, prompt)  # the frozen part of the tower, once for rollout and training
    [completions] = generate_group(model, prompt, generation_config, completions=8)
    scores = log_probs(model, PromptTree.group(prompt, completions), temperature=1.0)
    loss = -sum(a * lp.sum() for a, lp in zip(advantages, scores.split()))

All queries of a video in one row, as in supervised fine-tuning::

    shared, queries = share_prompt([Prompt.from_inputs(processor(...)) for query in ...])
    tree = PromptTree.of_queries(shared, [(q, [answer]) for q, answer in zip(queries, answers)])
    loss = -log_probs(model, tree).log_probs.mean()

Several queries about a video, as in evaluation::

    answers = generate_group(model, shared, greedy, queries=queries)  # answers[i][0] is the answer to queries[i]

The answers about several videos, each prefilled by itself, decoded together::

    answers = complete(model, [prefill(model, shared, queries) for shared, queries in ...], greedy)

Several queries of several videos with their completions, as in GRPO with ``queries_per_video``::

    groups = generate_groups(model, [(shared, queries), ...], config, completions=8, seeds=[...])  # one for each query
"""

from timelens_plugins.shared_prefix.acceleration import VisionAcceleration, accelerate_vision
from timelens_plugins.shared_prefix.attention import install, uninstall
from timelens_plugins.shared_prefix.features import VisionFeatures
from timelens_plugins.shared_prefix.generation import complete, generate_group, generate_groups, prefill
from timelens_plugins.shared_prefix.kept import KeptPrefix
from timelens_plugins.shared_prefix.logprobs import BranchScores, log_probs
from timelens_plugins.shared_prefix.prefilled import Prefilled
from timelens_plugins.shared_prefix.tree import Branch, Prompt, PromptTree, share_prompt
from timelens_plugins.shared_prefix.vision import encode_vision

__all__ = [
    "Branch",
    "BranchScores",
    "KeptPrefix",
    "Prefilled",
    "Prompt",
    "PromptTree",
    "VisionAcceleration",
    "VisionFeatures",
    "accelerate_vision",
    "complete",
    "encode_vision",
    "generate_group",
    "generate_groups",
    "install",
    "log_probs",
    "prefill",
    "share_prompt",
    "uninstall",
]
