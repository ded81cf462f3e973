"""Which moments are trained on, by the settings of ``drawing`` and a file of estimates."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from timelens_plugins.difficulty import Difficulty, Estimates, OnlineDifficulty, load_estimates, select_moments
from timelens_plugins.difficulty.estimate import model_settings
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.inference.fingerprint import fingerprint
from timelens_plugins.moments import AnnotationError, Moment
from timelens_plugins.recipe.drawing import AllMoments, Drawing, OfflineDifficulty, OnlineDraws, WeightedDrawing
from timelens_plugins.training.sharding import is_sharded

__all__ = ["estimates_of", "settings_of_run", "training_set"]

logger = logging.getLogger(__name__)

_SHOWN = 5


def settings_of_run(model: torch.nn.Module, processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """What estimates of difficulty must have been made with, to be those of this model; equal on every process.

    Args:
        model: loaded, before adapters are put on it or it is wrapped.
        processor: of the training.
    """
    # Loaders that spare memory give the weights to the first process alone, or a shard to each.
    weights = [fingerprint(model) if PartialState().is_main_process or is_sharded(model) else ""]
    if PartialState().num_processes > 1:
        broadcast_object_list(weights)
    return model_settings(weights[0], processor)


def estimates_of(
    arguments: WeightedDrawing,
    moments: Sequence[Moment],
    annotated: Sequence[Moment],
    settings: Mapping[str, Any],
) -> Estimates:
    """Read ``difficulty_file``: an estimate for each of the moments, less those that have none.

    Left out, with their number and names in the log: moments of videos that could not be read, as
    ``FILE.failed.jsonl`` says, and with ``difficulty_missing="skip"`` all others without a row.

    Args:
        arguments: with a ``difficulty_file``.
        moments: that can be trained on.
        annotated: that the file may be about: all of the annotations, before any filter.
        settings: from :func:`settings_of_run`.

    Raises:
        AnnotationError: what :func:`~timelens_plugins.difficulty.load_estimates` refuses, a moment without a row, or a
            file of another model or other settings that is not accepted.
        ValueError: no moment is left.
    """
    path = Path(arguments.difficulty_file or "")
    failed = _failed(path)
    lost = [moment for moment in moments if moment.id in failed]
    if lost:
        logger.warning(
            "%s: %d of %d moments have no estimate, as %d videos could not be read, and are left out: %s%s",
            path,
            len(lost),
            len(moments),
            len({moment.video for moment in lost}),
            "; ".join(f"{m.id} ({failed[m.id]})" for m in lost[:_SHOWN]),
            " …" if len(lost) > _SHOWN else "",
        )
    wanted = [moment for moment in moments if moment.id not in failed]
    if not wanted:
        raise ValueError(f"{path}: none of the {len(moments)} moments to train on could be answered")

    def load(settings: Mapping[str, Any] | None) -> Estimates:
        skip = arguments.difficulty_missing == "skip"
        return load_estimates(path, wanted, known=annotated, settings=settings, on_missing="drop" if skip else "raise")

    try:
        return load(settings)
    except AnnotationError as error:
        if error.field != "settings":
            raise
        accepted = load(None)  # refuses a file that does not even agree with itself
        if arguments.difficulty_mismatch != "accept":
            remedy = f"{error.fault.remedy}, or accept it knowingly (difficulty_mismatch: accept)"
            raise AnnotationError(replace(error.fault, remedy=remedy)) from None
        logger.warning("accepted all the same (difficulty_mismatch: accept): %s", error.fault)
        return accepted


def _failed(path: Path) -> dict[str, str]:
    """Moments of videos that could not be read -> why, from the listing beside a difficulty file."""
    listing = path.with_name(f"{path.name}.failed.jsonl")
    if not listing.is_file():
        return {}
    try:
        entries = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        return {name: entry["error"] for entry in entries for name in entry["moments"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{listing}: not a listing of failed videos ({error!r}); run the estimation again") from None


def training_set(
    arguments: Drawing,
    moments: Sequence[Moment],
    estimates: Estimates | None,
    *,
    seed: int,
    rewards: tuple[float, float] = (0.0, 1.0),
) -> tuple[list[Moment], OnlineDifficulty | None]:
    """The moments to train on, and what draws among them while training goes on.

    Args:
        arguments: the settings.
        moments: that can be trained on.
        estimates: from :func:`estimates_of`, where there is a file; moments without one are left out.
        seed: of the draw.
        rewards: from :func:`reward_range`.

    Raises:
        ValueError: nothing to draw from, nothing drawn, or values that the chosen weights need and the estimates lack.
    """
    chosen = list(moments)
    if estimates is not None:
        known = set(estimates.ids)
        chosen = [moment for moment in moments if moment.id in known]
        estimates = estimates.take([moment.id for moment in chosen])
    if isinstance(arguments, OnlineDraws):
        online = OnlineDifficulty(
            [moment.id for moment in chosen],
            estimates,
            weighting=arguments.weighting(),
            half_life=arguments.half_life,
            reward_range=rewards,
        )
        online.weights()  # complains now about settings outside their range
        return chosen, online
    assert isinstance(arguments, OfflineDifficulty | AllMoments)
    if estimates is None and arguments.target_size is None:
        return chosen, None
    if estimates is None:
        difficulty = Difficulty(np.zeros(len(chosen)))  # nothing is known, and uniform weights ask for nothing
    else:
        shrink = isinstance(arguments, OfflineDifficulty) and arguments.shrink
        difficulty = estimates.shrunk() if shrink else estimates.plain()
    selection = select_moments(
        chosen,
        difficulty,
        2500 if arguments.target_size is None else arguments.target_size,
        weighting=arguments.weighting(),
        strata=arguments.strata or "duration",
        seed=seed,
    )
    if not len(selection.indices):
        raise ValueError(
            f"none of {len(chosen)} moments was drawn: {'; '.join(selection.notes)}. Choose another sampling or strata"
        )
    if estimates is not None:
        logger.info("difficulty before and after:\n%s", selection.histogram())
    return [chosen[i] for i in selection.indices], None
