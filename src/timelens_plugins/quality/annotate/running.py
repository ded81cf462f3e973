"""``annotate``: videos in, TimeLens-100K rows out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from timelens_plugins.quality.annotate.output import AnnotateReport, write_output
from timelens_plugins.quality.annotate.prompting import read_prompts
from timelens_plugins.quality.annotate.steps import AnnotateSettings, Grounder, Steps
from timelens_plugins.quality.asking import Asker, ModelChoice
from timelens_plugins.suffixes import VIDEO_SUFFIXES
from timelens_plugins.video import VideoError
from timelens_plugins.video.errors import fault_of
from timelens_plugins.video.stream import probe

__all__ = ["annotate", "videos_of"]


def annotate(
    videos: Sequence[str | Path],
    output: str | Path,
    annotator: ModelChoice,
    grounders: Sequence[ModelChoice] = (),
    *,
    settings: AnnotateSettings | None = None,
    prompts: str | Path | None = None,
    max_new_tokens: int = 1024,
    journal: str | Path | None = None,
    video_root: str | Path | None = None,
    source: str = "annotated",
    progress: bool = False,
) -> AnnotateReport:
    """Annotate videos; the same call goes on where a run was killed, and asks nothing twice.

    Args:
        videos: files, and folders of them.
        output: file of TimeLens-100K rows; lists of what was dropped and what failed, and a report, lie beside it.
        annotator: the model that proposes, words and repairs.
        grounders: models that ground independently, each of which has to confirm; none: the annotator, which gets the
            sentence alone. Each is asked with ``verify.txt``, or with the ``prompt`` among its options.
        settings: default: :class:`AnnotateSettings`.
        prompts: folder of texts in place of the shipped ones.
        max_new_tokens: of an answer.
        journal: folder of finished answers; default: ``OUTPUT.journal``.
        video_root: folder that the rows' paths start from; default: the one that all videos lie in.
        source: of the rows.
        progress: show bars.

    Raises:
        ValueError: no such video, one outside ``video_root``, no folder for the output, or an option that does not
            exist.
        EndpointError: an endpoint that cannot be used.
    """
    output = Path(output)
    settings, texts = settings or AnnotateSettings(), read_prompts(prompts)
    files = videos_of(videos)
    root = _root(files, video_root)
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")
    journal = output.with_name(f"{output.name}.journal") if journal is None else journal
    durations, failed = _durations(files)
    with ExitStack() as stack:
        asker = stack.enter_context(Asker(annotator, journal, max_new_tokens=max_new_tokens))
        askers = [
            stack.enter_context(Asker(choice, journal, max_new_tokens=max_new_tokens)) for choice in grounders
        ] or [asker]
        verifying = [Grounder(one, one.prompt or texts.texts["verify"]) for one in askers]
        steps = Steps(durations, asker, verifying, texts, settings, progress=progress)
        steps.run()
        return write_output(
            output,
            files,
            steps.candidates,
            durations,
            failed | steps.unanswered,
            video_root=root,
            source=source,
            annotator=asker,
            grounders=verifying,
            prompts=texts,
            settings=settings,
        )


def videos_of(given: Sequence[str | Path]) -> list[str]:
    """Absolute paths of files, and of the video files in folders, each once.

    Raises:
        ValueError: nothing there, or a folder without videos.
    """
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(f"{path}: no video in this folder ({', '.join(VIDEO_SUFFIXES)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: there is no such video")
    if not found:
        raise ValueError("no videos were given")
    return list(dict.fromkeys(os.path.abspath(path) for path in found))


def _root(videos: Sequence[str], given: str | Path | None) -> Path:
    """The folder that paths in rows start from."""
    if given is None:
        return Path(os.path.commonpath([Path(video).parent for video in videos]))
    root = Path(os.path.abspath(given))
    if outside := [video for video in videos if not Path(video).is_relative_to(root)]:
        raise ValueError(f"{len(outside)} videos do not lie in video_root {root}, such as {outside[0]}")
    return root


def _durations(videos: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of the videos that can be opened, and why the others cannot."""

    def look(video: str) -> float | str:
        try:
            return round(probe(video).duration, 3)
        except (VideoError, OSError) as error:
            return fault_of(error, video)

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="look") as pool:
        found = dict(zip(videos, pool.map(look, videos), strict=True))
    opened = {video: value for video, value in found.items() if isinstance(value, float)}
    return opened, {video: value for video, value in found.items() if isinstance(value, str)}
