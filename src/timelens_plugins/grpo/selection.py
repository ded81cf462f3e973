"""Settings of recipes: which moments are trained on, by difficulty, and when training stops."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from timelens_plugins.difficulty import Estimates, OnlineDifficulty, load_estimates
from timelens_plugins.difficulty.estimate import model_settings
from timelens_plugins.difficulty.online import ONLINE_WEIGHTING
from timelens_plugins.inference.fingerprint import fingerprint
from timelens_plugins.moments import AnnotationError, Moment
from timelens_plugins.plateau.callback import RewardPlateauCallback
from timelens_plugins.rewards import REWARD_RANGES
from timelens_plugins.sampling import DURATION_EDGES, METHODS, STRATA, Difficulty, Weighting, select_moments
from timelens_plugins.timestamps import InterleavedTimestampsMixin

__all__ = [
    "DifficultyArguments",
    "StoppingArguments",
    "estimates_of",
    "reward_range",
    "settings_of_run",
    "training_set",
]

logger = logging.getLogger(__name__)

_SHOWN = 5

_ESTIMATES = frozenset({"difficulty_file", "difficulty_mismatch", "difficulty_missing"})
_GAUSSIAN = frozenset({"sampling_mean", "sampling_std", "sampling_bins"})
_HARD = frozenset({"sampling_a", "sampling_b"})
_DRAW = frozenset({"sampling", "target_size", "strata"})
_TAKEN = {
    "none": _DRAW,
    "offline": _DRAW | _ESTIMATES | _GAUSSIAN | _HARD | {"shrink"},
    "online": _ESTIMATES | _GAUSSIAN | _HARD | {"sampling", "half_life"},
}
"""Which settings have an effect under each ``difficulty``."""


@dataclass
class DifficultyArguments:
    """For TRL's ``TrlParser``. None stands for the default that is named; what would have no effect is an error."""

    difficulty: str = field(
        default="none",
        metadata={
            "help": "'none': all moments alike. 'offline': a set is drawn once, by estimates of recipes/difficulty.py. "
            "'online': each generation batch is drawn by what the rewards so far say."
        },
    )
    difficulty_file: str | None = field(
        default=None,
        metadata={"help": "Estimates: what is drawn by (offline, required), or what online estimates start from."},
    )
    difficulty_mismatch: str | None = field(
        default=None,
        metadata={
            "help": "Where the file says that another model answered, or with other frames, or says nothing: 'error' "
            "(default), or 'accept', which logs the difference."
        },
    )
    difficulty_missing: str | None = field(
        default=None,
        metadata={
            "help": "At moments without a row: 'error' (default), or 'skip', which leaves them out and counts them. "
            "Those listed in FILE.failed.jsonl are left out in either case."
        },
    )
    sampling: str | None = field(
        default=None,
        metadata={"help": f"Weights: {', '.join(METHODS)}. Default: gaussian offline, hard online, uniform else."},
    )
    sampling_mean: float | None = field(default=None, metadata={"help": "Of the Gaussian over the IoU. Default: 0.05."})
    sampling_std: float | None = field(default=None, metadata={"help": "Of the Gaussian over the IoU. Default: 0.2."})
    sampling_bins: int | None = field(
        default=None, metadata={"help": "Of the histogram the Gaussian is divided by; 0 for none. Default: 20."}
    )
    sampling_a: float | None = field(
        default=None, metadata={"help": "Exponent of 1 - mean in 'hard'. Default: 2 offline, 1 online."}
    )
    sampling_b: float | None = field(
        default=None, metadata={"help": "Exponent of the spread in 'hard'. Default: 0 offline, 1 online."}
    )
    shrink: bool | None = field(
        default=None,
        metadata={
            "help": "Offline: shrink estimates to the mean of all by their error, which the Gaussian counts, too. "
            "Online estimates always are. Default: false, as released."
        },
    )
    target_size: int | None = field(
        default=None, metadata={"help": "Moments to draw. Default: 2500 offline, all with difficulty 'none'."}
    )
    strata: str | None = field(
        default=None, metadata={"help": f"Where they are drawn: {', '.join(STRATA)}. Default: duration."}
    )
    half_life: float | None = field(
        default=None,
        metadata={"help": "Online: groups after which an answer counts half. Default: as many as there are moments."},
    )

    def __post_init__(self) -> None:
        for name, values in (
            ("difficulty", tuple(_TAKEN)),
            ("sampling", METHODS),
            ("strata", STRATA),
            ("difficulty_mismatch", ("error", "accept")),
            ("difficulty_missing", ("error", "skip")),
        ):
            value = getattr(self, name)
            if value not in values and not (value is None and name != "difficulty"):
                raise ValueError(f"{name} must be one of {', '.join(values)}, got {value!r}")
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None} - {"difficulty"}
        if useless := sorted(given - _TAKEN[self.difficulty]):
            raise ValueError(f"{', '.join(useless)}: without effect with difficulty: {self.difficulty}. Leave it out")
        self._check_combinations(given)

    def _check_combinations(self, given: set[str]) -> None:
        method = self.weighting().method
        for names, only in ((_GAUSSIAN, "gaussian"), (_HARD, "hard")):
            if method != only and (useless := sorted(given & names)):
                raise ValueError(f"{', '.join(useless)}: without effect with sampling: {method}. Leave it out")
        if self.difficulty == "offline" and self.difficulty_file is None:
            raise ValueError(
                "difficulty: offline needs difficulty_file: the rows that recipes/difficulty.py writes for the model "
                "to be trained"
            )
        if self.difficulty_file is None and (useless := sorted(given & _ESTIMATES)):
            raise ValueError(f"{', '.join(useless)}: without effect without difficulty_file. Leave it out")
        if self.shrink and method == "uniform":
            raise ValueError("shrink: without effect with sampling: uniform. Leave it out")
        if self.difficulty == "none" and method != "uniform":
            raise ValueError(f"sampling: {method} needs difficulty: offline or online")
        if self.difficulty == "none" and self.target_size is None and given:
            raise ValueError(f"{', '.join(sorted(given))}: without effect without target_size. Leave it out")
        if self.target_size is not None and self.target_size < 1:
            raise ValueError(f"target_size must be at least 1, got {self.target_size}")
        bins = len(DURATION_EDGES) + 1
        if self.target_size is not None and self.target_size < bins and self.strata in (None, "duration"):
            raise ValueError(
                f"target_size: {self.target_size} is less than one moment for each of the {bins} bins of duration, "
                "which give equally many: draw more, or set strata: duration_filled or none"
            )

    def weighting(self) -> Weighting:
        """From estimates to weights."""
        online = self.difficulty == "online"
        default = {"offline": Weighting(), "online": ONLINE_WEIGHTING}.get(self.difficulty, Weighting("uniform"))
        method = self.sampling or default.method
        chosen = {name: getattr(self, f"sampling_{name}") for name in ("mean", "std", "bins", "a", "b")}
        known = {name: value for name, value in chosen.items() if value is not None}
        if self.sampling_bins == 0:
            known["bins"] = None
        return replace(
            default, method=method, uncertainty=method == "gaussian" and (online or bool(self.shrink)), **known
        )


