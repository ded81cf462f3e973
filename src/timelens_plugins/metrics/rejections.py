"""Answers that say "not in this video": rightly, where the annotation has no span, and wrongly, where it has one.

They stand beside recall and mIoU, which are about annotations with a span alone: a wrong rejection has IoU 0 there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from timelens_plugins.answers import AnswerStatus
from timelens_plugins.metrics.samples import Sample

__all__ = ["Rejections", "count_rejections"]


@dataclass(frozen=True, slots=True)
class Rejections:
    """Counts over a set of samples; repetitions of an annotation count each.

    Attributes:
        absent: annotations of events that are not in the video.
        right: of these, answers that say so.
        missed: of these, answers with a span all the same. What is left could not be read, or is missing.
        present: annotations with a span.
        wrong: of these, answers that say that the event is not in the video.
    """

    absent: int
    right: int
    missed: int
    present: int
    wrong: int

    @property
    def rates(self) -> dict[str, float | None]:
        """Shares, 0..1, of ``right`` and ``missed`` in ``absent`` and of ``wrong`` in ``present``; None of nothing."""
        return {
            "right": self.right / self.absent if self.absent else None,
            "missed": self.missed / self.absent if self.absent else None,
            "wrong": self.wrong / self.present if self.present else None,
        }


def count_rejections(samples: Iterable[Sample]) -> Rejections | None:
    """Count them; None where every event is in its video, so that there is nothing to reject.

    >>> count_rejections([Sample("v", "a cat flies", (), None, "unparsed", failure="denied")])
    Rejections(absent=1, right=1, missed=0, present=0, wrong=0)
    """
    given = list(samples)
    absent, present = [s for s in given if not s.target], [s for s in given if s.target]
    if not absent:
        return None
    return Rejections(
        absent=len(absent),
        right=sum(sample.failure == AnswerStatus.DENIED for sample in absent),
        missed=sum(sample.predicted is not None for sample in absent),
        present=len(present),
        wrong=sum(sample.failure == AnswerStatus.DENIED for sample in present),
    )
