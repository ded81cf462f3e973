"""Models on a benchmark as first released and as refined: both scores, what happens to the ranks, and what made it so.

Ranks are compared by Kendall's tau-b (M. G. Kendall, Biometrika 1938 and 1945). Where there are answers to every
moment, its interval comes from resampling the videos, the same ones for all models and both benchmarks; published
figures alone give none. Where a model's answers to both benchmarks are known, every moment is put into one of four
classes by what the refinement did to it, which shows what made the score move.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics import Sample
from timelens_plugins.quality.findings import Finding
from timelens_plugins.quality.wording import near_equal, same_words
from timelens_plugins.results import Case, Run, Window
from timelens_plugins.results.scoring import ious_of
from timelens_plugins.spans import set_iou

__all__ = ["CLASSES", "BenchmarkComparison", "ClassScores", "ModelScores", "compare_benchmarks"]

Class = Literal["kept", "moved", "dropped", "added"]
CLASSES: dict[Class, str] = {
    "kept": "same query, same span",
    "moved": "same query, another span",
    "dropped": "query in the original only",
    "added": "query in the refined only",
}
_SAME_SPAN = 0.95  # IoU from which two labels are the same
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model: mIoU on both, in percent, and its ranks (1 is best).

    ``source`` says where the figures come from.
    """

    model: str
    original: float
    refined: float
    source: str
    original_rank: int = 0
    refined_rank: int = 0


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One model on the moments of one class: how many, and its mIoU in percent under either label, None where there is
    none; of moments that the refinement changed, how many an audit called what."""

    name: Class
    moments: int
    original: float | None
    refined: float | None
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkComparison:
    """Attributes:
    original, refined: names of the benchmarks.
    models: best on the refined first.
    tau: Kendall's tau-b of the two orders; None for fewer than two models.
    interval: 95 % of tau, by resampling videos; None where no model's answers are known.
    swaps: pairs of models whose order changed: (better on the original, better on the refined).
    classes: by model whose answers to both are known.
    """

    original: str
    refined: str
    models: Sequence[ModelScores]
    tau: float | None
    interval: tuple[float, float] | None
    swaps: Sequence[tuple[str, str]]
    classes: Mapping[str, Sequence[ClassScores]]

    def table(self) -> str:
        """All of it as text."""
        lines = [
            f"{self.original} → {self.refined}",
            f"{'model':24}{'original':>9}{'refined':>9}{'change':>8}{'ranks':>9}  source",
        ]
        for m in self.models:
            ranks = f"{m.original_rank} → {m.refined_rank}"
            lines.append(
                f"{m.model:24}{m.original:9.1f}{m.refined:9.1f}{m.refined - m.original:+8.1f}{ranks:>9}  {m.source}"
            )
        if self.tau is not None:
            spread = "no interval: published figures only"
            if self.interval is not None:
                spread = f"95 % by resampling videos: {self.interval[0]:+.2f} … {self.interval[1]:+.2f}"
            lines.append(f"Kendall's tau of the two orders: {self.tau:+.2f} ({spread})")
        if self.swaps:
            lines.append(f"{len(self.swaps)} pairs of models change order:")
            lines += [f"  {a} is better on the original, {b} on the refined" for a, b in self.swaps]
        for model, classes in self.classes.items():
            lines.append(f"{model}, by what the refinement did to a moment:")
            for c in classes:
                both = "  ".join(
                    f"{what} {'–' if value is None else format(value, '.1f'):>5}"
                    for what, value in (("original", c.original), ("refined", c.refined))
                )
                kinds = ", ".join(f"{count} {kind}" for kind, count in c.kinds.items())
                lines.append(f"  {CLASSES[c.name]:28}{c.moments:7,}  {both}{'  audit: ' + kinds if kinds else ''}")
        return "\n".join(lines)


def compare_benchmarks(
    original: str,
    refined: str,
    published: Mapping[str, tuple[float, float]],
    runs: Mapping[str, tuple[Run, Run]],
    *,
    findings: Sequence[Finding] = (),
    seed: int = 0,
) -> BenchmarkComparison:
    """Put models side by side.

    Args:
        original, refined: names of the benchmarks.
        published: mIoU in percent on both, by model.
        runs: a run on the original and one on the refined, by model. The original is scored without rounding, the
            refined by the official rule, as both are published.
        findings: of ``timelens audit`` on the original annotations, to name the errors of moved and dropped moments.
        seed: of the resampling.

    Raises:
        ValueError: no model, or a model in both.
    """
    if not published and not runs:
        raise ValueError(f"no model has figures on both {original} and {refined}")
    if both := published.keys() & runs.keys():
        raise ValueError(f"{', '.join(sorted(both))}: published under this name already; name the run otherwise")
    scored = {model: (_scores(a, "exact"), _scores(b, "official")) for model, (a, b) in runs.items()}
    figures = {model: (a, b, "published") for model, (a, b) in published.items()}
    figures |= {model: (100 * a.mean, 100 * b.mean, "run") for model, (a, b) in scored.items()}
    names = list(figures)
    before, after = (np.array([figures[name][i] for name in names], dtype=float) for i in (0, 1))
    first, second = _ranks(before), _ranks(after)
    models = [ModelScores(name, *figures[name], int(first[i]), int(second[i])) for i, name in enumerate(names)]
    models.sort(key=lambda m: (m.refined_rank, m.original_rank))
    swaps = [
        (a, b) if before[i] > before[j] else (b, a)
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2)
        if (before[i] - before[j]) * (after[i] - after[j]) < 0
    ]
    return BenchmarkComparison(
        original=original,
        refined=refined,
        models=models,
        tau=_tau(before, after),
        interval=_interval(names, before, after, scored, seed),
        swaps=swaps,
        classes={model: _classes(a, b, findings) for model, (a, b) in runs.items()},
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 for the largest; equal values share a rank."""
    return 1 + (values[None, :] > values[:, None]).sum(axis=1)


