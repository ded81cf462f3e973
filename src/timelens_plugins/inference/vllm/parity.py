"""Whether vLLM computes what transformers does: ids and log-probs of prompts, and what is likely to be wrong if not.

Equal ids prove little: pixels that were normalised in another way, other rotary positions and other weights all leave
them as they are. So log-probs are compared too, as long as both have written the same tokens before.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import InterleavedTimestampsMixin, tokenize_text
from timelens_plugins.inference.plain import repeated_vision
from timelens_plugins.inference.vllm.request import VllmPrompt, vllm_prompt
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.video import VideoClip

__all__ = [
    "Agreement",
    "ParityError",
    "Probe",
    "agreed",
    "agreement",
    "check_parity",
    "default_tolerance",
    "probe_of",
]

TOKENS = 16
"""Of a greedy answer: enough to reach the times in it, which depend on the video most."""

_TOP = 5
_LEAST = 0.01  # probability of a token whose log-prob is compared: rounding is large in those of unlikely ones


class ParityError(RuntimeError):
    """vLLM does not compute what transformers does."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request and what transformers says to it: greedy tokens and the log-probs ``(n, V)`` they were chosen by."""

    request: Mapping[str, Any]
    tokens: list[int]
    log_probs: Tensor


@dataclass(frozen=True, eq=False)
class Probe:
    """A prompt with what transformers makes of it.

    Attributes:
        name: for a person.
        expected: ids that vLLM has to read.
        pads: ids that stand for vision tokens.
        whole: the prompt.
        without_video, one_pair: the same without a video, and with its first frame pair alone, to find a cause.
        tokenizer: for a person, too.
    """

    name: str
    expected: list[int]
    pads: frozenset[int]
    whole: _Asked
    without_video: _Asked
    one_pair: _Asked
    tokenizer: Any


@dataclass(frozen=True)
class Agreement:
    """What was compared of one answer.

    Attributes:
        difference: the greatest, of log-probs (nats).
        tokens: steps at which log-probs were compared: all up to the first at which another token was chosen.
        greedy: whether all tokens agree.
    """

    difference: float
    tokens: int
    greedy: bool


def default_tolerance(dtype: torch.dtype) -> float:
    """Nats: what two implementations differ by in float32, with room; in 16 bits a logit near 30 has steps of 0.125."""
    return 2e-3 if dtype == torch.float32 else 0.3


@torch.no_grad()
def probe_of(
    model: Any,
    processor: InterleavedTimestampsMixin,
    name: str,
    clip: VideoClip,
    conversation: Sequence[Mapping[str, Any]],
) -> Probe:
    """Ask transformers; its answer is that of the model's own ``generate``, without anything shared.

    Args:
        model, processor: the checkpoint.
        name: of the question, for a person.
        clip, conversation: what is asked; the conversation's one video part is the clip.
    """
    tokenizer = processor.tokenizer
    step = processor.video_processor.temporal_patch_size
    pair = replace(clip, frames=clip.frames[:step], frame_indices=clip.frame_indices[:step], times=clip.times[:step])
    whole, one_pair = (vllm_prompt(load_clip(processor, shown), conversation) for shown in (clip, pair))
    ids = whole.prompt.input_ids
    vision = torch.tensor(tokenize_text(tokenizer, processor.placeholder + processor.image_token))
    text_ids = ids[~torch.isin(ids, vision)]
    without_video = VllmPrompt(Prompt(text_ids, torch.zeros_like(text_ids)), {"prompt_token_ids": text_ids.tolist()})
    return Probe(
        name,
        expected=ids.tolist(),
        pads=frozenset(tokenizer.convert_tokens_to_ids([processor.image_token, processor.video_token])),
        whole=_asked(model, whole, TOKENS),
        without_video=_asked(model, without_video, 1),
        one_pair=_asked(model, one_pair, 1),
        tokenizer=tokenizer,
    )


def check_parity(
    llm: Any,
    probes: Sequence[Probe],
    tolerance: float,
    remedy: str = "Take engine=transformers, or set parity_tolerance",
) -> list[Agreement]:
    """Ask vLLM the same, and compare.

    Raises:
        ParityError: other ids or log-probs, with numbers and the likely cause.
    """
    found = []
    for probe in probes:
        output = _answer(llm, probe, probe.whole)
        if list(output.prompt_token_ids) != probe.expected:
            raise ParityError(f"{probe.name}: {_other_ids(probe, list(output.prompt_token_ids))}")
        result = agreement(output, probe.whole)
        if not result.difference <= tolerance:
            raise ParityError(
                f"{probe.name}: prompt ids agree ({len(probe.expected)}), log-probs differ from those of transformers "
                f"by up to {result.difference:.4g} in {result.tokens} tokens (tolerance {tolerance:g}). "
                f"{_cause(llm, probe, tolerance)} {remedy}"
            )
        found.append(result)
    return found


