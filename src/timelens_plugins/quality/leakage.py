"""What two annotation files share that they should not, such as a test set and the data that trained for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from timelens_plugins.moments import Moment, without_video_suffix
from timelens_plugins.quality.problems import Problem
from timelens_plugins.quality.videos import VideoFacts, equal_files, similar_files
from timelens_plugins.quality.wording import near_equal

__all__ = ["leakage_problems"]


def leakage_problems(
    moments: Sequence[Moment],
    others: Sequence[Moment],
    other_file: str,
    facts: Sequence[VideoFacts] = (),
    other_facts: Sequence[VideoFacts] = (),
) -> Iterator[Problem]:
    """Videos of ``moments`` that ``others`` hold too, by name or by content, and near-equal queries about them.

    Args:
        facts, other_facts: of :func:`~timelens_plugins.quality.videos.look_at_videos`; empty where files were not
            looked at, and content then is not compared.
    """
    theirs: dict[str, list[Moment]] = defaultdict(list)
    for moment in others:
        theirs[_name(moment.video)].append(moment)
    renamed = _same_content(facts, other_facts)
    ours: dict[str, list[Moment]] = defaultdict(list)
    for moment in moments:
        ours[moment.video].append(moment)
    for path, group in ours.items():
        ids = tuple(moment.id for moment in group)
        found = theirs.get(_name(path))
        if found:
            yield Problem("leaked_video", path, f"in {other_file} too, with {len(found)} moments", ids)
        elif path in renamed:
            found = theirs[_name(renamed[path])]
            yield Problem("leaked_video", path, f"shows what {renamed[path]} of {other_file} shows", ids)
        else:
            continue
        for moment in group:
            match = next((other for other in found if near_equal(moment.query, other.query)), None)
            if match is not None:
                yield Problem("leaked_query", moment.id, f"{moment.query!r}: {match.query!r} there", (moment.id,))


def _name(path: str) -> str:
    """What a video is called, wherever it lies and whatever its container."""
    return without_video_suffix(PurePosixPath(path.replace("\\", "/")).name)


def _same_content(facts: Sequence[VideoFacts], others: Sequence[VideoFacts]) -> dict[str, str]:
    own = {id(fact) for fact in facts}
    usable = [fact for fact in (*facts, *others) if fact.error is None]
    pairs: dict[str, str] = {}
    for group in (*equal_files(usable), *similar_files(usable)):
        foreign = [fact.path for fact in group if id(fact) not in own]
        if foreign:
            pairs |= {fact.path: foreign[0] for fact in group if id(fact) in own and fact.path not in pairs}
    return pairs
