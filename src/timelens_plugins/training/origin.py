"""What a run was started from, its data and its base model, and what to say where it goes on with others."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.file_state import state_of
from timelens_plugins.inference.fingerprint import processor_settings, weights_of
from timelens_plugins.inference.journal import differences

__all__ = ["Origin", "data_digest"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Kept in every checkpoint; empty where it is not known.

    Attributes:
        data: digest of the data set, see :func:`data_digest`.
        content: digest of its rows: queries, prompts' texts, answers, spans and windows.
        videos: digest of the size and time of each row's video file.
        model: name or path of the model that was loaded, before any checkpoint of the run was.
        weights: digest of its weights, without adapters.
        processor: how prompts are made of clips and texts.
        per_step: rows of the data set that an optimizer step takes, on all processes; 0 where it is not known.
    """

    data: str = ""
    content: str = ""
    videos: str = ""
    model: str = ""
    weights: str = ""
    processor: dict[str, Any] = field(default_factory=dict)
    per_step: float = 0

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        rows: Iterable[Mapping[str, Any]],
        model: Any,
        processor: InterleavedTimestampsMixin,
        per_step: float = 0,
    ) -> Origin:
        """Of a run; reads all weights, the rows and the state of their videos' files.

        Args:
            names: of the data set's rows, in order.
            rows: the rows; ``video, video_start, video_end, query, spans, prompt, answer`` count, where they are.
            model: a ``PreTrainedModel``, or one with adapters.
            processor: that makes the prompts.
            per_step: rows of the data set that an optimizer step takes, on all processes.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        # Adapters are made anew before a checkpoint's are loaded.
        added = (getattr(model.base_model, "prefix", "lora_"), "modules_to_save") if base is not model else ()
        content, videos = _digests(rows)
        return cls(
            data_digest(names),
            content,
            videos,
            getattr(base, "name_or_path", None) or "",
            weights_of(base, leave_out=added).rounded,
            json.loads(json.dumps(processor_settings(processor))),
            per_step,
        )

    @classmethod
    def saved(cls, state: Mapping[str, Any]) -> Origin:
        """From a checkpoint's state."""
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state})

    def compare(self, saved: Origin, folder: str | Path) -> None:
        """Say so where a run goes on from a checkpoint of another one: other data, another model, other prompts."""
        if self == Origin():
            return  # this process does not know; another one says it
        if saved.data and saved.data != self.data:
            logger.warning(
                "%s was saved with another data set (rows and their order: %s then, %s now): the prompts that come now "
                "are not those that would have come, and some may come again. Start over in another output_dir if this "
                "is not meant",
                folder,
                saved.data,
                self.data or "none",
            )
        elif saved.content and saved.content != self.content:
            logger.warning(
                "%s was saved with rows of the same names that held other queries, answers, spans or windows (%s then, "
                "%s now)",
                folder,
                saved.content,
                self.content,
            )
        elif saved.videos and saved.videos != self.videos:
            logger.warning(
                "%s was saved when the files of the videos had other sizes or times (%s then, %s now): they were "
                "replaced, or copied without their times",
                folder,
                saved.videos,
                self.videos,
            )
        if saved.per_step and saved.per_step != self.per_step:
            logger.warning(
                "%s was saved by a run whose steps took %g rows each, and they take %g now. The place in the data is "
                "counted in steps, so rows of this epoch come again or are left out",
                folder,
                saved.per_step,
                self.per_step,
            )
        if saved.model and saved.model != self.model:
            logger.warning(
                "%s was saved by a run that started from the model %s, and this one starts from %s. Trained weights "
                "are the checkpoint's; what is not trained is this model's",
                folder,
                saved.model,
                self.model or "a model without a name",
            )
        if saved.weights and saved.weights != self.weights:
            logger.warning(
                "%s was saved by a run that started from other weights (%s then, %s now). Trained weights are the "
                "checkpoint's; what is not trained is this model's",
                folder,
                saved.weights,
                self.weights,
            )
        if saved.processor and (changed := differences(saved.processor, self.processor)):
            logger.warning("%s was saved by a run whose prompts were others: %s", folder, "; ".join(changed))


def data_digest(names: Iterable[str]) -> str:
    """Tells data sets apart by their rows' names and the order of these; empty where there are none."""
    text = "\n".join(names)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if text else ""


def _digests(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Of what rows hold, and of their videos' files."""
    content, videos = (hashlib.blake2b(digest_size=8) for _ in range(2))
    look = functools.cache(state_of)
    for row in rows:
        window = [row.get("video_start"), row.get("video_end")]
        held = [row.get("query"), row.get("spans"), window, _texts(row.get("prompt")), row.get("answer")]
        content.update(json.dumps(held, default=str).encode())
        state = look(row["video"]) if isinstance(row.get("video"), str) else None
        videos.update(json.dumps(state[:2] if state else None).encode())
    return content.hexdigest(), videos.hexdigest()


def _texts(prompt: Any) -> Any:
    """A prompt without the path of its video, which may move."""
    if isinstance(prompt, list):
        return [_texts(part) for part in prompt]
    if isinstance(prompt, Mapping):
        return [prompt.get("role"), prompt.get("text"), _texts(prompt.get("content"))]
    return prompt if isinstance(prompt, str) else None