def agreed(found: Sequence[Agreement], tolerance: float, dtype: torch.dtype) -> str:
    """What :func:`check_parity` found, in a line for the log."""
    return (
        f"vLLM agrees with transformers in {len(found)} prompts: ids equal, log-probs of "
        f"{sum(one.tokens for one in found)} tokens within {max(one.difference for one in found):.2g} (tolerance "
        f"{tolerance:g}, {str(dtype).removeprefix('torch.')})"
    )


def agreement(output: Any, asked: _Asked) -> Agreement:
    """vLLM's answer beside that of transformers: log-probs of the likely tokens of each step."""
    [answer] = output.outputs
    differences = []
    for step, (token, candidates) in enumerate(zip(answer.token_ids, answer.logprobs, strict=True)):
        if step == len(asked.tokens):
            break
        ours = asked.log_probs[step]
        for candidate, theirs in candidates.items():
            if max(theirs.logprob, float(ours[candidate])) >= torch.tensor(_LEAST).log():
                differences.append(abs(theirs.logprob - float(ours[candidate])))
        if token != asked.tokens[step]:
            return Agreement(max(differences), step + 1, greedy=False)
    compared = min(len(asked.tokens), len(answer.token_ids))
    same_length = len(asked.tokens) == len(answer.token_ids)
    return Agreement(max(differences), compared, greedy=same_length)


def _asked(model: Any, asked: VllmPrompt, tokens: int) -> _Asked:
    prompt = asked.prompt
    device = model.get_input_embeddings().weight.device
    own = model.generation_config
    ids = prompt.input_ids[None].to(device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=prompt.mm_token_type_ids[None].to(device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=tokens,
            repetition_penalty=1.0,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            output_logits=True,
            return_dict_in_generate=True,
        ),
        **repeated_vision([prompt], 1, device),
    )
    scores = torch.cat(output.logits).float().log_softmax(-1).cpu()
    return _Asked(asked.request, output.sequences[0, len(prompt) :].tolist(), scores)


def _answer(llm: Any, probe: Probe, asked: _Asked) -> Any:
    import vllm

    sampling = vllm.SamplingParams(temperature=0, max_tokens=len(asked.tokens), logprobs=_TOP, detokenize=False)
    try:
        [output] = llm.generate([dict(asked.request)], sampling, use_tqdm=False)
    except Exception as error:  # vLLM raises many kinds; whichever it is, it is raised again, named
        raise ParityError(f"{probe.name}: vLLM does not take the prompt: {_expanded(probe, asked)}{error}") from error
    return output


def _expanded(probe: Probe, asked: _Asked) -> str:
    """Said where a request holds runs of pads."""
    ids = asked.request["prompt_token_ids"]
    if any(a == b and a in probe.pads for a, b in itertools.pairwise(ids)):
        return "likely cause: ids, its placeholders are expanded, which vLLM does by itself. "
    return ""


def _other_ids(probe: Probe, found: list[int]) -> str:
    expected, pads = probe.expected, probe.pads
    counts = [sum(i in pads for i in ids) for ids in (found, expected)]
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, expected, strict=False)))
    theirs, ours = (probe.tokenizer.decode(ids[same : same + 8]) for ids in (found, expected))
    said = (
        f"vLLM reads {len(found)} prompt ids, {counts[0]} of them vision tokens, the processor writes {len(expected)} "
        f"and {counts[1]}; the first {same} agree, then vLLM has {theirs!r} and the processor {ours!r}. "
    )
    if expanded := _expanded(probe, probe.whole):
        return said + expanded
    if [i for i in found if i not in pads] == [i for i in expected if i not in pads]:
        return said + "Likely cause: resize, the text agrees, so vLLM has sampled or resized the frames again"
    return said + "Likely cause: ids, the text differs (chat template, tokenizer, times or markers)"


def _cause(llm: Any, probe: Probe, tolerance: float) -> str:
    """Which of the simpler prompts agrees tells what is wrong."""
    text, pair = (
        agreement(_answer(llm, probe, asked), asked).difference for asked in (probe.without_video, probe.one_pair)
    )
    if not text <= tolerance:
        cause = "weights, as they differ without a video, too"
    elif not pair <= tolerance:
        cause = "normalisation of the pixels, or weights of the vision tower, as one frame pair is enough"
    else:
        cause = "positions, as with a single frame pair they agree: the times or rotary positions of a long video"
    return f"Likely cause: {cause} (without a video {text:.2g}, with one frame pair {pair:.2g})."
