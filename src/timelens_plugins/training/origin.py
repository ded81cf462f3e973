"""What a run was started from, its data and its base model, and what to say where it goes on with others."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Origin", "data_digest"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Kept in every checkpoint; empty where it is not known.

    Attributes:
        data: digest of the data set, see :func:`data_digest`.
        model: name or path of the model that was loaded, before any checkpoint of the run was.
    """

    data: str = ""
    model: str = ""

    @classmethod
    def of(cls, names: Iterable[str], model: Any) -> Origin:
        """Of a run.

        Args:
            names: of the data set's rows, in order.
            model: a ``PreTrainedModel``, or one with adapters.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        return cls(data_digest(names), getattr(base, "name_or_path", None) or "")

    @classmethod
    def saved(cls, state: Mapping[str, Any]) -> Origin:
        """From a checkpoint's state."""
        return cls(state.get("data", ""), state.get("model", ""))

    def compare(self, saved: Origin, folder: str | Path) -> None:
        """Say so where a run goes on from a checkpoint of another one: other data, order or rows; another model."""
        if saved.data and saved.data != self.data:
            logger.warning(
                "%s was saved with another data set: the prompts that come now are not those that would have come, and "
                "some may come again. Start over in another output_dir if this is not meant",
                folder,
            )
        if saved.model and saved.model != self.model:
            logger.warning(
                "%s was saved by a run that started from the model %s, and this one starts from %s. Trained weights "
                "are the checkpoint's; what is not trained is this model's",
                folder,
                saved.model,
                self.model or "a model without a name",
            )


def data_digest(names: Iterable[str]) -> str:
    """Tells data sets apart by their rows' names and the order of these; empty where there are none."""
    text = "\n".join(names)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if text else ""
