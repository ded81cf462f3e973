"""Annotations made anew by a model: the re-annotation that TimeLens-100K came from, as far as its paper describes it.

    from timelens_plugins.quality.annotate import annotate
    from timelens_plugins.quality.asking import ModelChoice
    report = annotate(["videos"], "annotated.jsonl", ModelChoice("api", "a-model", {"preset": "gpt"}))
    print(report.table())

- :mod:`~timelens_plugins.quality.annotate.steps`: propose, word, verify, repair, refine, drop doubles
- :mod:`~timelens_plugins.quality.annotate.prompting`: the texts that ask, in ``prompts/``
- :mod:`~timelens_plugins.quality.annotate.replies`: what is read in answers
- :mod:`~timelens_plugins.quality.annotate.candidates`: an event on its way, and what decides about it without a model
- :mod:`~timelens_plugins.quality.annotate.output`: rows with provenance, what was dropped, what failed, the counts
"""

from timelens_plugins.quality.annotate.candidates import Candidate
from timelens_plugins.quality.annotate.output import AnnotateReport
from timelens_plugins.quality.annotate.running import annotate, videos_of
from timelens_plugins.quality.annotate.steps import AnnotateSettings

__all__ = ["AnnotateReport", "AnnotateSettings", "Candidate", "annotate", "videos_of"]
