"""A prompt as vLLM takes it, and what vLLM would compute otherwise than transformers.

vLLM expands placeholders by itself, so it is given unexpanded ids, frames at their final size and
``do_sample_frames=False``. The ids it reports back show what the model really read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timelens_plugins.clips import LoadedClip, chat_text, load_clip
from timelens_plugins.encodings import InterleavedTimestampsMixin, build_messages, tokenize_text
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.video import VideoClip

__all__ = [
    "VllmPrompt",
    "encoding_problem",
    "most_images",
    "most_vision_tokens",
    "normalisation_problem",
    "vllm_prompt",
    "vllm_prompts",
]


@dataclass(frozen=True, eq=False)
class VllmPrompt:
    """A prompt for both.

    Attributes:
        prompt: as transformers takes it; its ids are those to expect back from vLLM.
        request: as ``vllm.LLM.generate`` takes it.
    """

    prompt: Prompt
    request: dict[str, Any]


def vllm_prompt(loaded: LoadedClip, conversation: Sequence[Mapping[str, Any]]) -> VllmPrompt:
    """The generation prompt of a conversation whose one video part is this clip.

    Raises:
        ValueError: see :func:`encoding_problem`; not one video.
    """
    processor = loaded.processor
    if (problem := encoding_problem(processor)) is not None:
        raise ValueError(problem)
    prompt = loaded.prompt(conversation)
    return VllmPrompt(prompt, _request(processor, loaded.clip, chat_text(processor, conversation), prompt))


def vllm_prompts(
    processor: InterleavedTimestampsMixin, clip: VideoClip, texts: Sequence[str], system_prompt: str | None = None
) -> list[VllmPrompt]:
    """The prompts that put each text after the same clip.

    Raises:
        ValueError: see :func:`encoding_problem`.
    """
    loaded = load_clip(processor, clip)
    return [
        vllm_prompt(loaded, build_messages(clip, "", processor.encoding, question=text, system=system_prompt))
        for text in texts
    ]


def most_images(processor: InterleavedTimestampsMixin) -> dict[str, int]:
    """How many items of each kind a prompt holds at most: vLLM's ``limit_mm_per_prompt``."""
    if not processor.time_encoding.as_images:
        return {"video": 1, "image": 0}
    return {"video": 0, "image": processor.frame_sampling.max_frames // processor.video_processor.temporal_patch_size}


def most_vision_tokens(processor: InterleavedTimestampsMixin) -> int:
    """Of a clip: the budget, or the least that its frames may have, whichever is more."""
    sampling = processor.frame_sampling
    pairs = sampling.max_frames // processor.video_processor.temporal_patch_size
    return max(sampling.total_tokens, round(pairs * sampling.min_tokens * 1.05))


def encoding_problem(processor: InterleavedTimestampsMixin, instead: str = "engine=transformers") -> str | None:
    """Why vLLM cannot write a processor's prompts, and what to set ``instead``; None where it can."""
    if processor.image_markers is not None:
        return f"it is not known whether vLLM reads the prompts of {type(processor).__name__}"
    encoding = processor.time_encoding
    if encoding.as_images or encoding.family_markers or not _writes_markers(processor):
        return None
    return (
        f"vLLM writes the family's own time markers, which encoding {processor.encoding!r} must not have; take "
        f"{instead} for this encoding"
    )


def normalisation_problem(processor: InterleavedTimestampsMixin, instead: str = "engine=transformers") -> str | None:
    """Why vLLM would show a checkpoint other pixels of a video, though the prompt ids agree; None where it would not.

    vLLM 0.32 normalises the frames of videos with the values of the image processor.
    """
    if processor.time_encoding.as_images:
        return None
    image, video = (
        {name: [float(v) for v in getattr(part, name)] for name in ("image_mean", "image_std")}
        for part in (processor.image_processor, processor.video_processor)
    )
    if image == video:
        return None
    return (
        f"vLLM normalises videos as the image processor says ({image['image_mean']}, {image['image_std']}), and not as "
        f"the video processor does ({video['image_mean']}, {video['image_std']}): its answers would be wrong. Give "
        f"both the values that the model was trained with, or take {instead}"
    )


def _request(processor: InterleavedTimestampsMixin, clip: VideoClip, chat: str, prompt: Prompt) -> dict[str, Any]:
    """What to pass on for a prompt; ``chat`` is its text with one placeholder for the video."""
    encoding, tokenizer, expanded = processor.time_encoding, processor.tokenizer, prompt.input_ids.tolist()
    if encoding.as_images:
        step = processor.video_processor.temporal_patch_size
        pictures = [frame.permute(1, 2, 0).numpy() for frame in clip.frames[::step]]
        return {
            "prompt_token_ids": _one_pad_a_run(expanded, tokenizer.convert_tokens_to_ids(processor.image_token)),
            "multi_modal_data": {"image": pictures},
            "mm_processor_kwargs": {"do_resize": False},
        }
    if _writes_markers(processor):
        # vLLM puts marked blocks in the place of the pad alone, as the released checkpoints saw it.
        ids = tokenize_text(tokenizer, chat.replace(processor.placeholder, processor.video_token))
    else:
        ids = _one_pad_a_run(expanded, tokenizer.convert_tokens_to_ids(processor.video_token))
    frames = processor.drawn_frames(clip.frames, clip.times.tolist()).permute(0, 2, 3, 1).numpy()
    return {
        "prompt_token_ids": ids,
        "multi_modal_data": {"video": [(frames, dict(clip.metadata()))]},
        # Frames are at their final size and number: vLLM's own limits are not those of the protocol.
        "mm_processor_kwargs": {"do_sample_frames": False, "do_resize": False},
    }


def _writes_markers(processor: InterleavedTimestampsMixin) -> bool:
    """Whether the family writes times into the text of a video by itself."""
    return "second_per_grid_ts" not in processor.model_input_names


def _one_pad_a_run(ids: list[int], pad: int) -> list[int]:
    return [i for i, run in itertools.groupby(ids) for i in ([i] if i == pad else run)]
