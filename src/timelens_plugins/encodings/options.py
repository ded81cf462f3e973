"""Keyword arguments of a processor: what has an effect is passed on, everything else is an error.

transformers passes unknown names on in silence, or warns once. Here frames come at their final size and with their
times, so whatever would sample or resize them has no effect either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import ProcessorMixin

from timelens_plugins.encodings.messages import sampling_keys

__all__ = ["check_loading_options", "take_call_options"]

_MODALITIES = ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs")

# What a video processor still does to frames of the final size, and what it returns.
_VIDEO_OPTIONS = frozenset(
    {
        "do_rescale",
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
        "device",
        "return_metadata",
        "return_tensors",
        "video_metadata",
    }
)
_SWITCHED_OFF = ("do_resize", "do_sample_frames", "fps", "num_frames", "cap_pixels_per_frame")
_MODEL_SIZES = frozenset({"patch_size", "temporal_patch_size", "merge_size"})

# Where to load from, as `from_pretrained` of processors, image processors and tokenizers take it.
_LOADING = frozenset(
    {
        "backend",
        "cache_dir",
        "code_revision",
        "config",
        "force_download",
        "local_files_only",
        "proxies",
        "revision",
        "subfolder",
        "token",
        "trust_remote_code",
        "use_fast",
        "user_agent",
    }
)
_TOKENIZER = frozenset(
    {
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "clean_up_tokenization_spaces",
        "extra_special_tokens",
        "legacy",
        "model_input_names",
        "model_max_length",
        "padding_side",
        "split_special_tokens",
        "tokenizer_type",
        "truncation_side",
    }
)

_REMEDY = (
    "this processor never samples frames again, and frames come at their final size; choose both by frame_sampling: "
    "load_processor(path, fps=..., max_frames=..., total_tokens=...), processor.configure(frame_sampling={...}), or "
    "sample_frames(path, fps=..., ...)"
)


def take_call_options(processor: ProcessorMixin, kwargs: dict[str, Any], *, videos: bool) -> Any:
    """Checks the keyword arguments of a processor's call and switches sampling and resizing of frames off in place.

    Args:
        processor: that is called.
        kwargs: its keyword arguments, flat or by modality.
        videos: whether there are any.

    Returns:
        The ``video_metadata`` found.

    Raises:
        ValueError: a name that does not exist, or that would have no effect.
    """
    kwargs |= kwargs.pop("common_kwargs", None) or {}
    known = {modality: _names(processor, modality) for modality in _MODALITIES}
    own = set(processor.valid_processor_kwargs.__annotations__) - set(_MODALITIES)
    options = dict(kwargs.pop("videos_kwargs", None) or {})
    if videos and (refused := _active(options, set(options) - _VIDEO_OPTIONS)):
        raise ValueError(f"videos_kwargs: {refused}: {_REMEDY}")
    for modality, names in known.items():
        if unknown := sorted(set(kwargs.get(modality) or {}) - names):
            raise ValueError(f"{modality}: unknown option {', '.join(unknown)}; known: {', '.join(sorted(names))}")
    flat = set(kwargs) - set(_MODALITIES) - own - known["text_kwargs"]
    # With a video, the flat name of an option of pictures would seem to mean the video.
    ignored = (
        known["images_kwargs"] | known["videos_kwargs"] if videos else known["videos_kwargs"] - known["images_kwargs"]
    )
    if refused := _active(kwargs, (flat & ignored) - _VIDEO_OPTIONS):
        also = " (for pictures beside a video: images_kwargs={...})" if videos else ""
        raise ValueError(f"{refused}: {_REMEDY}{also}")
    if unknown := sorted(flat - known["videos_kwargs"] - known["images_kwargs"]):
        hint = f"; {_REMEDY}" if set(unknown) & set(sampling_keys()) else ""
        raise ValueError(f"a processor has no option {', '.join(unknown)}{hint}")
    if not videos:
        return None
    for name in _SWITCHED_OFF:
        if name == "do_resize" and name in kwargs:
            kwargs["images_kwargs"] = {name: kwargs[name], **(kwargs.get("images_kwargs") or {})}
        for given in (kwargs, options):
            given.pop(name, None)
    metadata = [given.pop("video_metadata", None) for given in (kwargs, options)]
    kwargs["videos_kwargs"] = options | {"do_resize": False, "do_sample_frames": False}
    return next((entry for entry in metadata if entry is not None), None)


def check_loading_options(processor: ProcessorMixin, given: Iterable[str]) -> None:
    """Checks the keyword arguments with which a processor was loaded.

    Raises:
        ValueError: a name that does not exist, or that has no effect on videos.
    """
    given = {name for name in given if not name.startswith("_")}
    images, videos = _names(processor, "images_kwargs"), _names(processor, "videos_kwargs")
    sizes = {"min_pixels", "max_pixels", *sampling_keys()}  # in whatever the parts of this model know
    without_effect = (videos | sizes) - _VIDEO_OPTIONS - _MODEL_SIZES
    if refused := sorted(given & without_effect):
        raise ValueError(
            f"from_pretrained: {', '.join(refused)} would have no effect: videos are sampled and resized by "
            "frame_sampling; pass frame_sampling={'fps': ..., 'max_frames': ..., 'total_tokens': ...}"
        )
    special = set(getattr(processor.tokenizer, "SPECIAL_TOKENS_ATTRIBUTES", ()))
    known = _LOADING | _TOKENIZER | special | images | videos | set(processor.get_attributes()) | {"chat_template"}
    if unknown := sorted(given - known):
        raise ValueError(f"from_pretrained: a processor has no option {', '.join(unknown)}")


def _active(given: Mapping[str, Any], names: Iterable[str]) -> str:
    """Those of ``names`` whose value asks for something, as text."""
    off = {name for name in _SWITCHED_OFF if given.get(name) is None or given.get(name) is False}
    return ", ".join(f"{name}={given[name]!r}" for name in sorted(set(names) - off) if given[name] is not None)


def _names(processor: ProcessorMixin, modality: str) -> set[str]:
    """Options of a modality: those of the processor's class, and of the part that reads it."""
    part = {"images_kwargs": "image_processor", "videos_kwargs": "video_processor"}.get(modality)
    own = getattr(getattr(processor, part, None), "valid_kwargs", None) if part else None
    stated: Any = processor.valid_processor_kwargs.__annotations__[modality]
    if modality == "audio_kwargs":
        return set()  # no audio goes into these models
    return set(stated.__annotations__) | set(getattr(own, "__annotations__", {}))