@dataclass
class StoppingArguments:
    """For TRL's ``TrlParser``: :class:`~timelens_plugins.plateau.RewardPlateauCallback`, by its own names."""

    early_stopping: bool = field(
        default=False,
        metadata={"help": "Stop at the reward plateau (see docs/plateau.md)."},
    )
    saved_model: str | None = field(
        default=None,
        metadata={
            "help": "After a stop, the model left in output_dir: 'plateau', of where it began (default), or 'last', of "
            "where the run stopped."
        },
    )
    patience: int | None = field(
        default=None, metadata={"help": "Prompts over which an improvement must show. Default: by the planned steps."}
    )
    min_steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps before which it does not stop. Default: 50."}
    )
    confidence: float | None = field(
        default=None, metadata={"help": "One-sided, of the slopes' upper limits. Default: 0.995."}
    )

    def __post_init__(self) -> None:
        given = self._given()
        if given and not self.early_stopping:
            raise ValueError(f"{', '.join(given)}: without effect without early_stopping: true. Leave it out")
        if self.saved_model not in (None, "plateau", "last"):
            raise ValueError(f"saved_model must be 'plateau' or 'last', got {self.saved_model!r}")
        self.callback()

    def _given(self) -> dict[str, Any]:
        names = ("patience", "min_steps", "confidence", "saved_model")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def callback(self) -> RewardPlateauCallback | None:
        """The callback, where it is wanted."""
        given = {name: value for name, value in self._given().items() if name != "saved_model"}
        return RewardPlateauCallback(**given) if self.early_stopping else None


def settings_of_run(model: torch.nn.Module, processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """What estimates of difficulty must have been made with, to be those of this model; equal on every process.

    Args:
        model: loaded, before adapters are put on it or it is sharded.
        processor: of the training.
    """
    # Loaders that spare memory give the weights to the first process alone.
    weights = [fingerprint(model) if PartialState().is_main_process else ""]
    if PartialState().num_processes > 1:
        broadcast_object_list(weights)
    return model_settings(weights[0], processor)


def reward_range(
    rewards: Sequence[str], weights: Sequence[float] | None = None, arguments: DifficultyArguments | None = None
) -> tuple[float, float]:
    """Bounds of what online difficulty learns from: the temporal IoU where it is a reward, else their weighted sum.

    Args:
        rewards: names in :data:`~timelens_plugins.rewards.REWARDS`.
        weights: of the rewards; None for 1 each.
        arguments: that the rewards have to fit.

    Raises:
        ValueError: another number of weights; online difficulty that starts from a file, which has IoUs, and would go
            on with rewards on another scale.
    """
    if weights is not None and len(weights) != len(rewards):
        raise ValueError(
            f"reward_weights has {len(weights)} numbers, and there are {len(rewards)} rewards "
            f"({', '.join(rewards)}): give one for each, in their order"
        )
    if "temporal_iou" in rewards:
        return 0.0, 1.0
    if arguments is not None and arguments.difficulty == "online" and arguments.difficulty_file is not None:
        raise ValueError(
            f"difficulty: online with difficulty_file starts from IoUs, and would learn from {' + '.join(rewards)}, "
            "which is on another scale: add temporal_iou to the rewards, with a weight of 0 in reward_weights where it "
            "is not to be trained for, or leave difficulty_file out"
        )
    bounds = [
        sorted(weight * end for end in REWARD_RANGES[name])
        for name, weight in zip(rewards, weights or [1.0] * len(rewards), strict=True)
    ]
    return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def estimates_of(
    arguments: DifficultyArguments,
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
    arguments: DifficultyArguments,
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
    if arguments.difficulty == "online":
        online = OnlineDifficulty(
            [moment.id for moment in chosen],
            estimates,
            weighting=arguments.weighting(),
            half_life=arguments.half_life,
            reward_range=rewards,
        )
        online.weights()  # complains now about settings outside their range
        return chosen, online
    if estimates is None and arguments.target_size is None:
        return chosen, None
    if estimates is None:
        difficulty = Difficulty(np.zeros(len(chosen)))  # nothing is known, and uniform weights ask for nothing
    else:
        difficulty = estimates.shrunk() if arguments.shrink else estimates.plain()
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