def _tau(before: NDArray[np.float64], after: NDArray[np.float64]) -> float | None:
    from scipy.stats import kendalltau

    if len(before) < 2:
        return None
    tau = float(kendalltau(before, after).statistic)
    return None if np.isnan(tau) else tau


@dataclass(frozen=True)
class _Scores:
    """IoU sums and counts by video."""

    videos: dict[str, tuple[float, int]]

    @property
    def mean(self) -> float:
        total = sum(iou for iou, _ in self.videos.values())
        return total / sum(count for _, count in self.videos.values())

    def resampled(self, weights: Mapping[str, int]) -> float | None:
        total = sum(weights.get(video, 0) * iou for video, (iou, _) in self.videos.items())
        count = sum(weights.get(video, 0) * n for video, (_, n) in self.videos.items())
        return total / count if count else None


def _ious(run: Run, reading: Literal["exact", "official"]) -> NDArray[np.float64]:
    """Of each case, the mean over its answers."""
    return np.array([float(np.mean(values)) for values in ious_of(run.cases, reading)])


def _scores(run: Run, reading: Literal["exact", "official"]) -> _Scores:
    videos: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for case, iou in zip(run.cases, _ious(run, reading), strict=True):
        total, count = videos[case.moment.video]
        videos[case.moment.video] = (total + float(iou), count + 1)
    return _Scores(dict(videos))


def _interval(
    names: Sequence[str],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    scored: Mapping[str, tuple[_Scores, _Scores]],
    seed: int,
) -> tuple[float, float] | None:
    """Percentiles of tau when the videos that runs were scored on are drawn again; published figures stay."""
    if not scored or len(names) < 2:
        return None
    videos = sorted({video for pair in scored.values() for scores in pair for video in scores.videos})
    rng = np.random.default_rng(seed)
    taus = []
    for _ in range(_RESAMPLES):
        drawn = Counter(rng.integers(len(videos), size=len(videos)).tolist())
        weights = {videos[i]: count for i, count in drawn.items()}
        a, b = before.copy(), after.copy()
        for i, name in enumerate(names):
            if name in scored:
                values = [scores.resampled(weights) for scores in scored[name]]
                if None in values:
                    break
                a[i], b[i] = (100 * value for value in values if value is not None)
        else:
            tau = _tau(a, b)
            if tau is not None:
                taus.append(tau)
    if not taus:
        return None
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(low), float(high)


def _classes(original: Run, refined: Run, findings: Sequence[Finding]) -> list[ClassScores]:
    before, after = (dict(enumerate(run.cases)) for run in (original, refined))
    exact, official = _ious(original, "exact"), _ious(refined, "official")
    pairs = _matched(before, after)
    members: dict[Class, tuple[list[int], list[int]]] = {name: ([], []) for name in CLASSES}
    for i, j in pairs.items():
        same = set_iou(before[i].moment.target, after[j].moment.target) >= _SAME_SPAN
        name: Class = "kept" if same else "moved"
        members[name][0].append(i)
        members[name][1].append(j)
    members["dropped"][0].extend(i for i in before if i not in pairs)
    members["added"][1].extend(set(after) - set(pairs.values()))
    named = _kinds_by_query(findings)
    return [
        ClassScores(
            name,
            max(len(one), len(two)),
            100 * float(np.mean(exact[one])) if one else None,
            100 * float(np.mean(official[two])) if two else None,
            dict(Counter(k for i in one for k in named.get(_asked(before[i].moment), ())).most_common())
            if name in ("moved", "dropped")
            else {},
        )
        for name, (one, two) in members.items()
    ]


def _matched(before: Mapping[int, Case], after: Mapping[int, Case]) -> dict[int, int]:
    """Moments of both that ask the same of one video, or of one window of it; equal words first, then nearly equal
    ones, and of those that ask the same those with the same span first."""

    def words(a: Sample, b: Sample) -> bool:
        return same_words(a.query) == same_words(b.query)

    def near(a: Sample, b: Sample) -> bool:
        return near_equal(a.query, b.query)

    by_clip: dict[tuple[str, Window | None], list[int]] = defaultdict(list)
    for j, case in after.items():
        by_clip[case.moment.video, case.window].append(j)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for same, least in ((words, _SAME_SPAN), (words, 0.0), (near, _SAME_SPAN), (near, 0.0)):
        for i, case in before.items():
            if i in pairs:
                continue
            for j in by_clip[case.moment.video, case.window]:
                other = after[j].moment
                if j not in taken and same(case.moment, other) and set_iou(case.moment.target, other.target) >= least:
                    pairs[i] = j
                    taken.add(j)
                    break
    return pairs


def _asked(sample: Sample) -> tuple[str, str]:
    return sample.video, same_words(sample.query)


def _kinds_by_query(findings: Sequence[Finding]) -> dict[tuple[str, str], set[str]]:
    from timelens_plugins.metrics.samples import video_name

    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for finding in findings:
        if finding.score >= 0.5:
            kinds[video_name(finding.video), same_words(finding.query)].add(finding.kind)
    return kinds
