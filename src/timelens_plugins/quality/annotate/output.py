"""What annotating leaves behind: TimeLens-100K rows with provenance, what was dropped, what failed, the counts."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timelens_plugins
from timelens_plugins.atomic import write_whole
from timelens_plugins.quality.annotate.candidates import Candidate
from timelens_plugins.quality.annotate.prompting import Prompts
from timelens_plugins.quality.annotate.steps import AnnotateSettings, Grounder
from timelens_plugins.quality.asking import Asker

__all__ = ["AnnotateReport", "write_output"]


@dataclass(frozen=True)
class AnnotateReport:
    """What became of videos and proposals.

    Attributes:
        output: the file of rows.
        videos: given.
        failed: path of a video, or of a video with an event about which something could not be asked -> why.
        proposals: events that were proposed and could be read, and those that could not.
        confirmed: annotations that independent grounding confirmed at once.
        repaired: those confirmed after a repair.
        refined: annotations whose boundaries were moved by refinement.
        dropped: reason -> proposals dropped for it.
        unasked: proposals that wait for the next run, as a question about them failed.
        rows: videos with annotations.
        thirds: annotations whose middle lies in the first, second and last third of their video.
        asked: model -> questions answered by this run, by earlier runs, and output tokens of this run.
    """

    output: Path
    videos: int
    failed: Mapping[str, str]
    proposals: int
    confirmed: int
    repaired: int
    refined: int
    dropped: Mapping[str, int]
    unasked: int
    rows: int
    thirds: tuple[int, int, int]
    asked: Mapping[str, tuple[int, int, int]]

    @property
    def annotations(self) -> int:
        """In the file."""
        return self.confirmed + self.repaired

    def table(self, shown: int = 5) -> str:
        """Everything for a person."""
        lines = [f"{self.videos:,} videos, {self.proposals:,} events proposed"]
        lines += [f"{count:9,} {name}" for name, count in (("confirmed", self.confirmed), ("repaired", self.repaired))]
        lines += [f"{count:9,} dropped: {reason}" for reason, count in self.dropped.items()]
        if self.unasked:
            lines.append(f"{self.unasked:9,} not decided: a question about them has no answer")
        if self.refined:
            lines.append(f"{self.refined:,} annotations with refined boundaries")
        if self.annotations:
            parts = " / ".join(f"{count / self.annotations:.0%}" for count in self.thirds)
            lines.append(f"annotations in the first / second / last third of their video: {parts}")
        for name, (asked, earlier, tokens) in self.asked.items():
            lines.append(f"{name}: {asked:,} questions answered, {earlier:,} by earlier runs; {tokens:,} output tokens")
        if self.failed:
            lines.append(
                f"{len(self.failed):,} videos with questions that have no answer; the same command asks again:"
            )
            lines += [f"  {video}: {why}" for video, why in list(self.failed.items())[:shown]]
            if len(self.failed) > shown:
                lines.append(f"  and {len(self.failed) - shown:,} more")
        lines.append(f"{self.output}: {self.annotations:,} annotations of {self.rows:,} videos")
        return "\n".join(lines)


def write_output(
    output: Path,
    videos: Sequence[str],
    candidates: Sequence[Candidate],
    durations: Mapping[str, float],
    failed: Mapping[str, str],
    *,
    video_root: Path,
    source: str,
    annotator: Asker,
    grounders: Sequence[Grounder],
    prompts: Prompts,
    settings: AnnotateSettings,
) -> AnnotateReport:
    """Write OUT and OUT.report.json; OUT.dropped.jsonl and OUT.failed.jsonl where anything was dropped or failed.

    Args:
        output: OUT.
        videos: all that were given, in order.
        candidates: all proposals.
        durations: of the videos that could be opened, in seconds.
        failed: videos about which nothing could be asked -> why.
        video_root: folder that the rows' paths start from.
        source: of the rows, as TimeLens-100K names the set that a video is from.
        annotator, grounders, prompts, settings: what it was made with.
    """
    models = {"annotator": annotator.name, "grounders": [grounder.asker.name for grounder in grounders]}
    made = {
        "by": f"timelens annotate {timelens_plugins.__version__}",
        "annotator": annotator.settings,
        "grounders": [grounder.asker.settings | {"asked": grounder.prompt} for grounder in grounders],
        "settings": asdict(settings),
        "prompts": dict(prompts.texts),
    }
    digest = hashlib.blake2b(json.dumps(made, sort_keys=True).encode(), digest_size=8).hexdigest()
    by_video: dict[str, list[Candidate]] = {video: [] for video in videos}
    for candidate in candidates:
        by_video[candidate.video].append(candidate)
    why = dict(failed)
    rows: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    unasked: list[dict[str, Any]] = []
    kept: list[Candidate] = []
    for video, of_video in by_video.items():
        path = os.path.relpath(video, video_root)
        for c in of_video:
            if c.error is not None:
                why.setdefault(video, c.error)
                unasked.append({"video_path": path, "error": c.error, **_said(c), **c.to_row()})
            elif c.dropped is not None:
                dropped.append({"video_path": path, "reason": c.dropped, "detail": c.detail, **_said(c), **c.to_row()})
        of_row = sorted(
            (c for c in of_video if c.alive), key=lambda c: (c.said.span.start if c.said else 0.0, c.number)
        )
        if of_row:
            kept += of_row
            events = [_said(c) | {"provenance": c.to_row()} for c in of_row]
            row = {"source": source, "video_path": path, "duration": durations[video], "events": events}
            rows.append(row | {"provenance": {"annotation": digest, **models}})
    report = AnnotateReport(
        output=output,
        videos=len(videos),
        failed=why,
        proposals=len(candidates),
        confirmed=sum(not c.repairs for c in kept),
        repaired=sum(bool(c.repairs) for c in kept),
        refined=sum(c.refined is not None for c in kept),
        dropped=dict(Counter(row["reason"] for row in dropped).most_common()),
        unasked=len(unasked),
        rows=len(rows),
        thirds=_thirds(kept, durations),
        asked=_asked(annotator, grounders),
    )
    unread = [{"video_path": os.path.relpath(video, video_root), "error": error} for video, error in failed.items()]
    write_whole(output, _lines(rows))
    for suffix, listing in (("dropped", dropped), ("failed", [*unread, *unasked])):
        path_beside = output.with_name(f"{output.name}.{suffix}.jsonl")
        if listing:
            write_whole(path_beside, _lines(listing))
        else:
            path_beside.unlink(missing_ok=True)
    content = asdict(report) | {"output": output.name, "annotations": report.annotations, "annotation": digest}
    text = json.dumps(content | {"made": made}, indent=1)
    write_whole(output.with_name(f"{output.name}.report.json"), text + "\n")
    return report


def _said(candidate: Candidate) -> dict[str, Any]:
    """Sentence and span as a TimeLens-100K event; nothing where there are none."""
    return {} if candidate.said is None else {"query": candidate.said.text, "span": [list(candidate.said.span)]}


def _thirds(kept: Sequence[Candidate], durations: Mapping[str, float]) -> tuple[int, int, int]:
    counts = [0, 0, 0]
    for candidate in kept:
        if candidate.said is not None:
            middle = (candidate.said.span.start + candidate.said.span.end) / 2
            counts[min(2, int(3 * middle / durations[candidate.video]))] += 1
    return counts[0], counts[1], counts[2]


def _asked(annotator: Asker, grounders: Sequence[Grounder]) -> dict[str, tuple[int, int, int]]:
    """By the name of the model, with a number where two have one name."""
    found: dict[str, tuple[int, int, int]] = {}
    for asker in {id(a): a for a in (annotator, *(grounder.asker for grounder in grounders))}.values():
        same = sum(name.partition(" #")[0] == asker.name for name in found)
        name = asker.name if not same else f"{asker.name} #{same + 1}"
        found[name] = asker.asked, asker.earlier, asker.output_tokens
    return found


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
