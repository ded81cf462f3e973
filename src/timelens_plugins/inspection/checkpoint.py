"""Whether a checkpoint, its processor and this package agree, and whether the model sees the video at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from transformers import AutoConfig, ProcessorMixin

from timelens_plugins.encodings import InterleavedTimestampsMixin, load_processor
from timelens_plugins.families.load import load_model
from timelens_plugins.families.tiny import Family, build_model
from timelens_plugins.inspection.findings import Finding
from timelens_plugins.inspection.made_clip import QUERY, made_clip
from timelens_plugins.inspection.prompt_view import shorten_pads, stand_in_processor
from timelens_plugins.inspection.sharing import check_sharing
from timelens_plugins.inspection.vllm_ids import check_vllm, vllm_is_usable
from timelens_plugins.video import VideoClip

__all__ = ["check_checkpoint", "check_model", "check_processor", "check_stand_ins"]


def check_stand_ins() -> Iterator[Finding]:
    """Without a checkpoint: this package against the installed transformers, on small stand-ins of all families."""
    for family in get_args(Family):
        processor = stand_in_processor(family)
        yield from check_processor(processor, f"stand-in {family}")
        model = build_model(family, processor.tokenizer)
        yield from check_model(processor, model, f"stand-in {family}")
        yield from check_sharing(processor.tokenizer, model, _changed(processor, model), f"stand-in {family}")


def check_checkpoint(path: str, forward: bool = True) -> Iterator[Finding]:
    """All findings about a checkpoint; ``forward`` loads the model and runs it on made clips.

    Raises:
        ValueError: it cannot be read, or its family is unknown.
    """
    processor = load_processor(path)
    config = AutoConfig.from_pretrained(path)
    yield from _tokens(processor, config)
    yield from check_processor(processor, "checkpoint")
    if not forward:
        yield Finding("model", "note", "not run (--no-forward)")
        return
    if vllm_is_usable():
        yield from check_vllm(processor, path)
    model, _ = load_model(path, device="cuda" if torch.cuda.is_available() else None)
    yield from check_model(processor, model)
    yield from check_sharing(processor.tokenizer, model, _changed(processor, model), "model")


def _tokens(processor: InterleavedTimestampsMixin, config: Any) -> Iterator[Finding]:
    """The ids the model looks for are the ids its tokenizer gives."""
    area, tokenizer = "checkpoint", processor.tokenizer
    wrong = []
    for name, token in (("image_token_id", processor.image_token), ("video_token_id", processor.video_token)):
        expected, found = getattr(config, name, None), tokenizer.convert_tokens_to_ids(token)
        if expected is not None and expected != found:
            wrong.append(f"{token} is {found}, the config's {name} is {expected}")
    if wrong:
        yield Finding(area, "broken", "; ".join(wrong), "use the tokenizer files that belong to this checkpoint")
    else:
        yield Finding(area, "ok", "tokenizer and config agree on the ids of image and video tokens")


@dataclass(frozen=True)
class _Calls:
    """The same clip and prompt through this package and through the class of transformers it extends."""

    prompt: str
    ours: Any
    stock: Any
    collapsed: Any


def _calls(processor: InterleavedTimestampsMixin) -> _Calls:
    clip = made_clip(processor)
    upstream = next(c for c in type(processor).__mro__ if c.__module__.startswith("transformers."))
    assert issubclass(upstream, ProcessorMixin)
    stock = upstream(
        processor.image_processor, processor.tokenizer, processor.video_processor, chat_template=processor.chat_template
    )
    prompt = processor.apply_chat_template(processor.grounding_messages(clip, QUERY), add_generation_prompt=True)
    options: dict[str, Any] = {
        "videos": [clip.frames],
        "video_metadata": [clip.metadata()],
        "do_resize": False,
        "do_sample_frames": False,
        "return_tensors": "pt",
    }
    collapsed = prompt.replace(processor.placeholder, processor.video_token)
    native = type(processor)(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
        encoding="native",
    )
    return _Calls(
        prompt=prompt,
        ours=native(text=[prompt], videos=[clip], return_tensors="pt"),
        stock=stock(text=[prompt], **options),
        collapsed=stock(text=[collapsed], **options),
    )


def check_processor(processor: InterleavedTimestampsMixin, area: str) -> Iterator[Finding]:
    """Ids and pixels of this package's native encoding against transformers' own class."""
    sampling = processor.frame_sampling
    budget = f"at most {sampling.max_frames} frames and {sampling.total_tokens} vision tokens"
    name = f"{type(processor).__name__}, encoding {processor.encoding}, {sampling.fps:g} fps, {budget}"
    yield Finding(area, "ok", name)
    calls = _calls(processor)
    ids = calls.ours["input_ids"]
    pair = processor.placeholder.replace(processor.video_token, "…")
    pixels = torch.equal(calls.ours["pixel_values_videos"], calls.stock["pixel_values_videos"])
    if torch.equal(ids, calls.stock["input_ids"]):
        yield Finding(area, "ok", "native ids equal those of transformers' own processor")
    elif torch.equal(ids, calls.collapsed["input_ids"]):
        yield Finding(
            area,
            "note",
            f"transformers' own processor leaves {pair} around the whole video, which the "
            "checkpoints of this family were not trained with; this package removes the pair, other ids are equal",
        )
    else:
        theirs = shorten_pads(processor, processor.tokenizer.decode(calls.stock["input_ids"][0]))
        yield Finding(
            area,
            "broken",
            f"native ids differ from those of transformers' own processor, which writes {theirs!r}",
            "report it with the versions above; until then evaluate with transformers' own processor",
        )
    if pixels:
        yield Finding(area, "ok", "native pixels equal those of transformers' own processor without resizing")
    else:
        remedy = "report it with the versions above; until then evaluate with transformers' own processor"
        yield Finding(area, "broken", "native pixels differ from those of transformers' own processor", remedy)
    if not processor.time_encoding.family_markers:
        yield Finding(
            area,
            "note",
            f"the encoding is {processor.encoding}: programs that load the stock class (vLLM) write times in their own "
            "way; use load_processor there as well",
        )
    if "system" in calls.prompt.partition(processor.placeholder)[0]:
        yield Finding(
            area,
            "note",
            "the chat template adds a system turn, which the official evaluation does not have",
        )


def check_model(processor: InterleavedTimestampsMixin, model: Any, area: str = "model") -> Iterator[Finding]:
    """Runs the model: logits must change with the video, with the order of its frames and with their times."""
    inputs = _changed(processor, model)
    with torch.no_grad():
        logits = {name: _last_logits(model, made) for name, made in (inputs | {"again": inputs["same"]}).items()}
    noise = _distance(logits["same"], logits["again"])
    where = f"{model.dtype}, {model.device}".replace("torch.", "")
    for name, what, remedy in (
        (
            "other",
            "another video",
            "the vision tensors do not reach the model; compare the keys that its forward takes",
        ),
        ("order", "the order of the frames", "rotary positions or vision tensors are lost; check mm_token_type_ids"),
        ("times", "the times of the frames", "times do not reach the model; check the encoding and second_per_grid_ts"),
    ):
        change = _distance(logits["same"], logits[name])
        said = f"{what} changes the logits by {change:.3g} (the same call twice: {noise:.3g}; {where})"
        if change > 10 * noise and change > 1e-6:
            yield Finding(area, "ok", said)
        elif name == "times" and not processor.time_encoding.tells_seconds:
            yield Finding(area, "note", f"{said}; {processor.encoding} tells frame numbers, not times")
        else:
            yield Finding(area, "broken", said, remedy)
    yield from _positions_after_video(processor, model, area)


def _changed(processor: InterleavedTimestampsMixin, model: Any) -> dict[str, Any]:
    """What the processor makes of a clip, of another one, of its frames backwards, and of its times drawn out."""
    clip = made_clip(processor)
    backwards = replace(clip, frames=clip.frames.flip(0))
    slower = replace(clip, fps=clip.fps / 4, times=clip.times * 4, duration=clip.duration * 4)
    clips = {"same": clip, "other": made_clip(processor, seed=1), "order": backwards, "times": slower}
    return {name: _inputs(processor, model, shown) for name, shown in clips.items()}


def _last_logits(model: Any, inputs: Any) -> torch.Tensor:
    out: torch.Tensor = model(**inputs, logits_to_keep=1).logits[0, -1].float().cpu()
    return out


def _inputs(processor: InterleavedTimestampsMixin, model: Any, clip: VideoClip) -> Any:
    return processor.apply_chat_template(
        processor.grounding_messages(clip, QUERY),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference of log-probabilities."""
    return float((a.log_softmax(-1) - b.log_softmax(-1)).abs().max())


def _positions_after_video(processor: InterleavedTimestampsMixin, model: Any, area: str) -> Iterator[Finding]:
    """Families with the times of frame pairs were trained with text at higher rotary positions than all of a video."""
    clip = made_clip(processor)
    inputs = _inputs(processor, model, replace(clip, fps=1.0, times=clip.times * clip.fps))
    if "second_per_grid_ts" not in inputs:
        return
    names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    positions, _ = model.model.get_rope_index(**{name: inputs[name] for name in names})
    video = (inputs["mm_token_type_ids"][0] == 2).nonzero().flatten()
    last, after = int(positions[:, 0, video].max()), int(positions[:, 0, int(video[-1]) + 1].max())
    if after == last + 1:
        yield Finding(area, "ok", "text after a video stands at rotary positions after all of it")
    else:
        yield Finding(
            area,
            "warning",
            f"this transformers puts the text after a video at rotary position {after}, though the video reaches to "
            f"{last}; this family was trained, and transformers 4 runs, with the text after all of the video",
            "load the model by timelens_plugins.families.load.load_model, as evaluation and training here do",
        )
