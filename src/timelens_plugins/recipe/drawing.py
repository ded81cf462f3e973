"""Settings of which moments are trained on: for each value of ``difficulty`` a class of what has an effect."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from timelens_plugins.difficulty import DURATION_EDGES, METHODS, STRATA, Weighting
from timelens_plugins.difficulty.online import ONLINE_WEIGHTING

__all__ = ["DRAWINGS", "AllMoments", "Drawing", "OfflineDifficulty", "OnlineDraws", "WeightedDrawing", "drawing"]

_GAUSSIAN = ("sampling_mean", "sampling_std", "sampling_bins")
_HARD = ("sampling_a", "sampling_b")


@dataclass
class Drawing:
    """What all of them have; None stands for the default that is named.

    Attributes:
        default: weights where nothing is set.
    """

    difficulty: str = field(
        default="none",
        metadata={
            "help": "'none': all moments alike. 'offline': a set is drawn once, by estimates of recipes/difficulty.py. "
            "'online': each generation batch is drawn by what the rewards so far say."
        },
    )

    default: ClassVar[Weighting] = Weighting("uniform")

    def __post_init__(self) -> None:
        if self.difficulty not in DRAWINGS:
            raise ValueError(f"difficulty must be one of {', '.join(DRAWINGS)}, got {self.difficulty!r}")
        self.weighting()

    def weighting(self) -> Weighting:
        """From estimates to weights."""
        return self.default

    def _one_of(self, name: str, values: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in (None, *values):
            raise ValueError(f"{name} must be one of {', '.join(values)}, got {value!r}")

    def _without_effect(self, names: tuple[str, ...], condition: str) -> None:
        if useless := sorted(name for name in names if getattr(self, name) is not None):
            raise ValueError(f"{', '.join(useless)}: without effect {condition}. Leave it out")


@dataclass
class _Target(Drawing):
    """How many are drawn, and where."""

    target_size: int | None = field(
        default=None, metadata={"help": "Moments to draw. Default: 2500 offline, all with difficulty 'none'."}
    )
    strata: str | None = field(
        default=None, metadata={"help": f"Where they are drawn: {', '.join(STRATA)}. Default: duration."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("strata", STRATA)
        if self.target_size is not None and self.target_size < 1:
            raise ValueError(f"target_size must be at least 1, got {self.target_size}")
        bins = len(DURATION_EDGES) + 1
        if self.target_size is not None and self.target_size < bins and self.strata in (None, "duration"):
            raise ValueError(
                f"target_size: {self.target_size} is less than one moment for each of the {bins} bins of duration, "
                "which give equally many: draw more, or set strata: duration_filled or none"
            )


@dataclass
class AllMoments(_Target):
    """``difficulty: none``: all moments, or ``target_size`` of them at random."""

    sampling: str | None = field(default=None, metadata={"help": "Only 'uniform', which is also the default."})

    def __post_init__(self) -> None:
        self._one_of("sampling", METHODS)
        if self.sampling not in (None, "uniform"):
            raise ValueError(f"sampling: {self.sampling} needs difficulty: offline or online")
        super().__post_init__()
        if self.target_size is None:
            self._without_effect(("sampling", "strata"), "without target_size")


@dataclass
class WeightedDrawing(Drawing):
    """Weights, and the file of estimates they come from."""

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
        default=None, metadata={"help": f"Weights: {', '.join(METHODS)}. Default: gaussian offline, hard online."}
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

    def __post_init__(self) -> None:
        self._one_of("sampling", METHODS)
        super().__post_init__()
        self._one_of("difficulty_mismatch", ("error", "accept"))
        self._one_of("difficulty_missing", ("error", "skip"))
        method = self.weighting().method
        for names, only in ((_GAUSSIAN, "gaussian"), (_HARD, "hard")):
            if method != only:
                self._without_effect(names, f"with sampling: {method}")
        if self.difficulty_file is None:
            self._without_effect(("difficulty_mismatch", "difficulty_missing"), "without difficulty_file")

    def weighting(self) -> Weighting:
        """From estimates to weights."""
        method = self.sampling or self.default.method
        chosen = {name: getattr(self, f"sampling_{name}") for name in ("mean", "std", "bins", "a", "b")}
        known = {name: value for name, value in chosen.items() if value is not None}
        if self.sampling_bins == 0:
            known["bins"] = None
        return replace(self.default, method=method, uncertainty=method == "gaussian" and self._uncertain, **known)

    @property
    def _uncertain(self) -> bool:
        """Whether the Gaussian counts the estimates' errors."""
        return True


@dataclass
class OfflineDifficulty(_Target, WeightedDrawing):
    """``difficulty: offline``: a set drawn once, by a file of estimates."""

    shrink: bool | None = field(
        default=None,
        metadata={
            "help": "Shrink estimates to the mean of all by their error, which the Gaussian counts, too. Online "
            "estimates always are. Default: false, as released."
        },
    )

    default: ClassVar[Weighting] = Weighting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.difficulty_file is None:
            raise ValueError(
                "difficulty: offline needs difficulty_file: the rows that recipes/difficulty.py writes for the model "
                "to be trained"
            )
        if self.shrink and self.weighting().method == "uniform":
            raise ValueError("shrink: without effect with sampling: uniform. Leave it out")

    @property
    def _uncertain(self) -> bool:
        return bool(self.shrink)


@dataclass
class OnlineDraws(WeightedDrawing):
    """``difficulty: online``: each generation batch drawn by the rewards so far."""

    half_life: float | None = field(
        default=None,
        metadata={"help": "Groups after which an answer counts half. Default: as many as there are moments."},
    )

    default: ClassVar[Weighting] = ONLINE_WEIGHTING


DRAWINGS: dict[str, type[Drawing]] = {"none": AllMoments, "offline": OfflineDifficulty, "online": OnlineDraws}
"""Value of ``difficulty`` -> its settings."""


def drawing(difficulty: str = "none", **settings: Any) -> Drawing:
    """The settings of one value of ``difficulty``.

    Raises:
        ValueError: an unknown value, or a setting without effect there.
    """
    if difficulty not in DRAWINGS:
        raise ValueError(f"difficulty must be one of {', '.join(DRAWINGS)}, got {difficulty!r}")
    cls = DRAWINGS[difficulty]
    known = {f.name for f in fields(cls)}
    elsewhere = {f.name for other in DRAWINGS.values() for f in fields(other)}
    if useless := sorted(name for name in settings if name in elsewhere - known):
        raise ValueError(f"{', '.join(useless)}: without effect with difficulty: {difficulty}. Leave it out")
    return cls(difficulty=difficulty, **settings)
