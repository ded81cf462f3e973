"""The page on which people decide findings: one offline HTML file, on the base of the report's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole
from timelens_plugins.moments import Moment, find_video
from timelens_plugins.quality.asked import asked_for
from timelens_plugins.quality.findings import Finding
from timelens_plugins.quality.reviews import digest_of
from timelens_plugins.report.clips import link_to
from timelens_plugins.report.page import asset, render_page
from timelens_plugins.report.strips import StripBudget, check_decoders, make_strips
from timelens_plugins.report.writing import check_output

__all__ = ["write_review_page"]

_HERE = "timelens_plugins.quality"


def write_review_page(
    moments: Sequence[Moment],
    findings: Sequence[Finding],
    output: str | Path,
    *,
    file: str | Path,
    videos: str | Path | None = None,
    strips: StripBudget | None = None,
    title: str | None = None,
    progress: bool = True,
) -> Path:
    """Write the page.

    Args:
        moments: the whole annotation file, so that the page can export all of it corrected; paths of videos as there.
        findings: about them, in the order in which they are to be decided.
        output: the page; it links to the clips and does not hold them.
        file: where the moments come from.
        videos: folder below which the clips are; None for a page without clips.

    Raises:
        ValueError: a finding about a moment that is not there, or has changed; a folder that is none.
        OSError: the page cannot be written.
    """
    output = Path(output)
    check_output(output)
    place = {moment.id: i for i, moment in enumerate(moments)}
    if unknown := [finding.moment for finding in findings if finding.moment not in place]:
        raise ValueError(
            f"{len(unknown)} findings are of moments not in {file}, such as {unknown[0]!r}; audit it again"
        )
    edited = [f.moment for f in findings if not _of(f, moments[place[f.moment]])]
    if edited:
        raise ValueError(
            f"{len(edited)} findings are of other queries or spans than {file} has under their ids, such as "
            f"{edited[0]!r}: the file was edited since; audit it again"
        )
    shown = dict.fromkeys(moments[place[finding.moment]] for finding in findings)
    clips, images, notes = _clips(list(shown), output, videos, strips or StripBudget(), progress)
    data = {
        "title": title or f"Review of {Path(file).name}",
        "file": str(Path(file).name),
        "stem": Path(file).stem,
        "digest": digest_of(moments),
        "moments": [moment.to_row() for moment in moments],
        "findings": [finding.to_row() | {"m": place[finding.moment]} for finding in findings],
        "clips": clips,
        "strips": images,
        "notes": notes,
    }
    style = "\n".join([asset("page.css"), asset("samples.css"), asset("review.css", _HERE)])
    script = "\n".join([asset("elements.js"), asset("review.js", _HERE)])
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, render_page(data, style=style, script=script))
    return output


def _of(finding: Finding, moment: Moment) -> bool:
    """Whether a finding is about the moment as it stands."""
    query = moment.query if moment.question is None else asked_for(moment.question) or moment.query
    return finding.query == query and finding.spans == tuple((span.start, span.end) for span in moment.spans)


def _clips(
    moments: Sequence[Moment], output: Path, videos: str | Path | None, budget: StripBudget, progress: bool
) -> tuple[Mapping[str, Any], list[Any], list[str]]:
    """By moment, the address of its clip below the folder and which of the film strips is its window's; and what is
    missing."""
    if videos is None:
        return {}, [], ["No folder of videos was given: findings are shown without clips."]
    root = Path(videos).resolve()
    if not root.is_dir():
        raise ValueError(f"{videos}: no folder of videos there")
    if budget.clips:
        check_decoders()
    found: dict[str, Path] = {}
    missing: set[str] = set()
    for moment in moments:
        try:
            path = find_video(root / moment.video).resolve()
        except (OSError, ValueError):
            missing.add(moment.video)
            continue
        if path.is_relative_to(root):
            found[moment.video] = path
        else:
            missing.add(moment.video)
    windows = {
        m.id: (found[m.video], None if m.video_start is None or m.video_end is None else (m.video_start, m.video_end))
        for m in moments
        if m.video in found
    }
    made = make_strips(windows.values(), budget, progress=progress)
    number = {clip: i for i, clip in enumerate(made.images)}
    clips = {name: {"src": link_to(clip[0], output), "strip": number.get(clip)} for name, clip in windows.items()}
    notes = [f"{len(missing)} clips are not in {videos}."] if missing else []
    if made.skipped:
        notes.append(f"{made.skipped} clips have no film strip: the page would be too large.")
    return clips, list(made.images.values()), [*notes, *made.faults]
